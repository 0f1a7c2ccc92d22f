"""The shared document: regions, cells, pools, pins and namespaces.

One version of it is in force in an instance. `service.py` reads it into these frozen structs and
`topology_rules.py` checks it. The docstrings of the fields are the text of docs/reference.md.
"""

from datetime import datetime
from typing import Literal

from msgspec import Struct, field

from cachesvc.config.callers import Callers
from cachesvc.config.document import Secret
from cachesvc.config.limits import OriginBudget, Rates
from cachesvc.model.units import Duration, Part, Size


class Origin(Struct, frozen=True, forbid_unknown_fields=True):
    """The HTTP service that a read-through namespace loads from."""

    url: str
    """The URL of a value: `http://…` or `https://…` with `{key}` once, in its path or query.
    The key is percent-encoded into its place. In a path, a key is refused with 400 `bad-key` if a
    proxy could take it for another path: with a segment `.` or `..`, encoded or not, or an empty one."""
    concurrency: int = 64
    """The most loads of this namespace that one instance runs at once, 1 to 100000. Further
    loads wait for their turn, for `soft_deadline` at most, and then fail with 503 `origin-busy`."""
    soft_deadline: Duration = Duration.parse("500ms")
    """How long readers wait for a load before they are answered with a stale copy, if there is
    one; the load goes on in the background. It must be longer than 0, and not longer than the
    namespace's `lease`."""
    hard_deadline: Duration = Duration.parse("3s")
    """How long a load may take, with its wait for a turn. Then it is given up, and its readers
    are answered 504 `origin-timeout`. It must not be shorter than `soft_deadline`."""
    max_body: Size = Size.parse("1MiB")
    """The largest answer of the origin. A larger one fails the load. It must not be smaller
    than the namespace's `max_value`. memcached takes entries of up to 1MiB; larger ones are kept in
    L1 and L3 only."""
    lag: Duration = Duration(0)
    """How far the origin's reads may be behind its commits, for example because it reads from
    a replica. It is subtracted from the `as_of` of every load, so that a value read before a change
    does not count as newer than the change."""
    headers: dict[str, Secret] = field(default_factory=dict)
    """Header lines, name to value, that are sent with every load, such as an `Authorization`.
    Their values are neither logged nor shown by `GET /v1/topology`."""


class Source(Struct, frozen=True, forbid_unknown_fields=True):
    """How rows of a table become keys and tags: change data capture in the format of Debezium.

    A template names columns as `{column}`, or `{column?}` if the column may be null. Braces around
    text with a column stay, because they enclose the partition: `{ws-{workspace_id}}:block:{id}`
    gives `{ws-7}:block:42`. The grammar stands in `config/row_templates.py`.
    """

    source: str
    """The table, as an event's `source` names it: `schema.table` (such as `public.blocks`), or
    `database.table` where there are no schemas."""
    key: str = ""
    """The template of the key that a row concerns, if it is one key. Not together with `keys`."""
    keys: tuple[str, ...] = ()
    """The templates of the keys that a row concerns, if they are several. A source needs one
    key or tag at least."""
    tags: tuple[str, ...] = ()
    """The templates of the tags that a row concerns. If a tag has a partition and the source
    has keys, it must be the partition of one of them."""
    soft: bool = False
    """True: copies become stale instead of gone."""


class L1Room(Struct, frozen=True, forbid_unknown_fields=True):
    """The room of a namespace in the L1 of each instance.

    Each limit is a size, or a percentage of the instance's `l1.budget`. As long as no namespace has
    other limits than the defaults, all of them share L1 as one: whatever was used least recently is
    evicted. Otherwise each has a room. When L1 is full, the namespace gives way that is furthest
    above its guarantee, measured by its fair share of what nobody is guaranteed (docs/operate.md).
    """

    guaranteed: Part = Part.parse("0B")
    """The bytes that no other namespace evicts. As long as this namespace does not use them,
    others may. All guarantees together must not be above `l1.budget`."""
    at_most: Part = Part.parse("100%")
    """The most bytes that this namespace has in L1. Beyond them, its own entries are evicted.
    A larger entry is not kept. It must be above 0, and not below `guaranteed`."""


