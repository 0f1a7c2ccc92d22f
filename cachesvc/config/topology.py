"""The shared document: regions, cells, pools, pins and namespaces. One version of it is in force in an instance.

Frozen structs that msgspec fills from YAML (`config.py` reads and checks them); each field says its meaning, unit and why
this default.
"""

from typing import Literal

from msgspec import Struct, field

from cachesvc.model.units import Duration, Size


class Origin(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a read-through namespace loads from."""

    url: str
    """`http(s)://…` with `{key}` once; the key is percent-encoded into it."""
    concurrency: int = 64
    """Loads of this namespace that one instance runs at once. More wait for their turn until the soft deadline."""
    soft_deadline: Duration = Duration.parse("500ms")
    """After this a stale value is answered, if there is one, and the load goes on in the background."""
    hard_deadline: Duration = Duration.parse("3s")
    """After this the load is given up; nobody waits longer."""
    max_body: Size = Size.parse("1MiB")
    """A larger body is an origin failure. memcached takes 1 MiB at most; larger values live in L3 and L1 only."""
    lag: Duration = Duration(0)
    """How far the origin may read behind its commits (a replica): subtracted from `as_of`."""
    headers: dict[str, str] = field(default_factory=dict)
    """Sent with every load, such as an authorization the origin asks for. Never logged."""


class Source(Struct, frozen=True, forbid_unknown_fields=True):
    """How rows of a table become keys and tags: change data capture in the format of Debezium.

    Templates name columns in `{column}` (`{column?}` if it may be null); braces around text with a column stay, they are the
    partition: `{ws-{workspace_id}}:block:{id}` gives `{ws-7}:block:42`. The grammar: `config_sources.py`.
    """

    source: str
    """`schema.table` as in the event's `source` (`public.blocks`), or `database.table` where there are no schemas."""
    key: str = ""
    """Template of the key that a row concerns, if it is one."""
    keys: tuple[str, ...] = ()
    """Templates, if they are several."""
    tags: tuple[str, ...] = ()
    """Templates of the tags."""
    soft: bool = False
    """Copies become stale instead of gone."""


class Namespace(Struct, frozen=True, forbid_unknown_fields=True):
    """One team's contract with the cache."""

    owner: str
    """The team to call. Shown in topology and problems."""
    ttl: Duration = Duration.parse("5m")
    """Freshness when neither the caller nor the origin says one."""
    stale_while_revalidate: Duration = Duration.parse("1m")
    """After the TTL: answered stale while one holder refreshes. RFC 5861."""
    stale_if_error: Duration = Duration.parse("10m")
    """After the TTL: answered stale when the origin fails. RFC 5861."""
    negative_ttl: Duration = Duration.parse("10s")
    """How long "known absent" is believed. Short: a create must announce its key to end it sooner."""
    jitter: float = 0.1
    """TTLs are shortened by a random share of up to this much, so that entries filled together do not expire together."""
    early_refresh: float = 1.0
    """XFetch's beta (Vattani et al., VLDB 2015): 0 turns early refresh off, larger refreshes earlier."""
    max_value: Size = Size.parse("1MiB")
    """A larger value is refused with 413."""
    max_lag: Duration = Duration.parse("2s")
    """The staleness bound above which copies are answered only if younger than it (COHERENCE.md, watermark)."""
    feed_loss: Literal["bound", "serve"] = "bound"
    """`bound`: obey `max_lag`. `serve`: answer anyway and say so."""
    lease: Duration = Duration.parse("5s")
    """Life of a lease; a live holder renews it up to the hard deadline. Bounds what a dead holder costs."""
    lease_wait: Duration = Duration.parse("3s")
    """How long a reader waits for a load that another instance holds the lease of, when nothing stale can be answered. Then it
    loads by itself: such a load is answered and not kept."""
    tags_max: int = 16
    """Tags of one entry."""
    origin: Origin | None = None
    """Read-through if given; else look-aside."""
    sources: tuple[Source, ...] = ()
    """Tables whose row changes invalidate here."""


class Cell(Struct, frozen=True, forbid_unknown_fields=True):
    """A bounded slice of tenants with its own Redis."""

    region: str
    url: str
    """`redis://host:port/db` or `unix:///path?db=0`."""
    weight: float = 1.0
    """Share of partitions in the rendezvous hash."""
    active: bool = True
    """Takes partitions that are not pinned."""


STAND_IN = "stand-in"
"""The address of a memcached that is stood in for, inside the service, in the embedded set-up."""


class MemcachedServer(Struct, frozen=True, forbid_unknown_fields=True):
    """One server of a region's pool. Its name, not its address, stands on the ring: it may move without losing its keys."""

    address: str
    """`host:port`, `unix:/path`, or `stand-in` for the labelled in-process one of the embedded set-up."""
    weight: float = 1.0


class Region(Struct, frozen=True, forbid_unknown_fields=True):
    """A place: service instances, one memcached pool, one queue."""

    queue: str
    """URL of the Redis that holds the region's `changes` and `fences` streams."""
    pool: dict[str, MemcachedServer] = field(default_factory=dict)
    instances: dict[str, str] = field(default_factory=dict)
    """Name → base URL, for clients to choose from."""


class Former(Struct, frozen=True, forbid_unknown_fields=True):
    """Where partitions were before this version. Keep it in the document for `l3.retention` after the last instance has the new
    version: until then invalidations are applied in the new home and in the former one."""

    cells: dict[str, float]
    """The cells that were active, with their weights."""
    pins: dict[str, str] = field(default_factory=dict)


class Topology(Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    """Grows with every change; fences carry it."""
    regions: dict[str, Region]
    cells: dict[str, Cell]
    namespaces: dict[str, Namespace]
    pins: dict[str, str] = field(default_factory=dict)
    """Partition → cell, overriding the hash."""
    former: Former | None = None
    """Given while partitions move."""
