"""The servers that an instance talks to: memcached pool, cells, queues, origins, peers.

Part of the composition root: built without I/O, started and stopped by `instance.py`.
"""

import logging
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from cachesvc.app.cells import Cells
from cachesvc.app.limits import instances_of
from cachesvc.app.paths import Remote
from cachesvc.app.relaying import Relaying
from cachesvc.app.tasks import Tasks
from cachesvc.changes.events.event_parser import EventParser
from cachesvc.changes.redis.changes import RedisChanges
from cachesvc.changes.redis.fences import RedisFenceStream
from cachesvc.changes.redis.shares import RedisShares
from cachesvc.config.addresses import is_watched
from cachesvc.config.seal_keys import seal_keys
from cachesvc.config.service import Service
from cachesvc.config.topology import STAND_IN, MemcachedServer, Topology
from cachesvc.config.workers import Worker
from cachesvc.config.zones import zone_of
from cachesvc.explain.answer import Memcached
from cachesvc.explain.peers import HttpPeers
from cachesvc.model.clock import Clock
from cachesvc.model.entry import Key
from cachesvc.telemetry.findings import Findings
from cachesvc.telemetry.loops import Loop
from cachesvc.telemetry.metrics.histogram import Histogram
from cachesvc.telemetry.metrics.metrics import Metrics
from cachesvc.telemetry.metrics.polled import Polled
from cachesvc.telemetry.traces.exchange_span import Server
from cachesvc.telemetry.troubles import (
    server_trouble,
    silent_cell,
    silent_memcached,
    silent_origin,
    silent_queue,
)
from cachesvc.tiers.batching import Batcher
from cachesvc.tiers.breaker import Breaker, BreakerPool, BreakerState
from cachesvc.tiers.l2.batched import Batched
from cachesvc.tiers.l2.contract import Lookup, Pool, Tier
from cachesvc.tiers.l2.deadline import Deadline
from cachesvc.tiers.l2.guarded import Guarded
from cachesvc.tiers.l2.in_process import MemoryTier
from cachesvc.tiers.l2.measured import Measured
from cachesvc.tiers.l2.memcached import MemcachedTier, fullness_of
from cachesvc.tiers.l2.memcached_access import access_of as memcached_access
from cachesvc.tiers.l2.null import NullTier
from cachesvc.tiers.l2.ring import Ring
from cachesvc.tiers.l2.sharded import Sharded
from cachesvc.tiers.l2.statistics import Fullness
from cachesvc.tiers.l3.placement import Placement
from cachesvc.tiers.origin.contract import Loader
from cachesvc.tiers.origin.guarded import GuardedLoader
from cachesvc.tiers.origin.http import HttpLoader
from cachesvc.tiers.origin.limited import LimitedLoader
from cachesvc.tiers.redis_connections import access_of as redis_access
from cachesvc.tiers.redis_report import RedisReport
from cachesvc.tiers.seal import Seal
from cachesvc.tiers.server_conditions import conditions_of_cell, conditions_of_queue
from cachesvc.tiers.server_settings import (
    Need,
    need_of_seal,
    needs_of_memcached,
    needs_of_queue,
)
from cachesvc.tiers.tls import Certificates

logger = logging.getLogger(__name__)

STAND_IN_BYTES = 64 << 20
LATE_PART = 0.5
"""An answer of memcached within this part of `l2.timeout` is never late."""