class Namespace(Struct, frozen=True, forbid_unknown_fields=True):
    """One team's contract with the cache: read-through with an `origin`, else look-aside."""

    owner: str
    """The team to call about this namespace. It is shown by `GET /v1/topology`."""
    ttl: Duration = Duration.parse("5m")
    """How long a value is fresh if neither its writer nor its origin says so. It must be
    longer than 0; with the longer of the two stale windows it must not be above `l3.retention` or
    30d."""
    stale_while_revalidate: Duration = Duration.parse("1m")
    """How long after its freshness a copy may be answered while one reader loads it anew (RFC
    5861), if neither writer nor origin says so. 0: not at all."""
    stale_if_error: Duration = Duration.parse("10m")
    """How long after its freshness a copy may be answered because the origin fails or is slow
    (RFC 5861), if neither writer nor origin says so. 0: not at all."""
    negative_ttl: Duration = Duration.parse("10s")
    """How long "known absent" is believed, if neither writer nor origin says so; 30d at most.
    The default is short because whoever creates the value has to announce its key to end it sooner."""
    jitter: float = 0.1
    """The greatest share by which a TTL is shortened at random, 0 or more and below 1. So
    entries that were filled together do not expire together."""
    early_refresh: float = 1.0
    """The beta of XFetch (Vattani et al., VLDB 2015), 0 or more: a read shortly before the end
    of freshness may start a load in the background, or tells a caller that loads by itself to do so
    (`early`). Larger values load earlier; 0 turns it off."""
    max_value: Size = Size.parse("1MiB")
    """The largest value that may be written. A larger one is refused with 413
    `value-too-large`. It must be larger than 0; `server.max_body` of the service document bounds it
    too."""
    max_lag: Duration = Duration.parse("2s")
    """How stale an instance may be and still answer any copy it holds. While its staleness
    bound is above this, it answers only copies that were loaded within the last `max_lag`. It must be
    above `coherence.heartbeat` plus `coherence.max_clock_skew`."""
    feed_loss: Literal["bound", "serve"] = "bound"
    """The rule while the staleness bound is above `max_lag`: with `bound` older copies are
    refused, as `max_lag` says; with `serve` they are answered all the same."""
    lease: Duration = Duration.parse("5s")
    """How long a lease lives; at least 100ms. For loads from an origin the instance renews it,
    up to `hard_deadline`. It bounds how long a holder that died keeps others waiting."""
    lease_wait: Duration = Duration.parse("3s")
    """How long a read waits for a load whose lease another instance holds, if there is no
    stale copy to answer. Then the instance loads by itself; such a load is answered and not kept."""
    tags_max: int = 16
    """The most tags of one entry, 0 to 128. A write with more is refused with 400; an origin's
    answer with more is answered and not kept."""
    origin: Origin | None = None
    """The origin of a read-through namespace. Left out: the namespace is look-aside, its
    callers load and write by themselves."""
    origin_budget: OriginBudget | None = None
    """The most loads of this namespace in a region, over all its instances. Left out: only
    `origin.concurrency` limits loads, at each instance."""
    rates: Rates | None = None
    """The rates of this namespace in a region, over all its instances and callers. Left out:
    not limited."""
    l1: L1Room = field(default_factory=L1Room)
    """The room of this namespace in L1."""
    sources: tuple[Source, ...] = ()
    """The tables whose row changes invalidate in this namespace."""


class Cell(Struct, frozen=True, forbid_unknown_fields=True):
    """A bounded slice of tenants with a Redis of its own."""

    region: str
    """The region that the cell is in: one of `regions`."""
    url: str
    """The address of its Redis: `redis://host:port/db`, `rediss://host:port/db` (TLS) or
    `unix:///path?db=0`, with a user and password before the host if its own are not those of `redis`
    in the service document. Behind Redis Sentinel it is `redis+sentinel://host:port,host,host/name/db`
    (`rediss+…` with TLS): the sentinels' hosts (port 26379 if none is given) and the master's name;
    `?sentinel_username=…&sentinel_password=…` stand for `sentinel` in the service document. No other
    cell or queue may have the same address."""
    weight: float = 1.0
    """The cell's share of the partitions, relative to the weights of the other active cells;
    above 0, 1000000 at most."""
    active: bool = True
    """True: the cell takes partitions that are not pinned. False: only pinned ones."""


STAND_IN = "stand-in"
"""The address of the in-process stand-in for a memcached server (embedded set-up)."""


class MemcachedServer(Struct, frozen=True, forbid_unknown_fields=True):
    """One server of a region's pool. Its name, not its address, places it on the ring of keys.

    So a server can be given another address and keep its keys.
    """

    address: str
    """`host:port`, `tls:host:port` (memcached's `-Z`), or `unix:/path`. `stand-in`: a stand-in
    inside the service, for the embedded set-up. No other server of the pool may have the same
    address."""
    weight: float = 1.0
    """The server's share of the keys, relative to the other servers of its ring; above 0,
    1000000 at most."""
    zone: str = ""
    """The zone that the server is in; its name is formed like a region's. Left out: not known."""


