"""Everything far away that an instance talks to: its region's memcached pool, every cell, every queue, the origins.

Part of the composition root: built without I/O, started and stopped by `app.py`.
"""

from collections.abc import Sequence
from typing import Protocol

from cachesvc.breaker import Breaker
from cachesvc.cells.redis import RedisCell
from cachesvc.clock import Clock
from cachesvc.config import Service
from cachesvc.exchange import Server
from cachesvc.hashing.ring import Ring
from cachesvc.interfaces import Loader, Pool
from cachesvc.model import Key
from cachesvc.origins.http import HttpLoader
from cachesvc.origins.limited import LimitedLoader
from cachesvc.placement import Placement
from cachesvc.queues.events import EventReader
from cachesvc.queues.redis_changes import RedisChanges
from cachesvc.queues.redis_fences import RedisFenceStream
from cachesvc.routes.batched import Batched
from cachesvc.routes.deadline import Deadline
from cachesvc.routes.guarded import Guarded
from cachesvc.routes.sharded import Sharded
from cachesvc.telemetry.metrics import Metrics
from cachesvc.tiers.memcached import MemcachedTier
from cachesvc.tiers.memory import MemoryTier
from cachesvc.tiers.null import NullTier
from cachesvc.topology import STAND_IN, MemcachedServer, Topology

STAND_IN_BYTES = 64 << 20


class Part(Protocol):
    """What is started and stopped."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class Backends:
    def __init__(self, service: Service, topology: Topology, placement: Placement, clock: Clock) -> None:
        self._service = service
        self._clock = clock
        self._leaves: dict[str, MemcachedTier | MemoryTier] = {}
        self._batched: dict[str, Batched] = {}
        here = topology.regions[service.region]
        servers = {name: self._server(name, server) for name, server in here.pool.items()}
        self._ring = Ring({name: server.weight for name, server in here.pool.items()}) if servers else None
        self.l2: Pool = Sharded(self._ring, servers) if self._ring else NullTier()
        skew = service.coherence.max_clock_skew
        under = (placement.id, topology.version)
        self.cells = {
            name: RedisCell(name, cell.url, service.l3, skew, clock, placement=under) for name, cell in topology.cells.items()
        }
        retention = service.coherence.fence_retention
        me = (service.region, service.instance)
        self.streams = {
            name: RedisFenceStream(region.queue, name, retention=retention, skew=skew, reader=me)
            for name, region in topology.regions.items()
        }
        read_event = EventReader(topology.namespaces, service.server.max_batch_keys, retention)
        self.changes = RedisChanges(here.queue, service.region, decode=read_event)
        self.loaders: dict[str, Loader] = {
            name: LimitedLoader(
                HttpLoader(name, namespace.origin, clock=clock, tags_max=namespace.tags_max),
                limit=namespace.origin.concurrency,
                wait_seconds=namespace.origin.soft_deadline.seconds,
            )
            for name, namespace in topology.namespaces.items()
            if namespace.origin is not None
        }

    def _server(self, name: str, server: MemcachedServer) -> Pool:
        """One memcached server: its batches, its breaker, its deadline, its connection."""
        if server.address == STAND_IN:
            self._leaves[name] = stand_in = MemoryTier(self._clock, STAND_IN_BYTES)
            return stand_in
        l2 = self._service.l2
        self._leaves[name] = leaf = MemcachedTier(name, server.address, l2, self._clock)
        guarded = Guarded(Deadline(leaf, l2.timeout.seconds, name=name), Breaker(), name=name)
        self._batched[name] = Batched(guarded, l2.max_batch, name=name, server=Server.memcached(name, server.address))
        return self._batched[name]

    def parts(self) -> Sequence[Part]:
        """In the order of their start."""
        return [self.l2, *self.cells.values(), *self.loaders.values(), self.changes, *self.streams.values()]

    def server_of(self, key: Key) -> str:
        """The memcached server that has the key's copies."""
        return self._ring.server(key.digest) if self._ring else "none: the region has no pool"

    def watch(self, metrics: Metrics) -> None:
        """Have what is counted here read at each scrape."""
        metrics.watch("cells", lambda: {(name,): cell.statistics() for name, cell in self.cells.items()})
        metrics.watch("servers", lambda: {(name,): leaf.statistics() for name, leaf in self._leaves.items()})
        metrics.watch(
            "batchers",
            lambda: {
                (name, operation): statistics
                for name, batched in self._batched.items()
                for operation, statistics in batched.statistics().items()
            },
        )
