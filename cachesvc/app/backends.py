"""The servers that an instance talks to: memcached pool, cells, queues, origins, peers.

Part of the composition root: built without I/O, started and stopped by `instance.py`.
"""

import logging
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from cachesvc.app.limits import instances_of
from cachesvc.app.memcached_pool import MemcachedPool
from cachesvc.app.origins import Origins
from cachesvc.app.paths import Remote
from cachesvc.app.relaying import Relaying
from cachesvc.app.tasks import Tasks
from cachesvc.changes.events.event_parser import EventParser
from cachesvc.changes.redis.changes import RedisChanges
from cachesvc.changes.redis.fences import RedisFenceStream
from cachesvc.changes.redis.shares import RedisShares
from cachesvc.config.addresses import is_watched
from cachesvc.config.service import Service
from cachesvc.config.topology import Topology
from cachesvc.config.workers import Worker
from cachesvc.explain.peers import HttpPeers
from cachesvc.model.clock import Clock
from cachesvc.telemetry.findings import Findings
from cachesvc.telemetry.loops import Loop
from cachesvc.telemetry.metrics.histogram import Histogram
from cachesvc.telemetry.metrics.metrics import Metrics
from cachesvc.telemetry.metrics.polled import Polled
from cachesvc.telemetry.troubles import (
    server_trouble,
    silent_cell,
    silent_queue,
)
from cachesvc.tiers.batching import Batcher
from cachesvc.tiers.breaker import Breaker, BreakerPool
from cachesvc.tiers.l3.issuer import Issuer
from cachesvc.tiers.l3.leases import holder_mark
from cachesvc.tiers.l3.placement import Placement
from cachesvc.tiers.l3.redis_cell import RedisCell
from cachesvc.tiers.origin.contract import Loader
from cachesvc.tiers.redis_connections import access_of as redis_access
from cachesvc.tiers.redis_report import RedisReport
from cachesvc.tiers.server_conditions import conditions_of_cell, conditions_of_queue
from cachesvc.tiers.server_settings import (
    Need,
    needs_of_cell,
    needs_of_queue,
)
from cachesvc.tiers.tls import Certificates

