"""What a run recorded, a row for each second: what the callers saw (`samples.jsonl`) and what the servers said (`servers.jsonl`).

Times are seconds since the epoch. A sample tells of the second that begins at its `t`, a server's row of the moment `t`.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import msgspec

Row = TypeVar("Row")


class Route(msgspec.Struct, frozen=True):
    """What a route did in one second."""

    requests: int = 0
    failures: int = 0
    p50_ms: float | None = None


class Sample(msgspec.Struct, frozen=True):
    """One second as the callers saw it; written by the locust process."""

    t: float
    requests: int = 0
    failures: int = 0
    by_tier: dict[str, int] = {}
    """Reads by what answered them: near, l1, l2, l3, origin, miss, error."""
    stale: int = 0
    """Reads answered past their freshness, as the namespace allows."""
    too_stale: int = 0
    """Reads answered older than `max_lag` allows. There must be none, whatever breaks."""
    lag_max: float | None = None
    """The longest staleness bound that an answer named, in seconds."""
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    max_ms: float | None = None
    served_p95_ms: float | None = None
    """Of the requests that did not fail."""
    failed_p95_ms: float | None = None
    """Of those that did."""
    by_route: dict[str, Route] = {}
    late_ms_p99: float | None = None
    """How late requests of an open loop began, because no user was free or the generator itself was slow."""
    starved: int = 0
    """Requests of an open loop that found no free user when they were due."""
    driver_cpu: float = 0.0
    """Share of a core that the generator used."""
    reasons: dict[str, int] = {}
    """Of failures, and how many had each."""

    @property
    def reads(self) -> int:
        """Those that were answered, be it with a miss."""
        return sum(count for tier, count in self.by_tier.items() if tier != "error")


class OriginRow(msgspec.Struct, frozen=True):
    """The origin's own counts, since its start."""

    loads: int = 0
    keys: int = 0
    """Different keys among the loads."""
    running: int = 0
    peak: int = 0
    """The most loads that ever ran at once."""
    failures: int = 0


class ServerRow(msgspec.Struct, frozen=True):
    """What the origin and the instances said at `t`."""

    t: float
    origin: OriginRow | None = None
    """None: it did not answer."""
    instances: dict[str, dict[str, float]] = {}
    """The metrics of each instance that have no labels; empty: it did not answer."""
    cpu_seconds: dict[str, float] = {}
    """What the process of each instance has used since it was started; those that do not run are missing."""


class Mark(msgspec.Struct):
    """Something was so for a while: a fault."""

    what: str
    began: float
    ended: float | None = None
    """None: it still is."""


class Story(msgspec.Struct, frozen=True):
    """All that happened in a run, or has happened by now."""

    scenario: str
    seconds: float
    """How long the load is to last."""
    samples: list[Sample]
    servers: list[ServerRow]
    marks: list[Mark]
    stretches: dict[str, tuple[float, float]]
    """What thresholds speak of: begin and end."""

    @property
    def began(self) -> float:
        return self.samples[0].t if self.samples else 0.0


def read_rows(path: Path, kind: type[Row]) -> list[Row]:
    """Every whole line of a file that may still be written to; none if it does not exist yet."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    decode = msgspec.json.Decoder(kind).decode
    return [decode(line) for line in lines if line]


def between(rows: Iterable[Sample], begins: float, ends: float) -> list[Sample]:
    """The seconds that lie wholly in a stretch of time."""
    return [row for row in rows if row.t >= begins and row.t + 1 <= ends]


def servers_between(rows: Iterable[ServerRow], begins: float, ends: float) -> list[ServerRow]:
    return [row for row in rows if begins <= row.t <= ends]
