"""Compares the figures of a run with the limits: what was missed, by how much, where to
look.

No I/O.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from loadtests.load.judge_figures import FIGURES
from loadtests.load.report_words import shown
from loadtests.load.thresholds import Limit, Limits

Figures = Mapping[str, Mapping[str, float]]
"""The figures of one run: stretch → figure → value."""

_LATENCY = "plot.html, then locust.html (which route) and the instances' logs in fleet/"
_LOADS = "plot.html (origin loads), then the instances' /metrics: loads_begun, lease_waits, fills_refused"
_SHARES = "plot.html (who answered), then the instances' /metrics: lookups by tier and outcome"
LOOK_AT: Mapping[str, str] = {
    "rate": "locust.log: did the load generator keep up?",
    "goodput": "locust_failures.csv and plot.html",
    "failed_share": "locust_failures.csv, then the instances' logs in fleet/",
    "sdk_failed_share": "locust_failures.csv, then the instances' logs in fleet/",
    "too_stale": "samples.jsonl: the seconds with too_stale above 0, and which fault was on (marks.json)",
    "noise_rate": "neighbour.jsonl and the neighbour's log",
    "noise_refused_share": "neighbour.jsonl: which answers the noisy neighbour got",
    "noise_loads_per_s": "servers.jsonl (by_namespace), then the instances' /metrics: origin budget",
    "late_p99_ms": "locust.log: the load generator was short of CPU, so the run says little",
}
"""Where to look when a figure misses its limit.

A figure that is not listed here gets the place for its kind of figure, see `look_at`.
"""


@dataclass(frozen=True)
class Finding:
    """One limit and its result."""

    stretch: str
    figure: str
    limit: Limit
    value: float | None
    """None if nothing was recorded that tells the value. This counts as missed."""
    bound: float | None

    @property
    def ok(self) -> bool:
        """True if the value is known and within the bound."""
        return self.value is not None and self.bound is not None and self.limit.met_by(self.value, self.bound)

    @property
    def sign(self) -> str:
        """The sign of the comparison."""
        return "≤" if self.limit.is_upper else "≥"

    @property
    def allowed(self) -> str:
        """The bound for people; if it is relative, also how it was calculated."""
        number = shown(self.figure, self.bound)
        if not self.limit.is_relative:
            return f"{self.sign} {number}"
        times = self.limit.at_most_times if self.limit.is_upper else self.limit.at_least_times
        sign = "-" if self.limit.plus < 0 else "+"
        plus = f" {sign} {shown(self.figure, abs(self.limit.plus))}" if self.limit.plus else ""
        return f"{self.sign} {number} ({times:g} × {self.limit.of}{plus})"

    def reason(self) -> str:
        """A sentence for people: what was missed, by how much, and where to look."""
        if self.value is None or self.bound is None:
            return (
                f"{self.stretch}: {self.figure} could not be told: nothing was recorded. Look at locust.log"
            )
        off = f", {self.value / self.bound:.1f} times that" if 0 < self.bound < self.value else ""
        told = (
            f"{self.stretch}: {self.figure} is {shown(self.figure, self.value)}, allowed {self.allowed}{off}"
        )
        because = f" ({self.limit.why})" if self.limit.why else ""
        return f"{told}: {FIGURES[self.figure]}{because}. Look at {look_at(self.figure)}"


def judge(limits: Limits, figures: Figures) -> list[Finding]:
    """A finding for every limit, in the order of the thresholds."""
    return list(_findings(limits, figures))


def look_at(figure: str) -> str:
    """Where a person should look when this figure misses its limit."""
    if figure.endswith("_ms"):
        return LOOK_AT.get(figure, _LATENCY)
    return LOOK_AT.get(figure, _LOADS if figure.startswith("origin_") else _SHARES)


def _findings(limits: Limits, figures: Figures) -> Iterator[Finding]:
    for stretch, wanted in limits.items():
        for figure, limit in wanted.items():
            other = figures.get(limit.of, {}).get(figure) if limit.is_relative else 0.0
            bound = None if other is None else limit.bound(other)
            yield Finding(stretch, figure, limit, figures.get(stretch, {}).get(figure), bound)
