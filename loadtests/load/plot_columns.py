"""What is plotted of a story: columns of figures by second, from the first second of load on. Pure."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import NamedTuple

from loadtests.load.judge_rows import Sample, Story


class Point(NamedTuple):
    at: float
    """Seconds since the load began."""
    value: float


class Line(NamedTuple):
    name: str
    unit: str
    style: str
    """Its class in the picture: the colour."""
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
    readers: dict[str, Callable[[Sample], float | None]] = {
        "p50": lambda row: row.p50_ms,
        "p95": lambda row: row.p95_ms,
        "p99": lambda row: row.p99_ms,
    }
    return [Line(name, "ms", name, _column(story, read)) for name, read in readers.items()]


def requests(story: Story) -> list[Line]:
    return [
        Line("answered", "/s", "good", _column(story, lambda row: row.requests - row.failures)),
        Line("failed", "/s", "bad", _column(story, lambda row: row.failures)),
    ]


def answered(story: Story) -> list[Line]:
    """Shares of the reads of each second, in percent; tiers that never answered are left out."""
    present = [tier for tier in ANSWERED if any(row.by_tier.get(tier) for row in story.samples)]
    return [Line(ANSWERED[tier], "%", tier, _column(story, partial(_percent, tier))) for tier in present]


def stale(story: Story) -> list[Line]:
    """In percent of the reads of each second; nothing if there was none."""
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
    told = [(row.t, row.origin.loads) for row in story.servers if row.origin is not None]
    points = [
        Point(ended - story.began, (after - before) / (ended - began))
        for (began, before), (ended, after) in pairwise(told)
        if ended > began and ended >= story.began
    ]
    return [Line("loads", "/s", "loads", points)]


def _column(story: Story, read: Callable[[Sample], float | None]) -> list[Point]:
    """In the middle of their seconds."""
    return [
        Point(row.t + 0.5 - story.began, value) for row in story.samples if (value := read(row)) is not None
    ]


def _percent(tier: str, row: Sample) -> float | None:
    whole = sum(row.by_tier.values())
    return row.by_tier.get(tier, 0) * 100 / whole if whole else None