class Region(Struct, frozen=True, forbid_unknown_fields=True):
    """A place with service instances, one pool of memcached servers and one queue."""

    queue: str
    """The URL of the Redis that holds the region's streams `changes` and `fences`; the forms
    are those of a cell's `url`. No cell or other queue may have the same one."""
    pool: dict[str, MemcachedServer] = field(default_factory=dict)
    """The region's memcached servers by name. Empty: there is no L2."""
    gutter: dict[str, MemcachedServer] = field(default_factory=dict)
    """Memcached servers, by name, that take the keys of servers of `pool` which an instance
    leaves alone because they do not answer. They keep copies for `l2.gutter_ttl`, so they may be
    small. No name or address may be one of `pool`. Empty: such keys are misses in L2, and go to L3."""
    instances: dict[str, str] = field(default_factory=dict)
    """The region's instances, name to base URL (`http(s)://host:port`). Clients choose among
    them, and instances ask each other at them."""
    operations: dict[str, str] = field(default_factory=dict)
    """The base URLs of the operations ports of those instances that have one
    (`server.operations`), by the instance's name. Commands and other instances ask there for what the
    data port does not serve; an instance without one is asked at its own URL."""
    relays: dict[str, str] = field(default_factory=dict)
    """Instances of the region that hand the fences of all regions on to its others.

    So each queue is read by few. To each name belongs the relay that it reads from itself, or an empty
    text: it reads from the queues. So relays may stand in a tree; instances that are not named
    read from those at which no other relay reads. An instance whose relays do not answer reads from the
    queues. Empty: all do. Relays are asked at their operations ports, as explanations are; the
    instances' token (`server.peer_token_file`) then needs `observe:*`."""
    partitions: tuple[str, ...] = ()
    """Prefixes of the names of partitions that are homed in this region: `eu.` for `{eu.ws-7}`
    and for `eu.ws-7`. They are placed among the active cells of this region only, unless a pin says
    otherwise. Who makes a partition chooses its region by its name, so nothing that exists moves if
    no partition has the prefix yet; else give `former`, as for any move. While a region has
    prefixes, its cells keep their `region`."""
    rings: Literal["region", "zone"] = "region"
    """`region`: all servers of `pool` are one ring, and each has its share of the keys.
    `zone`: the servers of each zone are a ring of their own, in which the instances of that zone keep
    copies of all keys that they are asked for; then each server of `pool` needs a `zone`. An instance
    uses the servers of `gutter` in its zone, or all of them if none is in it."""
    zones: dict[str, str] = field(default_factory=dict)
    """The zones of the instances, by the instance's name. Clients that know their own zone
    prefer the instances in it."""
    queue_on_disk: bool = True
    """False if the queue keeps nothing on disk, and that is meant: a restart then fences every
    namespace. Otherwise a queue without persistence is named as wrong."""

    def operations_of(self, instance: str) -> str:
        """Returns the base URL at which an instance answers operators."""
        return self.operations.get(instance) or self.instances[instance]

    def ring_of(self, zone: str) -> dict[str, MemcachedServer]:
        """Returns the servers that are the ring of an instance in `zone`, by name.

        With one ring per zone, an instance whose zone has no server has all servers for its ring.
        """
        return self._near(self.pool, zone)

    def gutter_of(self, zone: str) -> dict[str, MemcachedServer]:
        """Returns the servers of the gutter of an instance in `zone`, by name."""
        return self._near(self.gutter, zone)

    def _near(self, servers: dict[str, MemcachedServer], zone: str) -> dict[str, MemcachedServer]:
        if self.rings == "region":
            return servers
        return {name: one for name, one in servers.items() if zone and one.zone == zone} or servers


class Former(Struct, frozen=True, forbid_unknown_fields=True):
    """Where partitions were before this version of the topology.

    It stays in the document for `l3.retention` after the last instance has the new version: until
    then an invalidation is applied in the new home cell and in the former one.
    """

    cells: dict[str, float]
    """The cells that were active, name to weight. All of them must still be in `cells`."""
    pins: dict[str, str] = field(default_factory=dict)
    """The pins that were in force: partition to cell."""
    partitions: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The prefixes that were in force: region to its `partitions`."""
    since: datetime | None = None
    """When the move began: `2026-11-30T10:00:00Z`. `l3.retention` after that, reads do not
    look for copies in the former homes any more. Left out: each instance counts from the moment at
    which it takes the document, or starts with it."""


class Topology(Struct, frozen=True, forbid_unknown_fields=True):
    """The shared document. All instances of a deployment should have the same version of it."""

    version: int
    """The version of the document, 1 or more. It must grow with every change; fences carry it."""
    regions: dict[str, Region]
    """The regions by name (1 to 64 of `a-z`, `0-9`, `-`, beginning with a letter); at least
    one."""
    cells: dict[str, Cell]
    """The cells by name, which is formed like a region's; at least one active cell."""
    namespaces: dict[str, Namespace]
    """The namespaces by name (1 to 64 of `a-z`, `0-9`, `_` and `-`, beginning with a letter;
    not `fences`, `invalidations` or `topology`). Requests for others are refused with 404
    `no-such-namespace`."""
    pins: dict[str, str] = field(default_factory=dict)
    """Partitions that are placed by hand, partition (without its braces) to cell. All others
    are placed by rendezvous hash over the active cells."""
    former: Former | None = None
    """Where partitions were before; given while partitions move to other cells."""
    callers: Callers | None = None
    """The callers that instances answer, and what each may do.

    Left out: everybody may do everything, and instances listen on a loopback address only. The section
    is read again while instances run."""
