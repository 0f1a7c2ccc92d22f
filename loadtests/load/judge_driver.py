"""Decides whether a run shows the limits of the service or those of the load generator.

No I/O.
"""

from collections.abc import Iterator, Mapping

from loadtests.load.arrivals import Times
from loadtests.load.judge import Figures
from loadtests.load.report_words import share, spoken
from loadtests.scenarios.scenario import Scenario

DRIVER_CPU = 0.9
"""Share of a core. Above it, requests wait in the generator, and their latency is its own."""
LATE_MS = 100.0
"""The 99th percentile of the lateness of requests that is still accepted, in ms."""
STARVED_SHARE = 0.01
"""Share of requests that waited for a user. With more of them, the loop is no longer open."""
SKIPPED_SHARE = 0.05
"""Share of the noisy neighbour's requests that were not made.

With more of them, it was not as noisy as it should be.
"""
INSTANCE_CPU = 0.65
"""Share of a core. Below it, the instance had time left: something else limited the run.

An overloaded instance lets in no more of the crowd above 0.7 (`ROOM_SHARE` in `web/overload.py`)."""


def doubt_of(scenario: Scenario, figures: Figures) -> str:
    """Why the figures of a scenario about the service's limits do not show these limits.

    Empty if they do, and for all other scenarios.
    """
    if not scenario.bottleneck:
        return ""
    found = [f"in {stretch} {what}" for stretch, seen in figures.items() for what in _doubts(seen)]
    measured = {leg.rate.stretch for leg in scenario.legs if isinstance(leg.rate, Times)}
    used = {
        stretch: figures.get(stretch, {}).get("instance_cpu", 0.0)
        for stretch in sorted({scenario.shown, *measured})
    }
    idle = [
        f"in {stretch} the instance used only {share(part)} of its core"
        for stretch, part in used.items()
        if part < INSTANCE_CPU
    ]
    return "; ".join([*found, *idle])


def _doubts(seen: Mapping[str, float]) -> Iterator[str]:
    if (skipped := seen.get("noise_skipped_share", 0.0)) > SKIPPED_SHARE:
        yield f"the neighbour's load generator was too late for {share(skipped)} of its requests"
    if (used := seen.get("driver_cpu", 0.0)) > DRIVER_CPU:
        yield f"the load generator used {share(used)} of a core"
    if (late := seen.get("late_p99_ms", 0.0)) > LATE_MS:
        yield f"requests began {spoken(late)} ms late"
    if (starved := seen.get("starved_share", 0.0)) > STARVED_SHARE:
        yield f"{share(starved)} of the requests waited for a user of the load generator"
