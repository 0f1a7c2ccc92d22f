"""The lines of the plot: figures by second, from the first second of load on. No I/O."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import NamedTuple

from loadtests.load.judge_rows import Sample, Story


class Point(NamedTuple):
    """One value at one moment."""

    at: float
    """Seconds since the load began."""
    value: float


class Line(NamedTuple):
    """The points of one figure over time."""

    name: str
    unit: str
    style: str
    """The line's class in the picture, which decides its colour."""
    points: list[Point]


ANSWERED = {
    "near": "near cache",
    "l1": "L1",
    "l2": "L2",
    "l3": "L3",
    "origin": "origin",
    "miss": "miss",
    "error": "failed",
}


def latencies(story: Story) -> list[Line]:
    """The lines of p50, p95 and p99 in ms."""
    readers: dict[str, Callable[[Sample], float | None]] = {
        "p50": lambda row: row.p50_ms,
        "p95": lambda row: row.p95_ms,
        "p99": lambda row: row.p99_ms,
    }
    return [Line(name, "ms", name, _column(story, read)) for name, read in readers.items()]


def requests(story: Story) -> list[Line]:
    """The lines of answered and failed requests per second."""
    return [
        Line("answered", "/s", "good", _column(story, lambda row: row.requests - row.failures)),
        Line("failed", "/s", "bad", _column(story, lambda row: row.failures)),
    ]


def answered(story: Story) -> list[Line]:
    """A line for each answerer: its share of each second's reads, in percent.

    Tiers that never answered are left out.
    """
    present = [tier for tier in ANSWERED if any(row.by_tier.get(tier) for row in story.samples)]
    return [Line(ANSWERED[tier], "%", tier, _column(story, partial(_percent, tier))) for tier in present]


def stale(story: Story) -> list[Line]:
    """The line of stale answers, in percent of each second's reads.

    Empty if no answer was stale.
    """
    if not any(row.stale for row in story.samples):
        return []
    return [
        Line(
            "stale",
            "%",
            "stale",
            _column(story, lambda row: row.stale * 100 / row.reads if row.reads else None),
        )
    ]


def origin_loads(story: Story) -> list[Line]:
    """The line of loads per second that the origin counted."""
    told = [(row.t, row.origin.loads) for row in story.servers if row.origin is not None]
    points = [
        Point(ended - story.began, (after - before) / (ended - began))
        for (began, before), (ended, after) in pairwise(told)
        if ended > began and ended >= story.began
    ]
    return [Line("loads", "/s", "loads", points)]


def _column(story: Story, read: Callable[[Sample], float | None]) -> list[Point]:
    """The values of the seconds, each placed at the middle of its second."""
    return [
        Point(row.t + 0.5 - story.began, value) for row in story.samples if (value := read(row)) is not None
    ]


def _percent(tier: str, row: Sample) -> float | None:
    whole = sum(row.by_tier.values())
    return row.by_tier.get(tier, 0) * 100 / whole if whole else None
