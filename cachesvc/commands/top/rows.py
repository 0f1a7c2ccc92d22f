"""The rows of the picture: `picture.py` makes them, `verdict.py` judges them, `view.py`
shows them.

Times are in seconds, sizes in bytes, rates per second. A number that no instance knows is None:
an instance of another release may lack a metric, and without traffic there is no ratio.
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from cachesvc.commands.top.scrape import Unmet


class InstanceRow(Struct, frozen=True):
    """One instance."""

    name: str
    silent: str = ""
    """The reason why the instance does not answer; empty if it does."""
    ready: bool = False
    requests: float | None = None
    """Requests per second."""
    p50: float | None = None
    p99: float | None = None
    """Quantiles of the durations of reads."""
    hit_ratio: float | None = None
    l1_bytes: float | None = None
    l1_budget: float | None = None
    l1_eviction_age: float | None = None
    in_progress: float | None = None
    shed: float | None = None
    topology_version: float | None = None
    document: tuple[str, str] | None = None
    """The version of the newest topology document, and the hash of its content."""
    clock_offsets: Sequence[float] = ()
    """The clocks of the cells and queues minus the instance's own."""
    loops: Mapping[str, str] = {}
    """The background loops that do not do their work, each with the reason."""
    rivals: Mapping[str, str] = {}
    """Names that mean two things, by kind, each with what to do."""
    changes_lost: float | None = None
    """Changes that somebody else took out of the region's queue, since the instance
    started."""
    settings: Sequence[Unmet] = ()
    """The settings that the instance's servers lack."""
    conditions: Sequence[Unmet] = ()
    """The states of the instance's servers that need a person."""
    troubles: Sequence[str] = ()
    """The sentences in which the instance says what is wrong."""
    host: str = ""
    """The host whose worker it is; empty if it is not one of several, or is silent."""
    zone: str = ""
    """The zone that the instance is in; empty if it is not known."""


class ServerRow(Struct, frozen=True):
    """A tier, or one of its servers or cells."""

    name: str
    kind: str
    """`tier`, `memcached` or `cell`."""
    asked: float | None = None
    hit_ratio: float | None = None
    errors: float | None = None
    p50: float | None = None
    p99: float | None = None
    bytes: float | None = None
    limit: float | None = None
    evictions: float | None = None
    open_at: Sequence[str] = ()
    """Instances whose breaker for this server is open."""
    failing_at: Sequence[str] = ()
    """Instances at which the server failed."""
    clock_offset: float | None = None
    servers: Sequence[Sequence[str]] = ()
    """The instances by the server that each reaches as this cell, if they reach several."""
    master: str = ""
    """`host:port` of a cell's server, if sentinels name it; several if instances differ."""
    twin_at: Sequence[str] = ()
    """Instances that refuse the cell because it is the same server as another one."""
    zone: str = ""
    """The zone of a memcached server; empty if it is not known."""


class FeedRow(Struct, frozen=True):
    """The feed of one region's fences."""

    region: str
    bound: float | None
    """The largest staleness bound among the instances."""
    worst_at: str
    states: Mapping[str, str]
    """The state of the feed by instance."""
    clock_offset: float | None = None
    """The offset of the queue's clock from the instance that it differs from most."""
    master: str = ""
    """`host:port` of the queue's server, if sentinels name it; several if instances differ."""


class LagRow(Struct, frozen=True):
    """How long changes took to reach one stage of their way."""

    stage: str
    p50: float | None
    p99: float | None


class NamespaceRow(Struct, frozen=True):
    """One namespace."""

    name: str
    reads: float
    hit_ratio: float | None
    stale: float | None
    """The share of reads that were answered stale."""
    errors: float
    l1_bytes: float | None
    max_lag: float | None
    l1_guaranteed: float | None = None
    """The bytes in all L1s that other namespaces leave to this one."""


class OriginRow(Struct, frozen=True):
    """The origin of one namespace."""

    namespace: str
    running: float
    ceiling: float
    waiting: float
    worst_at: str
    """The instance with these numbers of running and waiting loads."""
    loads: float | None
    refused: float | None
    p50: float | None
    p99: float | None


class HotRow(Struct, frozen=True):
    """One of the hottest keys."""

    namespace: str
    name: str
    """The key, or its digest."""
    share: float
    reads: float


class Queue(Struct, frozen=True):
    """The changes that are on their way, as the instances know them."""

    backlog: float | None
    parked: float | None
    buried: float | None
    """New dead letters per second. Dead letters are kept, so their number says nothing about
    now."""
    overflowed: float | None = None
    """Cells for which more is parked than is kept."""


class ChangeRow(Struct, frozen=True):
    """One of the last changes, from the audit stream of a region's queue. It never has keys."""

    at: float
    """Seconds since the epoch."""
    region: str
    who: str
    instance: str
    namespace: str
    targets: str
    how: str
    """`soft`, `over 5m`, or empty."""
