"""The rows that a run recorded, one for each second.

`samples.jsonl` has what the callers saw, `servers.jsonl` what the servers reported. Times are
seconds since the epoch. A sample describes the second that begins at its `t`, a server's row the
moment `t`.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import msgspec

Row = TypeVar("Row")


class Route(msgspec.Struct, frozen=True):
    """Requests of one route in one second."""

    requests: int = 0
    failures: int = 0
    p50_ms: float | None = None


class Sample(msgspec.Struct, frozen=True):
    """One second as the callers saw it; written by the locust process."""

    t: float
    requests: int = 0
    failures: int = 0
    by_tier: dict[str, int] = {}
    """Reads by answerer: near, l1, l2, l3, origin, miss, error."""
    stale: int = 0
    """Reads that were answered past their freshness, as the namespace allows."""
    too_stale: int = 0
    """Reads that were answered older than `max_lag` allows. It must stay 0, whatever breaks."""
    lag_max: float | None = None
    """The longest staleness bound that an answer named, in seconds."""
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    max_ms: float | None = None
    served_p95_ms: float | None = None
    """95th percentile of the requests that did not fail."""
    failed_p95_ms: float | None = None
    """95th percentile of the requests that failed."""
    by_route: dict[str, Route] = {}
    late_ms_p99: float | None = None
    """The lateness of requests of an open loop, 99th percentile.

    Requests are late because no user was free, or because the generator itself was slow.
    """
    starved: int = 0
    """Requests of an open loop that found no free user when they were due."""
    driver_cpu: float = 0.0
    """Share of a core that the load generator used."""
    reasons: dict[str, int] = {}
    """The number of failures by reason."""

    @property
    def reads(self) -> int:
        """Reads that were answered, misses included."""
        return sum(count for tier, count in self.by_tier.items() if tier != "error")


class OriginRow(msgspec.Struct, frozen=True):
    """The origin's own counts since its start."""

    loads: int = 0
    keys: int = 0
    """Different keys among the loads."""
    running: int = 0
    peak: int = 0
    """The most loads that ever ran at once."""
    failures: int = 0
    by_namespace: dict[str, int] = {}
    """Loads by the namespace that they name; those that name none are missing."""


class NeighbourRow(msgspec.Struct):
    """One second of a noisy neighbour's load; written by the process that makes it."""

    t: float
    namespace: str = ""
    due: int = 0
    """Requests that were due."""
    skipped: int = 0
    """Requests that were not made, because the process was too late for them."""
    by_answer: dict[str, int] = {}
    """Requests that ended, by answer.

    An answer is `200`, the status and kind of a problem, or the reason why there is none.
    """


class ServerRow(msgspec.Struct, frozen=True):
    """The reports of the origin and of the instances at the moment `t`."""

    t: float
    origin: OriginRow | None = None
    """None if the origin did not answer."""
    instances: dict[str, dict[str, float]] = {}
    """The metrics without labels of each instance; empty if the instance did not answer."""
    cpu_seconds: dict[str, float] = {}
    """CPU time of each instance's process since its start.

    Processes that do not run are missing.
    """


class Mark(msgspec.Struct):
    """Something that held for a while, such as a fault."""

    what: str
    began: float
    ended: float | None = None
    """None while it still holds."""


class Story(msgspec.Struct, frozen=True):
    """All that has happened in a run so far."""

    scenario: str
    seconds: float
    """The planned duration of the load."""
    samples: list[Sample]
    servers: list[ServerRow]
    marks: list[Mark]
    stretches: dict[str, tuple[float, float]]
    """The stretches that thresholds judge, with their begin and end."""
    neighbours: list[NeighbourRow] = []

    @property
    def began(self) -> float:
        """The first second of load; 0 before that second is recorded."""
        return self.samples[0].t if self.samples else 0.0


def read_rows(path: Path, kind: type[Row]) -> list[Row]:
    """Every complete line of a file that may still be written to.

    Empty if the file does not exist yet.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    decode = msgspec.json.Decoder(kind).decode
    return [decode(line) for line in lines if line]


def between(rows: Iterable[Sample], begins: float, ends: float) -> list[Sample]:
    """The seconds that lie completely between the two times."""
    return [row for row in rows if row.t >= begins and row.t + 1 <= ends]


def servers_between(rows: Iterable[ServerRow], begins: float, ends: float) -> list[ServerRow]:
    """The rows whose moment lies between the two times."""
    return [row for row in rows if begins <= row.t <= ends]
