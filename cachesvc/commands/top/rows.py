"""What is seen of a deployment, as plain rows: `picture.py` makes them, `verdict.py` judges them, `view.py` draws them.

A number that nobody knows is None: an instance of another release may lack a metric, and without traffic there is no ratio.
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct


class InstanceRow(Struct, frozen=True):
    name: str
    silent: str = ""
    """Why it does not answer; empty: it does."""
    ready: bool = False
    requests: float | None = None
    """A second, as all rates here."""
    p50: float | None = None
    p99: float | None = None
    """Seconds, as all times here."""
    hit_ratio: float | None = None
    l1_bytes: float | None = None
    l1_budget: float | None = None
    l1_eviction_age: float | None = None
    in_progress: float | None = None
    shed: float | None = None
    topology_version: float | None = None


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
    """Instances whose breaker leaves it alone."""
    failing_at: Sequence[str] = ()
    """Instances that it failed."""
    clock_offset: float | None = None


class FeedRow(Struct, frozen=True):
    region: str
    bound: float | None
    """The worst of all instances."""
    worst_at: str
    states: Mapping[str, str]
    """By instance."""


class LagRow(Struct, frozen=True):
    """From a change to one stage of its way."""

    stage: str
    p50: float | None
    p99: float | None


class NamespaceRow(Struct, frozen=True):
    name: str
    reads: float
    hit_ratio: float | None
    stale: float | None
    """Share of the reads."""
    errors: float
    l1_bytes: float | None
    max_lag: float | None


class OriginRow(Struct, frozen=True):
    namespace: str
    running: float
    ceiling: float
    waiting: float
    worst_at: str
    """The instance that these are of."""
    loads: float | None
    refused: float | None
    p50: float | None
    p99: float | None


class HotRow(Struct, frozen=True):
    namespace: str
    name: str
    """The key, or its digest."""
    share: float
    reads: float


class Queue(Struct, frozen=True):
    """Changes that are on their way, as the instances say."""

    backlog: float | None
    parked: float | None
    buried: float | None
    """A second: dead letters are kept, so their number tells nothing of now."""


class ChangeRow(Struct, frozen=True):
    """One of the last invalidations, from the audit of a region's queue. Never keys."""

    at: float
    """Seconds since the epoch."""
    region: str
    who: str
    instance: str
    namespace: str
    targets: str
    how: str
    """`soft`, `over 5m`, or nothing."""
