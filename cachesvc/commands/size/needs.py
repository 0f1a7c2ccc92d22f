"""The needs of each server under a load: memory, connections and network.

Memory is computed from the formats that the tiers write and the way in which each server allocates.
Network is that of calls one by one, with nothing beside the values for TLS: batches need less.
`tests/integration/test_size.py` holds these figures to real servers.
"""

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from cachesvc.commands.size.allocation import memcached_item, redis_keys, redis_members
from cachesvc.commands.size.load import Load, NamespaceLoad
from cachesvc.config.service import Service
from cachesvc.config.topology import Region, Topology
from cachesvc.config.zones import zone_parts
from cachesvc.model.entry import Entry, Key
from cachesvc.tiers.envelope import pack
from cachesvc.tiers.l2.memcached import wire_name
from cachesvc.tiers.l3.record import to_record

CELL_AT_REST, QUEUE_AT_REST = 1_300_000.0, 1_800_000.0
"""Bytes of a Redis with the scripts of a cell or a queue, and nothing else."""
REDIS_CONNECTION = 21_000
"""Bytes of a connection to Redis: buffers of the client and of its replies."""
PROCESS = 77_000_000.0
L1_OVERHEAD = 1.1
L1_ENTRY = 475
TABLES = 130_000_000.0
SKETCH_SLOT = 32
CONNECTION = 5_000
"""docs/operate.md, "What the process keeps"."""
CELL_CONNECTIONS, QUEUE_CONNECTIONS, MEMCACHED_CONNECTIONS = 3, 4, 1
"""Connections of one instance to one server.

A cell under load gets as many more as it has batches at a time."""
RECEIPT, RECEIPT_SECONDS = 136, 900
AUDIT, AUDIT_ITEMS = 470, 100_000
FENCE_ITEM, HEARTBEAT_ITEM = 68, 49
"""Bytes in the stream `fences` of a queue."""
NOW, MINUTE = 1 << 50, 60_000_000
"""A time and a window, µs: as many bytes as the real ones."""
TOKEN = 36
"""Bytes of a lease's token in a record."""


class Network(Struct, frozen=True):
    """Bytes per second, as the server sees them."""

    received: float = 0.0
    sent: float = 0.0

    def __add__(self, other: "Network") -> "Network":
        return Network(self.received + other.received, self.sent + other.sent)

    def __mul__(self, factor: float) -> "Network":
        return Network(self.received * factor, self.sent * factor)


class Need(Struct, frozen=True):
    """The needs of one server."""

    kind: str
    """`cell`, `queue`, `memcached` or `instance`."""
    name: str
    memory: Mapping[str, float]
    """Bytes, by what they are for."""
    connections: int
    network: Network

    @property
    def bytes(self) -> float:
        return sum(self.memory.values())


IDLE_CONNECTION = 5_900
"""Bytes of a caller's connection that is idle (`python -m loadtests.connections`)."""
AT_REST_OF_CELL = Network(1_000, 1_000)
AT_REST_OF_QUEUE = Network(1_280, 1_950)
AT_REST_OF_MEMCACHED = Network(2, 600)
"""Per second, for each instance that is connected."""


def needs_of(topology: Topology, service: Service, load: Load) -> Iterator[Need]:
    """Yields the needs of every server, cells first."""
    instances = {name: load.instances or len(region.instances) for name, region in topology.regions.items()}
    followers = sum(instances.values())
    copies = [_Copy(name, each) for name, each in load.namespaces.items()]
    active = {name: cell.weight for name, cell in topology.cells.items() if cell.active}
    for name, weight in active.items():
        share = weight / sum(active.values())
        yield _cell(name, share, len(instances), followers, copies, service)
    for name, region in topology.regions.items():
        yield _queue(name, followers, copies, service)
        yield from _pool(region, instances[name], copies)
    yield _instance(service)


class _Copy:
    """A copy of a namespace, as each tier writes it, and how often it is touched."""

    def __init__(self, namespace: str, load: NamespaceLoad) -> None:
        key = Key.of(namespace, "k" * load.key_bytes)
        tags = tuple(f"{number:020d}" for number in range(load.tags))
        entry = Entry(bytes(load.value), NOW, NOW, MINUTE, MINUTE, 9, "application/json", tags)
        self.load = load
        self.id = len(key.id)
        self.name = len(wire_name(key.id))
        self.envelope = len(pack(key, entry))
        self.record = len(to_record(key, entry, b"t" * TOKEN))


