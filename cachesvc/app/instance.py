"""One service process: built, started, stopped.

With `backends.py`, `paths.py` and `feeds.py` the composition root, the only place that names
concrete classes. Built in one direction (clock → servers → paths → feeds → web), started in that
order, stopped in the opposite one. Starting never fails because a server is down: tiers are misses,
feeds keep trying, and the service says in `/readyz?verbose` what is so.
"""

import asyncio
import gc
import logging
import platform
import random
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from importlib.metadata import version
from itertools import starmap
from pathlib import Path

from msgspec.structs import replace

from cachesvc.app import feeds, limits, paths
from cachesvc.app.backends import Backends, Part
from cachesvc.app.descriptors import raise_descriptor_limit
from cachesvc.app.host import Host
from cachesvc.app.paced import paced
from cachesvc.app.tasks import Tasks
from cachesvc.app.topology_file import TopologyFile
from cachesvc.changes.feed import FenceFeed
from cachesvc.changes.journal.journal import NO_JOURNAL
from cachesvc.config.contracts import Contracts
from cachesvc.config.live import Path as FieldPath
from cachesvc.config.service import Service
from cachesvc.config.topology import Topology
from cachesvc.config.workers import Worker
from cachesvc.model.clock import SECONDS, Clock, SystemClock
from cachesvc.telemetry.loops import Loop, Loops
from cachesvc.telemetry.metrics.metrics import Metrics
from cachesvc.telemetry.metrics.otlp_metrics import ExportTally, MetricsExport
from cachesvc.telemetry.resource import resource_of
from cachesvc.telemetry.traces.export import SpanTally, Tracing
from cachesvc.telemetry.troubles import UNANNOUNCED_HERE, loop_trouble
from cachesvc.tiers.l3.placement import Placement
from cachesvc.tiers.tls import Certificates
from cachesvc.web.server import Web

log = logging.getLogger(__name__)

OUT_OF_REACH = "out of reach"
"""The state of a feed whose queue does not answer."""
SWEEP_SECONDS = 0.1
SWEEP_ENTRIES = 1000
"""Expired L1 entries are looked for in bounded steps, so that no turn of the loop is long."""