class Part(Protocol):
    """A part of an instance that is started and stopped."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class Backends:
    """The servers of one instance, made and not started: `parts` tells the order."""

    def __init__(
        self,
        service: Service,
        topology: Topology,
        placement: Placement,
        clock: Clock,
        certificates: Certificates,
        tasks: Tasks,
        worker: Worker | None = None,
    ) -> None:
        self._service = service
        self._clock = clock
        self._leaves: dict[str, MemcachedTier | MemoryTier] = {}
        self._batched: dict[str, Batched] = {}
        self._measured: dict[str, Measured] = {}
        self._memcached_breakers = BreakerPool(
            service.breakers, late_from_seconds=LATE_PART * service.l2.timeout.seconds
        )
        self._gutter_breakers = BreakerPool(service.breakers)
        self._queue_breakers = BreakerPool(service.breakers)
        self._origin_breakers = BreakerPool(service.breakers)
        keys = seal_keys(service.l2.seal_keys) if service.l2.seal else ()
        self._seal = Seal(keys) if keys else None
        here = topology.regions[service.region]
        self._zone = zone_of(service, topology)
        """The zone of the instance; empty if it is not known."""
        self._zones: dict[str, str] = {}
        """The zones of the memcached servers that have one, by name."""
        pool, gutter = here.ring_of(self._zone), here.gutter_of(self._zone)
        self._memcached_access = memcached_access(service.l2, certificates.clients("memcached"))
        redis_tls = certificates.clients("redis")
        cell_access = redis_access(service.redis, "cells", service.sentinel, redis_tls)
        queue_access = redis_access(service.redis, "queues", service.sentinel, redis_tls)
        self._gutter = (
            Sharded(
                _ring(gutter), {name: self._gutter_server(name, server) for name, server in gutter.items()}
            )
            if gutter
            else None
        )
        servers = {name: self._server(name, server) for name, server in pool.items()}
        self._ring = _ring(pool) if servers else None
        if here.rings == "zone" and not any(server.zone == self._zone for server in pool.values()):
            logger.warning(
                "%s: this instance keeps its copies on the memcached servers of all zones",
                f"zone {self._zone} has no memcached server" if self._zone else "no zone is set",
            )
        self.l2: Pool = Sharded(self._ring, servers) if self._ring else NullTier()
        skew = service.coherence.max_clock_skew
        me = (service.region, service.instance)
        self.incarnation = secrets.token_hex(4)
        """A word of this process, which tells it from another one of its name."""
        self._homes = Cells(
            service,
            topology,
            placement,
            clock,
            access=cell_access,
            tasks=tasks,
            look=partial(self._look_at_redis, "cell"),
        )
        self.cells = self._homes.by_name
        self.peers = HttpPeers(
            {
                (region, name): there.operations_of(name)
                for region, there in topology.regions.items()
                for name in there.instances
                if (region, name) != me
            },
            service.server.peer_token_file,
            certificates.clients("instances"),
        )
        retention = service.coherence.fence_retention
        self.streams = {
            name: RedisFenceStream(
                region.queue,
                name,
                retention=retention,
                skew=skew,
                follower=me,
                incarnation=self.incarnation,
                access=queue_access,
                breaker=self._queue_breakers.add(name),
            )
            for name, region in topology.regions.items()
        }
        read_event = EventParser(topology.namespaces, service.server.max_batch_keys, retention)
        self.relaying = Relaying(
            service,
            topology,
            self.streams,
            token_file=service.server.peer_token_file,
            tls=certificates.clients("instances"),
            clock=clock,
            worker=worker,
        )
        self.changes = RedisChanges(
            here.queue,
            service.region,
            consumer=service.instance,
            decode=read_event,
            retention=retention,
            access=queue_access,
            breaker=self._queue_breakers[service.region],
        )
        self.shares = RedisShares(
            here.queue,
            service.region,
            service.instance,
            instances=instances_of(service.region, topology),
            access=queue_access,
        )
        origins_tls = certificates.clients("origins")
        self._origins = {
            name: HttpLoader(
                name, namespace.origin, clock=clock, tags_max=namespace.tags_max, tls=origins_tls
            )
            for name, namespace in topology.namespaces.items()
            if namespace.origin is not None
        }
        self._limited = {
            name: LimitedLoader(
                GuardedLoader(loader, self._origin_breakers.add(name), name),
                limit=origin.concurrency,
                wait_seconds=origin.soft_deadline.seconds,
            )
            for name, loader in self._origins.items()
            if (origin := topology.namespaces[name].origin) is not None
        }
        self.loaders: Mapping[str, Loader] = self._limited
        self.findings = Findings()
        """Whether the settings of these servers are what the rule needs."""
        self.conditions = Findings()
        """Whether these servers are in a state that needs a person."""
        self._fullness: Polled[Fullness] = Polled(
            "memcached servers",
            {name: partial(self._look_at_memcached, leaf) for name, leaf in self._leaves.items()},
        )
        look = self._look_at_redis
        self._cell_reports = self._homes.reports
        self._queue_reports: Polled[RedisReport] = Polled(
            "queues",
            {
                name: partial(
                    look,
                    "queue",
                    name,
                    needs_of_queue(
                        int(skew), on_disk=region.queue_on_disk, is_watched=is_watched(region.queue)
                    ),
                    partial(self.streams[name].server_report, clock.now_us),
                )
                for name, region in topology.regions.items()
            },
        )
        self.polled = (self._fullness, self._cell_reports, self._queue_reports)

    async def _look_at_memcached(self, leaf: MemcachedTier | MemoryTier) -> Fullness:
        if isinstance(leaf, MemoryTier):
            return await leaf.fullness()
        said = await leaf.report()
        for pool in (self._memcached_breakers, self._gutter_breakers):
            if (breaker := pool.get(leaf.name)) is not None:
                breaker.seen()
        checks = [need.check(said) for need in needs_of_memcached()]
        if leaf.is_sealed:
            checks.append(need_of_seal().check(leaf.has_unsealed()))
        self.findings.saw("memcached", leaf.name, checks)
        return fullness_of(leaf.name, said)

    async def _look_at_redis(
        self,
        kind: str,
        name: str,
        needs: Sequence[Need[RedisReport]],
        ask: Callable[[], Awaitable[RedisReport]],
    ) -> RedisReport:
        said = await ask()
        self.findings.saw(kind, name, [need.check(said) for need in needs])
        conditions = conditions_of_cell() if kind == "cell" else conditions_of_queue()
        self.conditions.saw(kind, name, [one.check(said) for one in conditions])
        return said

    def _server(self, name: str, server: MemcachedServer) -> Pool:
        """One memcached server of the pool."""
        if server.address == STAND_IN:
            self._leaves[name] = stand_in = MemoryTier(self._clock, STAND_IN_BYTES)
            return stand_in
        return self._memcached(name, server, self._memcached_breakers.add(name), self._gutter)

    def _gutter_server(self, name: str, server: MemcachedServer) -> Pool:
        longest_us = self._service.l2.gutter_ttl
        return self._memcached(name, server, self._gutter_breakers.add(name), longest_us=longest_us)

    def _memcached(
        self,
        name: str,
        server: MemcachedServer,
        breaker: Breaker,
        gutter: Tier | None = None,
        longest_us: int | None = None,
    ) -> Batched:
        """A memcached server's batches, its breaker, its deadline, its connection."""
        l2 = self._service.l2
        if server.zone:
            self._zones[name] = server.zone
        self._leaves[name] = leaf = MemcachedTier(
            name,
            server.address,
            l2,
            self._clock,
            seal=self._seal,
            access=self._memcached_access,
            longest_us=longest_us,
        )
        deadline = Deadline(
            leaf,
            l2.timeout.seconds,
            name=name,
            way_seconds=leaf.way_seconds,
            bytes_moved=leaf.bytes_moved,
        )
        self._measured[name] = measured = Measured(deadline)
        guarded = Guarded(measured, breaker, name=name, gutter=gutter)
        self._batched[name] = Batched(
            guarded, l2.max_batch, name=name, server=Server.memcached(name, server.address)
        )
        return self._batched[name]

    def troubles(self) -> Iterator[str]:
        """Yields a sentence for each server that does not answer, or is not as it must be."""
        cells, servers = self._cell_reports.silent, self._fullness.silent
        yield from (
            silent_cell(name, cells.get(name, ""))
            for name, breaker in self._homes.breakers.items()
            if name in cells or breaker.is_open
        )
        yield from (
            silent_memcached(name, servers.get(name, ""))
            for pool in (self._memcached_breakers, self._gutter_breakers)
            for name, breaker in pool.items()
            if breaker.is_open
        )
        for name, loader in self._origins.items():
            if loader.trouble:
                yield server_trouble(f"the origin of {name}", loader.trouble)
            elif self._origin_breakers[name].is_silent:
                yield silent_origin(name)
        for found in (self.conditions, self.findings):
            yield from (server_trouble(one["server"], one["why"]) for one in found.unmet())

    async def prepare(self, topology: Topology) -> None:
        """Makes ready what `take` puts in force. Nothing that is used changes.

        Raises `ConfigError` if it must not be taken, or not yet.
        """
        await self._homes.prepare(topology)

    def take(self, topology: Topology) -> Placement:
        """Takes cells and origins as the topology says; returns the placement. They are prepared."""
        placement = self._homes.take(topology)
        for name, loader in self._origins.items():
            namespace = topology.namespaces[name]
            if (origin := namespace.origin) is not None:
                loader.take(origin, namespace.tags_max)
                self._limited[name].wait_seconds = origin.soft_deadline.seconds
        return placement

    def masters(self) -> Mapping[str, str]:
        """`host:port` of the masters that sentinels named last, by server (`queue eu`)."""
        servers = {
            **{f"cell {name}": cell.master for name, cell in self.cells.items()},
            **{f"queue {name}": stream.master for name, stream in self.streams.items()},
        }
        return {name: master for name, master in servers.items() if master}

    def silent_queue(self, region: str) -> str:
        """Returns the sentence about a queue that does not answer."""
        return silent_queue(region, self._queue_reports.silent.get(region, ""))

    def remote(self) -> Remote:
        """The same servers by their contracts, as the paths reach them."""
        return Remote(
            l2=self.l2,
            pool=self,
            cells=self.cells,
            loaders=self.loaders,
            changes=self.changes,
            streams=self.streams,
            peers=self.peers,
        )

    def parts(self) -> Sequence[Part]:
        """All that is started and stopped, in the order of the start."""
        return [
            *((self._gutter,) if self._gutter else ()),
            self.l2,
            self._homes,
            *self.loaders.values(),
            self.changes,
            *self.streams.values(),
            self.relaying,
            self.peers,
        ]

    def memcached_of(self, key: Key) -> Memcached:
        """The server that has the key's copies, and why it is that one."""
        if self._ring is None:
            return Memcached("none", "the region has no pool")
        point, other = self._ring.position(key.digest)
        server = self._ring.server(key.digest)
        beyond = f"without it {other} would have the key" if other != server else "it is alone"
        breaker = self._memcached_breakers.get(server)
        why = f"the first point of the ring at or after {key.digest:016x} is {point:016x}; {beyond}"
        if (instead := self._leaf_of(key, self._ring)) != server:
            why = f"the gutter takes the keys of {server}, which is left alone ({why})"
            server, breaker = instead, self._gutter_breakers[instead]
        return Memcached(server, why, str(breaker.state) if breaker else "")

    def _leaf_of(self, key: Key, ring: Ring) -> str:
        """The server that has the key's copies now: its own, or one of the gutter."""
        server = ring.server(key.digest)
        breaker = self._memcached_breakers.get(server)
        if self._gutter is None or breaker is None or breaker.state is not BreakerState.OPEN:
            return server
        return self._gutter.ring.server(key.digest)

    async def look(self, key: Key) -> Lookup:
        """The copy in the region's pool.

        Nothing changes, nothing is counted, and no breaker is asked.
        """
        return await self._leaves[self._leaf_of(key, self._ring)].look(key) if self._ring else None

    def watch(self, metrics: Metrics) -> None:
        """Has everything that is counted here read at each scrape."""
        metrics.watch("cells", lambda: {(name,): cell.statistics() for name, cell in self.cells.items()})
        metrics.watch("servers", lambda: {(name,): leaf.statistics() for name, leaf in self._leaves.items()})
        metrics.watch("zone", lambda: {(self._zone,): 1} if self._zone else {})
        metrics.watch("server_zones", lambda: dict.fromkeys(self._zones.items(), 1))
        metrics.watch("cross_zone", self._cross_zone_bytes)
        metrics.watch("breakers", lambda: dict(self._breakers()))
        metrics.watch("origins", lambda: {(name,): loader for name, loader in self._limited.items()})
        metrics.watch(
            "batchers", lambda: {place: batcher.statistics() for place, batcher in self._batchers()}
        )
        metrics.watch("batch_sizes", lambda: {place: batcher.sizes for place, batcher in self._batchers()})
        metrics.watch("exchanges", lambda: dict(self._durations()))
        self.relaying.watch(metrics)
        metrics.watch("server_stats", lambda: self._fullness.said)
        metrics.watch("cell_memory", lambda: self._cell_reports.said)
        metrics.watch("queue_clocks", lambda: self._queue_reports.said)
        metrics.watch("settings", self.findings.statistics)
        metrics.watch(
            "polls",
            lambda: {
                ("memcached",): self._fullness,
                ("cell",): self._cell_reports,
                ("queue",): self._queue_reports,
            },
        )

    def _cross_zone_bytes(self) -> Mapping[tuple[str], int]:
        """The bytes to and from memcached servers of other zones, by direction."""
        far = [
            leaf
            for name, leaf in self._leaves.items()
            if isinstance(leaf, MemcachedTier)
            and self._zone
            and self._zones.get(name, self._zone) != self._zone
        ]
        return {
            ("sent",): sum(leaf.bytes_sent() for leaf in far),
            ("received",): sum(leaf.bytes_received() for leaf in far),
        }

    def loops(self) -> Iterator[Loop]:
        """The loops of these servers: polls, and the threads of memcached servers."""
        yield from (polled.loop for polled in self.polled)
        yield from (leaf.loop for leaf in self._leaves.values() if isinstance(leaf, MemcachedTier))

    def _breakers(self) -> Iterator[tuple[tuple[str, str], Breaker]]:
        """The breakers by kind and name of their server."""
        pools = {
            "memcached": self._memcached_breakers,
            "gutter": self._gutter_breakers,
            "cell": self._homes.breakers,
            "queue": self._queue_breakers,
            "origin": self._origin_breakers,
        }
        for kind, pool in pools.items():
            yield from (((kind, name), breaker) for name, breaker in pool.items())

    def _batchers(self) -> Iterator[tuple[tuple[str, str], Batcher[Any, Any]]]:
        """The batchers by server and operation.

        A cell may have the name of a memcached server: their operations differ.
        """
        for batching in (self._batched, self.cells):
            for name, one in batching.items():
                yield from (((name, operation), batcher) for operation, batcher in one.batchers.items())

    def _durations(self) -> Iterator[tuple[tuple[str, str], Histogram]]:
        for measuring in (self._measured, self.cells):
            for name, one in measuring.items():
                yield from (((name, operation), found) for operation, found in one.durations.items())


def _ring(servers: Mapping[str, MemcachedServer]) -> Ring:
    return Ring({name: server.weight for name, server in servers.items()})
