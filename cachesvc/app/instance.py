"""The composition root. With `backends.py`, what is far away, the only place that names concrete classes.

Built in one direction (clock → fences → tiers → paths → web), started in that order, stopped in the opposite one. Starting
never fails because a server is down: tiers are misses, feeds keep trying, and the service says in `/readyz?verbose` what is so.
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

from cachesvc.app.backends import Backends, Part
from cachesvc.app.tasks import Tasks
from cachesvc.changes.announce import Announcer
from cachesvc.changes.apply import Applier
from cachesvc.changes.broadcast.broadcast import Broadcast
from cachesvc.changes.consume import Consumer, ConsumerTally
from cachesvc.changes.delays import ChangeLags
from cachesvc.changes.feed import FeedTally, FenceFeed
from cachesvc.changes.receipts import Receipts
from cachesvc.coherence.admission import Admission
from cachesvc.coherence.fences import Fences
from cachesvc.coherence.merger import Merger
from cachesvc.config.service import Service
from cachesvc.config.topology import Topology
from cachesvc.explain.explainer import Explainer
from cachesvc.model.clock import SECONDS, Clock, SystemClock
from cachesvc.paths.estimate import Estimator
from cachesvc.paths.flight import Flights
from cachesvc.paths.flight_runner import FlightRunner
from cachesvc.paths.invalidate import Invalidator
from cachesvc.paths.load import Loads
from cachesvc.paths.near_tiers import NearTiers
from cachesvc.paths.read import Reader
from cachesvc.paths.tally import Tally
from cachesvc.paths.write import Writer
from cachesvc.telemetry.metrics.metrics import Metrics
from cachesvc.telemetry.metrics.otlp_metrics import ExportTally, MetricsExport
from cachesvc.telemetry.popularity.hot_keys import HotKeys
from cachesvc.telemetry.popularity.read_sample import ReadSample
from cachesvc.telemetry.resource import resource_of
from cachesvc.telemetry.traces.export import SpanTally, Tracing
from cachesvc.tiers.l1.l1 import L1
from cachesvc.tiers.l3.homes import Homes
from cachesvc.tiers.l3.placement import Placement
from cachesvc.web.server import Web

log = logging.getLogger(__name__)

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
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.service = service
        self.topology = topology
        self._clock = clock or SystemClock()
        self._rng = rng or random.Random()  # noqa: S311  jitter and early refresh, nothing secret
        self._skew = service.coherence.max_clock_skew
        self._tasks = Tasks()
        self._stack = AsyncExitStack()
        self._is_warm = False
        otlp = service.telemetry.otlp
        resource = resource_of(service)
        self._tracing = Tracing(otlp, resource) if otlp else None
        self._build_tiers()
        self._build_feeds()
        self._build_paths()
        self._metrics = self._watched()
        every = service.telemetry.metrics_interval.seconds
        self._metrics_export = MetricsExport(self._metrics.readings, otlp, resource, every) if otlp else None
        self._web = Web(
            service,
            topology,
            self,
            self.broadcast,
            self.readiness,
            self._metrics,
            recorder=self._tracing,
        )

    # build ------------------------------------------------------------------------------------------------------------

    def _build_tiers(self) -> None:
        service, topology = self.service, self.topology
        coherence = service.coherence
        placement = self._placement = Placement(topology)
        self.fences = Fences(
            self._clock,
            self._skew,
            coherence.sketch_slots,
            topology.regions,
            _longest_load_us(topology),
            service.l3.retention,
            placement.id,
        )
        self.l1 = L1(service.l1.budget, service.l1.max_entries, self._clock)
        self._backends = Backends(service, topology, placement, self._clock)
        self.l2 = self._backends.l2
        self._homes = Homes(placement, self._backends.cells)

    def _build_feeds(self) -> None:
        service, topology = self.service, self.topology
        streams = self._backends.streams
        self._flights = Flights()
        self._merger = Merger(self.fences, self._flights.forget)
        self._applier = Applier(self._homes, self._clock, self._skew)
        self.broadcast = Broadcast(self._clock, self._skew, topology.regions)
        self.feed_tally = FeedTally()
        self._lags = ChangeLags()
        self._feeds = [
            FenceFeed(
                stream,
                self.fences,
                self._merger,
                self.broadcast,
                self._clock,
                self._skew,
                self.feed_tally,
                self._lags,
                recorder=self._tracing,
            )
            for stream in streams.values()
        ]
        self.consumer_tally = ConsumerTally()
        self._consumer = Consumer(
            service.instance,
            changes=self._backends.changes,
            stream=streams[service.region],
            applier=self._applier,
            merger=self._merger,
            clock=self._clock,
            heartbeat_seconds=service.coherence.heartbeat.seconds,
            namespaces=list(topology.namespaces),
            tally=self.consumer_tally,
            recorder=self._tracing,
            lags=self._lags,
        )

    def _build_paths(self) -> None:
        namespaces = self.topology.namespaces
        admission = Admission(self.fences, self._clock)
        self.hot_keys = HotKeys(namespaces, self._clock)
        near_tiers = NearTiers(self.l1, self.l2, admission, self.hot_keys)
        self.tally = Tally.zero()
        sample = ReadSample(self.hot_keys, self._rng)
        loads = Loads(
            loaders=self._backends.loaders,
            near_tiers=near_tiers,
            admission=admission,
            clock=self._clock,
            rng=self._rng,
            tally=self.tally,
        )
        runner = FlightRunner(
            near_tiers=near_tiers,
            l2=self.l2,
            homes=self._homes,
            loads=loads,
            flights=self._flights,
            fences=self.fences,
            admission=admission,
            tasks=self._tasks,
            rng=self._rng,
            tally=self.tally,
        )
        self.explainer = Explainer(
            topology=self.topology,
            placement=self._placement,
            me=(self.service.region, self.service.instance),
            l1=self.l1,
            pool=self._backends,
            homes=self._homes,
            peers=self._backends.peers,
            fences=self.fences,
            admission=admission,
            clock=self._clock,
            is_overloaded=lambda: self._web.overload.is_shedding,
        )
        self.reader = Reader(
            namespaces=namespaces,
            l1=self.l1,
            flights=self._flights,
            runner=runner,
            fences=self.fences,
            admission=admission,
            clock=self._clock,
            rng=self._rng,
            tally=self.tally,
            sample=sample,
        )
        announcer = Announcer(
            region=self.service.region,
            changes=self._backends.changes,
            stream=self._backends.streams[self.service.region],
            merger=self._merger,
            clock=self._clock,
            lags=self._lags,
        )
        self.invalidator = Invalidator(
            region=self.service.region,
            instance=self.service.instance,
            announcer=announcer,
            applier=self._applier,
            near_tiers=near_tiers,
            receipts=self._receipts(),
            estimator=Estimator(self.l1, sample, self._homes),
        )
        self.writer = Writer(
            namespaces=namespaces,
            homes=self._homes,
            announcer=announcer,
            applier=self._applier,
            reader=self.reader,
            near_tiers=near_tiers,
            clock=self._clock,
            rng=self._rng,
        )

    def _receipts(self) -> Receipts:
        coherence = self.service.coherence
        longest_lag = max((namespace.max_lag for namespace in self.topology.namespaces.values()), default=0)
        return Receipts(
            self.service.region,
            self._backends.streams,
            heartbeat_seconds=coherence.heartbeat.seconds,
            outdated_seconds=(longest_lag + coherence.heartbeat + 2 * self._skew) / SECONDS,
        )

    def _watched(self) -> Metrics:
        """Everything that counts, by the names of the metrics table."""
        metrics = Metrics()
        metrics.watch("tiers", lambda: {(name,): getattr(self.tally, name) for name in ("l1", "l2", "l3")})
        metrics.watch("paths", lambda: self.tally)
        metrics.watch("stale_ages", lambda: {(name,): ages for name, ages in self.tally.stale_ages.items()})
        metrics.watch("l1", self.l1.statistics)
        metrics.watch("l1_eviction_ages", lambda: self.l1.eviction_ages)
        metrics.watch(
            "l1_namespaces", lambda: {(name,): book for name, book in self.l1.by_namespace().items()}
        )
        metrics.watch("hot_keys", self.hot_keys.statistics)
        metrics.watch("fences", self.fences.statistics)
        metrics.watch("feed", lambda: self.feed_tally)
        metrics.watch(
            "feeds", lambda: {(name,): self.fences.bound_of(name) for name in self.topology.regions}
        )
        metrics.watch("consumer", lambda: self.consumer_tally)
        metrics.watch("overload", lambda: self._web.overload)
        metrics.watch("broadcast", self.broadcast.statistics)
        metrics.watch("lags", lambda: {("published",): self._lags.published, ("merged",): self._lags.merged})
        metrics.watch(
            "namespaces", lambda: {(name,): namespace for name, namespace in self.topology.namespaces.items()}
        )
        metrics.watch("topology", lambda: self.topology)
        build = {(version("cachesvc"), platform.python_version()): 1}
        metrics.watch("build", lambda: build)
        metrics.watch("ready", lambda: self.readiness()[0])
        metrics.watch("otlp", lambda: self._metrics_export.tally if self._metrics_export else ExportTally())
        metrics.watch("spans", lambda: self._tracing.tally if self._tracing else SpanTally())
        self._backends.watch(metrics)
        return metrics

    # start, run, stop -------------------------------------------------------------------------------------------------

    async def start(self) -> int:
        """Start everything and listen; the bound port. Raises `OSError` if the port is taken; then nothing runs."""
        try:
            for part in self._parts():
                await self._own(part)
            self._stack.push_async_callback(self._tasks.stop)
            self._spawn_loops()
            port = await self._web.start(self.service.server.host, self.service.server.port)
        except BaseException:
            await self._stack.aclose()
            raise
        self._stack.push_async_callback(self._web.stop)
        gc.collect()
        gc.freeze()  # what is built by now lives as long as the process: full collections need not walk it
        return port

    def _parts(self) -> Sequence[Part]:
        """In the order of their start. What exports is first, and so is stopped last: it has the end to tell."""
        exports = (self._tracing, self._metrics_export)
        return [*(part for part in exports if part is not None), *self._backends.parts()]

    async def stop(self) -> None:
        """Stop listening, let running requests end, then stop the loops and close every connection."""
        await self._stack.aclose()

    async def _own(self, part: Part) -> None:
        await part.start()
        self._stack.push_async_callback(part.stop)

    def _spawn_loops(self) -> None:
        for feed in self._feeds:
            self._tasks.spawn(feed.run(), f"fence feed of {feed.region}")
        self._tasks.spawn(self._consumer.run(), "consumer of changes")
        self._tasks.spawn(self._consumer.run_heartbeats(), "heartbeats")
        self._tasks.spawn(self._consumer.run_reclaiming(), "open changes")
        self._tasks.spawn(self._sweep(), "sweep of L1")
        for polled in self._backends.polled:
            self._tasks.spawn(polled.run(), f"polling {polled.name}")

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self.l1.sweep(self._clock.now_us(), SWEEP_ENTRIES)

    def readiness(self) -> tuple[bool, Mapping[str, object]]:
        """Ready once every region's retained fences are merged (or its queue is known to be out of reach: then `max_lag` guards
        the reads), and the first floor has passed, before which nothing that is loaded could be kept."""
        now = self._clock.now_us()
        settled = all(feed.has_caught_up if feed.is_open else feed.tried for feed in self._feeds)
        self._is_warm = self._is_warm or (settled and now > self.fences.floor)
        bounds = {feed.region: self.fences.bound_of(feed.region) for feed in self._feeds}
        return self._is_warm, {
            "region": self.service.region,
            "instance": self.service.instance,
            "fence_feeds": {feed.region: _state(feed) for feed in self._feeds},
            "staleness_bound_seconds": {
                region: None if bound is None else round(bound / SECONDS, 3)
                for region, bound in bounds.items()
            },
            "topology_version": self.topology.version,
            "placement": f"{self._homes.placement_id:08x}",
        }


async def serve(service: Service, topology: Topology, *, ready: Callable[[int], None]) -> None:
    """Serve until SIGINT or SIGTERM. `ready` is called once with the bound port."""
    app = App(service, topology)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    port = await app.start()
    try:
        ready(port)
        await stopping.wait()
    finally:
        await app.stop()


def _state(feed: FenceFeed) -> str:
    if feed.is_open:
        return "read" if feed.has_caught_up else "catching up"
    return "out of reach" if feed.tried else "not tried yet"


def _longest_load_us(topology: Topology) -> int:
    """How long a read may look back: waiting for a lease, then loading."""
    loads = [
        namespace.lease_wait + (namespace.origin.hard_deadline if namespace.origin else namespace.lease)
        for namespace in topology.namespaces.values()
    ]
    return max(loads, default=0) + 2 * SECONDS