class App:
    """One service process. `start` once, then `stop` once."""

    def __init__(
        self,
        service: Service,
        topology: Topology,
        *,
        topology_file: Path | None = None,
        worker: Worker | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """`topology_file` is the document that is read again (`topology_file.py`); None: it stays.

        `worker` is None for an instance that is no worker of several.
        """
        self._worker = worker
        self.service = service
        self._contracts = Contracts(topology.namespaces)
        self.topology = running = replace(
            topology, namespaces=self._contracts, regions=dict(topology.regions)
        )
        self._clock = clock or SystemClock()
        self._tasks = Tasks()
        self._stack = AsyncExitStack()
        self._is_warm = False
        otlp = service.telemetry.otlp
        resource = resource_of(service)
        self._certificates = Certificates(service)
        otlp_tls = self._certificates.clients("otlp")
        self._tracing = Tracing(otlp, resource, tls=otlp_tls) if otlp else None
        placement = Placement(topology)
        self._backends = Backends(
            service, running, placement, self._clock, self._certificates, self._tasks, worker
        )
        self.remote = self._backends.remote()
        self.limits = limits.build(service, running, self._backends.shares)
        self.paths = paths.build(
            service,
            running,
            self.remote,
            placement=placement,
            clock=self._clock,
            rng=rng or random.Random(),  # noqa: S311  jitter and early refresh, nothing secret
            tasks=self._tasks,
            is_overloaded=lambda: self._web.overload.is_shedding,
            incarnation=self._backends.incarnation,
            turns=self.limits.turns,
        )
        self._feeds = feeds.build(
            service,
            running,
            self.remote,
            self.paths,
            clock=self._clock,
            recorder=self._tracing,
            followed=self._backends.relaying.followed,
            is_spared=self._backends.relaying.is_spared,
        )
        self._sweeping = Loop("sweep of L1")
        self._loops = Loops(
            [*self._feeds.watched(), self._sweeping, *self.limits.watched(), *self._backends.loops()]
        )
        self._backends.memcached.may_have = lambda key, entry: self.paths.near_tiers.may_have(
            key, self._contracts[key.namespace], entry
        )
        self._metrics = self._watched()
        relays = self._backends.relaying.relays
        self._host = Host(worker, service.server, self.readiness, self._metrics, relays) if worker else None
        every = service.telemetry.metrics_interval.seconds
        self._metrics_export = (
            MetricsExport(self._metrics.readings, otlp, resource, every, tls=otlp_tls) if otlp else None
        )
        self._web = Web(
            service,
            running,
            self.paths,
            self._feeds.broadcast,
            self.readiness,
            self._metrics,
            recorder=self._tracing,
            rates=self.limits.rates,
            worker=worker,
            host=self._host,
            relays=relays,
            tls=self._certificates.listener(service.server.tls, "server.tls"),
            operations_tls=self._certificates.listener(
                service.server.operations.tls, "server.operations.tls"
            ),
        )
        self._read_again: TopologyFile | None = None
        if topology_file is not None:
            self._read_again = TopologyFile(topology_file, topology, self._take, service)
            self._loops.watch([self._read_again.loop])
        self._loops.watch(self._web.loops)
        if self._certificates.is_used:
            self._loops.watch((self._certificates.loop,))
        self._loops.watch(part.loop for part in (self._tracing, self._metrics_export) if part is not None)

    async def _take(self, topology: Topology) -> None:
        """Takes what may change while the instance runs (`config/live.py`).

        What is needed for it is made ready first, in short turns of the loop. Then all of it changes
        between two turns. Whoever has begun before goes on with what there was.
        """
        await self._backends.prepare(topology)
        gone, loops = self._contracts.keys() - topology.namespaces.keys(), set(self._backends.loops())
        self._backends.take(topology)
        self._loops.forget(loops)
        self._loops.watch(self._backends.loops())
        self.topology.regions.update(topology.regions)
        self._contracts.take(topology.namespaces)
        self.paths.take(topology)
        self._feeds.consumer.take(topology.namespaces)
        self._web.take(topology)
        self.limits.take(topology)
        async for name in paced(sorted(gone)):
            async for _ in paced(self.paths.l1.drop(name)):
                pass

    def _watched(self) -> Metrics:
        """Everything that counts, by the names of the metrics table."""
        metrics, paths, feeds = Metrics(), self.paths, self._feeds
        tally, l1, lags = paths.tally, paths.l1, paths.lags
        metrics.watch("tiers", lambda: {(name,): getattr(tally, name) for name in ("l1", "l2", "l3")})
        metrics.watch("paths", lambda: tally)
        metrics.watch("stale_ages", lambda: {(name,): ages for name, ages in tally.stale_ages.items()})
        metrics.watch("l1", l1.statistics)
        metrics.watch("snapshot", lambda: paths.warm_restart.tally)
        metrics.watch("l1_eviction_ages", lambda: l1.eviction_ages)
        metrics.watch("l1_namespaces", lambda: {(name,): book for name, book in l1.by_namespace().items()})
        metrics.watch("hot_keys", paths.hot_keys.statistics)
        metrics.watch("spread", paths.hot_keys.spread_keys)
        metrics.watch("beyond_l1", lambda: tally.beyond)
        metrics.watch("copies_refused", lambda: tally.refusals)
        metrics.watch("reuse", paths.ghosts.statistics)
        metrics.watch("live_bytes", paths.ghosts.live_bytes)
        metrics.watch("ghosts", lambda: paths.ghosts)
        metrics.watch("fences", paths.fences.statistics)
        metrics.watch("feed", lambda: feeds.feed_tally)
        metrics.watch(
            "feeds", lambda: {(name,): paths.fences.bound_of(name) for name in self.topology.regions}
        )
        metrics.watch("consumer", lambda: feeds.consumer_tally)
        metrics.watch("rivals", paths.rivals.count)
        journal = paths.journal
        metrics.watch("journal", lambda: journal.statistics() if journal is not None else NO_JOURNAL)
        metrics.watch("overload", lambda: self._web.overload)
        metrics.watch(
            "shed",
            lambda: {(name,): count for name, count in self._web.overload.shed_by_namespace.items()},
        )
        metrics.watch(
            "connections", lambda: {(name,): port.connections for name, port in self._web.ports.items()}
        )
        metrics.watch("inspections", lambda: self._web.inspections)
        metrics.watch("identities", lambda: self._web.door.refusals)
        metrics.watch("document", lambda: int(self._read_again is not None and self._read_again.is_outdated))
        metrics.watch("document_waits", lambda: len(self._waiting()))
        metrics.watch("in_flight", lambda: self._web.in_flight)
        metrics.watch("audit", lambda: paths.trail)
        metrics.watch("handshakes", lambda: self._web.handshakes)
        metrics.watch("certificates", self._certificates.seconds_left)
        metrics.watch("broadcast", feeds.broadcast.statistics)
        metrics.watch("lags", lambda: {("published",): lags.published, ("merged",): lags.merged})
        metrics.watch(
            "namespaces", lambda: {(name,): namespace for name, namespace in self.topology.namespaces.items()}
        )
        metrics.watch("limits", lambda: self.limits.shares)
        metrics.watch("topology", lambda: self.topology)
        build = {(version("cachesvc"), platform.python_version()): 1}
        metrics.watch("build", lambda: build)
        if worker := self._worker:
            metrics.watch("workers", lambda: {(worker.host,): worker})
        metrics.watch("ready", lambda: self.readiness()[0])
        metrics.watch("loops", self._loops.statistics)
        metrics.watch("otlp", lambda: self._metrics_export.tally if self._metrics_export else ExportTally())
        metrics.watch("spans", lambda: self._tracing.tally if self._tracing else SpanTally())
        self._backends.watch(metrics)
        return metrics

    # start, run, stop ----------------------------------------------------------------------------

    @property
    def operations(self) -> str:
        """`host:port` of the operations port as it is bound; empty if there is none."""
        return self._web.operations.address if self._web.operations is not None else ""

    async def start(self) -> int:
        """Starts everything and listens; returns the bound data port.

        Raises `OSError`, whose `filename` is the address, if a port is taken, and `ConfigError` if the
        journal's file cannot be used; then nothing runs.
        """
        try:
            for part in self._parts():
                await self._own(part)
            self._stack.push_async_callback(self._tasks.stop)
            self._spawn_loops()
            self._stack.push_async_callback(self.paths.warm_restart.save)
            port = await self._web.start(self.service.server.host, self.service.server.port)
        except BaseException:
            await self._stack.aclose()
            raise
        self._stack.push_async_callback(self._web.stop)
        gc.collect()
        gc.freeze()  # what is built by now lives as long as the process: full collections need not walk it
        # A busy instance has thousands of objects on the way, which their counts free. After every 700 new
        # ones the collector would walk them in vain: without that, batches from L1 take 4 to 8 % less.
        gc.set_threshold(20_000, 20, 20)
        return port

    def _parts(self) -> Sequence[Part]:
        """All that is started, in order.

        The exports of telemetry come first, and so are stopped last: they send what the other parts
        tell at their end.
        """
        exports = (self._tracing, self._metrics_export)
        return [
            *(part for part in exports if part is not None),
            *self._backends.parts(),
            *([self.paths.journal] if self.paths.journal is not None else []),
            self.limits.leasing,
            *([self._host] if self._host is not None else []),
        ]

    async def stop(self) -> None:
        """Stops listening, lets running requests end, then stops the loops and connections."""
        await self._stack.aclose()

    async def _own(self, part: Part) -> None:
        await part.start()
        self._stack.push_async_callback(part.stop)

    def _spawn_loops(self) -> None:
        for loop, name in self._feeds.loops():
            self._tasks.spawn(loop, name)
        self._tasks.spawn(self.paths.warm_restart.take(self._is_settled), "snapshot of L1")
        self._tasks.spawn(self.limits.leasing.run(), self.limits.leasing.loop.name)
        self._tasks.spawn(self._sweeping.run(self._sweep, every_seconds=SWEEP_SECONDS), self._sweeping.name)
        if self._read_again is not None:
            self._tasks.spawn(self._read_again.run(), self._read_again.loop.name)
        for polled in self._backends.polled:
            self._tasks.spawn(polled.run(), polled.loop.name)
        if self._certificates.is_used:
            self._tasks.spawn(self._certificates.run(), self._certificates.loop.name)

    async def _sweep(self) -> None:
        self.paths.l1.sweep(self._clock.now_us(), SWEEP_ENTRIES)

    def _is_settled(self) -> bool:
        """True once what reachable queues retained is merged, and the floor has passed."""
        feeds, consumer = self._feeds.feeds, self._feeds.consumer
        return (
            consumer.has_tried
            and all(feed.has_caught_up if feed.is_open else feed.tried for feed in feeds)
            and self._clock.now_us() > self.paths.fences.floor
        )

    def readiness(self) -> tuple[bool, Mapping[str, object]]:
        """Whether this instance may be sent requests, with the reasons for `/readyz?verbose`.

        It may, once every region's retained fences are merged (or the region's queue is known to be
        out of reach: then `max_lag` guards the reads), the consumer has asked for changes, and the first
        floor has passed, before which nothing that is loaded could be kept, and the snapshot of L1 is
        taken, if there is one. Once ready, it stays ready.
        """
        fences, feeds, consumer = self.paths.fences, self._feeds.feeds, self._feeds.consumer
        self._is_warm = self._is_warm or (self._is_settled() and self.paths.warm_restart.is_over)
        bounds = {feed.region: fences.bound_of(feed.region) for feed in feeds}
        return self._is_warm, {
            "troubles": self._troubles(),
            "region": self.service.region,
            "instance": self.service.instance,
            "consumer": "has asked for changes" if consumer.has_tried else "has not asked for changes yet",
            "fence_feeds": {feed.region: _state(feed) for feed in feeds},
            "relays": self._backends.relaying.sources(),
            "staleness_bound_seconds": {
                region: None if bound is None else round(bound / SECONDS, 3)
                for region, bound in bounds.items()
            },
            "cells": {
                name: cell.refusal or (f"server {cell.issuer:x}" if cell.issuer else "not reached yet")
                for name, cell in self._backends.cells.items()
            },
            "masters": self._backends.masters(),
            "rivals": self.paths.rivals.said,
            "snapshot": self.paths.warm_restart.said,
            "loops": self._loops.troubles(),
            "conditions": self._backends.conditions.unmet(),
            "settings": self._backends.findings.unmet(),
            "settings_unknown": self._backends.findings.untold(),
            "topology_version": self.topology.version,
            "waits_for_restart": [".".join(path) for path in self._waiting()],
            "placement": f"{self.paths.homes.placement_id:08x}",
        }

    def _waiting(self) -> Sequence[FieldPath]:
        return self._read_again.waiting if self._read_again is not None else ()

    def _troubles(self) -> Sequence[str]:
        """A sentence for everything that is wrong, as far as this instance sees it."""
        away = [feed.region for feed in self._feeds.feeds if _state(feed) == OUT_OF_REACH]
        servers = [*map(self._backends.silent_queue, away), *self._backends.troubles()]
        # With a server away, the loops that wait for it would say the same once more, each in its words.
        loops = self._loops.defects() if servers else self._loops.troubles()
        outdated = self._read_again.trouble if self._read_again is not None else ""
        return [
            *([outdated] if outdated else []),
            *servers,
            *self.limits.troubles(),
            *self._certificates.troubles(),
            *([UNANNOUNCED_HERE] if self.paths.journal is not None and len(self.paths.journal) else []),
            *self.paths.rivals.said.values(),
            *starmap(loop_trouble, loops.items()),
        ]


async def serve(
    service: Service,
    topology: Topology,
    *,
    topology_file: Path | None = None,
    worker: Worker | None = None,
    ready: Callable[[int, str], None],
) -> None:
    """Serves until SIGINT or SIGTERM; as a `worker` of several, if it is one.

    `ready` is called once, with the bound data port and the address of the operations port.
    `topology_file` is the document that is read again (`topology_file.py`).
    """
    raise_descriptor_limit()
    app = App(service, topology, topology_file=topology_file, worker=worker)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, log.warning, "SIGHUP: settings are read at the start only")
    starting, stopped = asyncio.create_task(app.start()), asyncio.create_task(stopping.wait())
    await asyncio.wait((starting, stopped), return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():  # a start may hang, for instance in the look-up of `server.host`
        starting.cancel()
        await asyncio.wait((starting,))
        return
    try:
        ready(starting.result(), app.operations)
        await stopped
    finally:
        await app.stop()


def _state(feed: FenceFeed) -> str:
    if feed.is_open and not feed.loop.is_cut_off:
        return "read" if feed.has_caught_up else "catching up"
    return OUT_OF_REACH if feed.is_open or feed.tried else "not tried yet"