def _cell(
    name: str, share: float, regions: int, instances: int, copies: Sequence[_Copy], service: Service
) -> Need:
    kept_seconds = service.l3.retention.seconds + 60
    values, members, traffic = 0.0, 0.0, AT_REST_OF_CELL * instances
    for copy in copies:
        load = copy.load
        keys = load.keys * share
        values += redis_keys(keys, len("v:") + copy.id, copy.record)
        changed = (load.puts + load.invalidations) * regions * share
        members += redis_members(min(keys, changed * kept_seconds), copy.id)
        members += redis_members(load.invalidated_tags * regions * kept_seconds, copy.id)
        looks = load.reads * (1 - load.l1_hits - load.l2_hits) * regions * share
        loads = load.loads * regions * share
        traffic += Network(240 + copy.id, 64) * looks
        traffic += Network(0, copy.record) * (looks - loads)
        traffic += Network(240 + 2 * copy.id + copy.record, 40) * loads
        traffic += Network(400 + copy.record, 40) * (load.puts * regions * share)
        traffic += Network(220 + copy.id, 40) * (load.invalidations * regions * share)
        traffic += Network(220 + copy.id, 40) * (load.invalidated_tags * regions)
    connections = CELL_CONNECTIONS * instances
    memory = {"copies": values, "fences": members, "connections": float(REDIS_CONNECTION * connections)}
    return Need("cell", name, memory | {"at rest": CELL_AT_REST}, connections, traffic)


def _queue(name: str, followers: int, copies: Sequence[_Copy], service: Service) -> Need:
    called = sum(copy.load.invalidations + copy.load.invalidated_tags for copy in copies)
    changes = called + sum(copy.load.puts for copy in copies)
    kept_seconds = service.coherence.fence_retention.seconds
    connections = QUEUE_CONNECTIONS * followers
    memory = {
        "fences": changes * kept_seconds * FENCE_ITEM
        + kept_seconds / service.coherence.heartbeat.seconds * HEARTBEAT_ITEM,
        "receipts": changes * RECEIPT_SECONDS * RECEIPT,
        "audit": float(AUDIT * AUDIT_ITEMS if called else 0),
        "connections": float(REDIS_CONNECTION * connections),
        "at rest": QUEUE_AT_REST,
    }
    traffic = AT_REST_OF_QUEUE * followers + Network(750, 130 + 245 * followers) * changes
    return Need("queue", name, memory, connections, traffic)


def _pool(region: Region, instances: int, copies: Sequence[_Copy]) -> Iterator[Need]:
    """Yields the needs of a region's memcached servers.

    With one ring for each zone, every ring has copies of all keys, and takes the part of the calls that
    the instances have which use it.
    """
    parts = zone_parts(region)
    for name, server in region.pool.items():
        kept, part, connected = 0.0, 0.0, 0.0
        for zone, of_zone in parts.items():
            ring = region.ring_of(zone)
            if name in ring:
                share = server.weight / sum(one.weight for one in ring.values())
                # The keys that a server has on the ring of all are among those that it has on a smaller one.
                kept, part, connected = max(kept, share), part + of_zone * share, connected + of_zone
        yield _memcached(name, kept, part, round(instances * connected), copies)


def _memcached(name: str, kept: float, part: float, instances: int, copies: Sequence[_Copy]) -> Need:
    """The needs of a server that has the share `kept` of the keys, and `part` of the calls."""
    items, traffic = 0.0, AT_REST_OF_MEMCACHED * instances
    for copy in copies:
        load = copy.load
        items += load.keys * kept * memcached_item(copy.name, copy.envelope)
        looks = load.reads * (1 - load.l1_hits) * part
        hits = load.reads * load.l2_hits * part
        fills = looks - hits + load.puts * part
        traffic += Network(6 + copy.name, 8) * looks
        traffic += Network(0, 6 + copy.name + copy.envelope) * hits
        traffic += Network(26 + copy.name + copy.envelope, 4) * fills
    return Need("memcached", name, {"copies": items}, MEMCACHED_CONNECTIONS * instances, traffic)


def _instance(service: Service) -> Need:
    """The needs of one instance, at most, whatever callers ask."""
    memory = {
        "process": PROCESS,
        "L1": L1_OVERHEAD * service.l1.budget,
        "connections": float(IDLE_CONNECTION * service.server.max_connections),
        "answers on their way": float(service.server.max_bytes_in_flight),
        "sketch of fences": float(SKETCH_SLOT * service.coherence.sketch_slots),
        "tables": TABLES,
    }
    return Need("instance", "each", memory, service.server.max_connections, Network())