logger = logging.getLogger(__name__)


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
        self._cell_breakers = BreakerPool(service.breakers)
        self._queue_breakers = BreakerPool(service.breakers)
        here = topology.regions[service.region]
        self.findings = Findings()
        """Whether the settings of these servers are what the rule needs."""
        self.conditions = Findings()
        """Whether these servers are in a state that needs a person."""
        self.memcached = MemcachedPool(service, topology, clock, certificates, tasks, self.findings)
        redis_tls = certificates.clients("redis")
        cell_access = redis_access(service.redis, "cells", service.sentinel, redis_tls)
        queue_access = redis_access(service.redis, "queues", service.sentinel, redis_tls)
        skew = service.coherence.max_clock_skew
        under = (placement.id, topology.version)
        me = (service.region, service.instance)
        self.incarnation = secrets.token_hex(4)
        """A word of this process, which tells it from another one of its name."""
        mark = holder_mark(*me)
        issuers: dict[str, Issuer] = {}
        self.cells = {
            name: RedisCell(
                name,
                cell.url,
                service.l3,
                skew,
                clock,
                placement=under,
                nonce=lambda: mark + secrets.token_hex(6),
                issuers=issuers,
                access=cell_access,
                breaker=self._cell_breakers.add(name),
            )
            for name, cell in topology.cells.items()
        }
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
        self._read_event = EventParser(topology.namespaces, service.server.max_batch_keys, retention)
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
            decode=self._read_event,
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
        self.origins = Origins(service, topology.namespaces, clock, tasks, certificates.clients("origins"))
        self.loaders: Mapping[str, Loader] = self.origins.loaders
        look = self._look_at_redis
        self._cell_reports: Polled[RedisReport] = Polled(
            "cells",
            {
                name: partial(
                    look,
                    "cell",
                    name,
                    needs_of_cell(int(skew), is_watched=is_watched(topology.cells[name].url)),
                    cell.report,
                )
                for name, cell in self.cells.items()
            },
        )
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
        self.polled = (self.memcached.fullness, self._cell_reports, self._queue_reports)

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

    def troubles(self) -> Iterator[str]:
        """Yields a sentence for each server that does not answer, or is not as it must be."""
        cells = self._cell_reports.silent
        yield from (
            silent_cell(name, cells.get(name, ""))
            for name, breaker in self._cell_breakers.items()
            if name in cells or breaker.is_open
        )
        yield from self.memcached.troubles()
        yield from self.origins.troubles()
        for found in (self.conditions, self.findings):
            yield from (server_trouble(one["server"], one["why"]) for one in found.unmet())

    async def prepare(self, topology: Topology) -> None:
        """Makes ready what `take` puts in force. Nothing that is used changes."""
        await self.memcached.prepare(topology)
        await self.origins.prepare(topology.namespaces)

    def take(self, topology: Topology) -> None:
        """Takes memcached servers, namespaces, origins and `sources`. They are prepared."""
        self.memcached.take(topology)
        self.origins.take(topology.namespaces)
        self._read_event.take(topology.namespaces)

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
            l2=self.memcached.l2,
            pool=self.memcached,
            cells=self.cells,
            loaders=self.loaders,
            changes=self.changes,
            streams=self.streams,
            peers=self.peers,
        )

    def parts(self) -> Sequence[Part]:
        """All that is started and stopped, in the order of the start."""
        return [
            self.memcached,
            *self.cells.values(),
            self.origins,
            self.changes,
            *self.streams.values(),
            self.relaying,
            self.peers,
        ]

    def watch(self, metrics: Metrics) -> None:
        """Has everything that is counted here read at each scrape."""
        metrics.watch("cells", lambda: {(name,): cell.statistics() for name, cell in self.cells.items()})
        self.memcached.watch(metrics)
        metrics.watch("breakers", lambda: dict(self._breakers()))
        metrics.watch("origins", lambda: {(name,): loader for name, loader in self.origins.loaders.items()})
        metrics.watch(
            "batchers", lambda: {place: batcher.statistics() for place, batcher in self._batchers()}
        )
        metrics.watch("batch_sizes", lambda: {place: batcher.sizes for place, batcher in self._batchers()})
        metrics.watch("exchanges", lambda: dict(self._durations()))
        self.relaying.watch(metrics)
        metrics.watch("cell_memory", lambda: self._cell_reports.said)
        metrics.watch("queue_clocks", lambda: self._queue_reports.said)
        metrics.watch("settings", self.findings.statistics)
        metrics.watch(
            "polls",
            lambda: {
                ("memcached",): self.memcached.fullness,
                ("cell",): self._cell_reports,
                ("queue",): self._queue_reports,
            },
        )

    def loops(self) -> Iterator[Loop]:
        """The loops of these servers: polls, and the threads of memcached servers."""
        yield from (polled.loop for polled in self.polled)
        yield from self.memcached.loops()

    def _breakers(self) -> Iterator[tuple[tuple[str, str], Breaker]]:
        """The breakers by kind and name of their server."""
        pools = {
            **self.memcached.breakers,
            "cell": self._cell_breakers,
            "queue": self._queue_breakers,
            "origin": self.origins.breakers,
        }
        for kind, pool in pools.items():
            yield from (((kind, name), breaker) for name, breaker in pool.items())

    def _batchers(self) -> Iterator[tuple[tuple[str, str], Batcher[Any, Any]]]:
        """The batchers by server and operation.

        A cell may have the name of a memcached server: their operations differ.
        """
        for batching in (self.memcached.batched, self.cells):
            for name, one in batching.items():
                yield from (((name, operation), batcher) for operation, batcher in one.batchers.items())

    def _durations(self) -> Iterator[tuple[tuple[str, str], Histogram]]:
        for measuring in (self.memcached.measured, self.cells):
            for name, one in measuring.items():
                yield from (((name, operation), found) for operation, found in one.durations.items())
