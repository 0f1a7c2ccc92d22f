"""One instance's paths (or several instances over the same far tiers) on fakes and a clock that only the test moves."""

import random
from collections.abc import Iterable

from cachesvc.app.tasks import Tasks
from cachesvc.changes.announce import Announcer
from cachesvc.changes.apply import Applier
from cachesvc.changes.delays import ChangeLags
from cachesvc.changes.receipts import Receipts
from cachesvc.coherence.admission import Admission
from cachesvc.coherence.fences import Fences
from cachesvc.coherence.merger import Merger
from cachesvc.config.topology import Cell as CellDocument
from cachesvc.config.topology import Namespace, Origin, Region, Topology
from cachesvc.explain.explainer import Explainer
from cachesvc.model.change import Change
from cachesvc.model.entry import Key
from cachesvc.model.requests import (
    PLAIN,
    Answer,
    Draft,
    InvalidateOptions,
    Reach,
    ReadOptions,
    Receipt,
    Written,
)
from cachesvc.model.units import Duration
from cachesvc.paths.estimate import Estimator
from cachesvc.paths.flight import Flights
from cachesvc.paths.flight_runner import FlightRunner
from cachesvc.paths.invalidate import Invalidator
from cachesvc.paths.load import Loads
from cachesvc.paths.near_tiers import NearTiers
from cachesvc.paths.read import Reader
from cachesvc.paths.tally import Tally
from cachesvc.paths.write import Writer
from cachesvc.telemetry.popularity.hot_keys import HotKeys
from cachesvc.telemetry.popularity.read_sample import ReadSample
from cachesvc.tiers.l1.l1 import L1
from cachesvc.tiers.l2.contract import Pool
from cachesvc.tiers.l2.in_process import MemoryTier
from cachesvc.tiers.l3.contract import Cell
from cachesvc.tiers.l3.homes import Homes
from cachesvc.tiers.l3.placement import Placement
from tests.doubles.clocks import LoopClock
from tests.doubles.explaining import FakePeers, FakePoolView
from tests.doubles.loaders import ScriptedLoader
from tests.doubles.memory_cell import MemoryCell
from tests.doubles.memory_queue import MemoryChanges, MemoryFenceStream, MemoryQueue
from tests.doubles.queues import ChaosQueue
from tests.doubles.tiers import ChaosCell, ChaosTier

SKEW_US = 100_000

TOPOLOGY = Topology(
    version=1,
    regions={"here": Region(queue="memory")},
    cells={
        "c1": CellDocument(region="here", url="memory"),
        "c2": CellDocument(region="here", url="memory", active=False),
    },
    pins={"elsewhere": "c2"},
    namespaces={
        "docs": Namespace(
            owner="tests", jitter=0.0, early_refresh=0.0, origin=Origin(url="http://origin/{key}")
        ),
        "aside": Namespace(owner="tests", jitter=0.0),
        "hot": Namespace(
            owner="tests",
            jitter=0.0,
            early_refresh=1.0,
            ttl=Duration.parse("10s"),
            origin=Origin(url="http://origin/{key}"),
        ),
        "slow": Namespace(
            owner="tests",
            jitter=0.0,
            lease=Duration.parse("2s"),
            lease_wait=Duration.parse("20s"),
            origin=Origin(url="http://origin/{key}", hard_deadline=Duration.parse("10s")),
        ),
    },
)


class FarSide:
    """Everything that instances share: the memcached pool, the home cell, the queue, the origin."""

    def __init__(self, clock: LoopClock | None = None) -> None:
        self.clock = clock or LoopClock()
        self.pool = MemoryTier(self.clock, 1 << 24)
        self.l2 = ChaosTier(self.pool)
        self.cell = ChaosCell(MemoryCell("c1", clock=self.clock, skew_us=SKEW_US))
        self.other = ChaosCell(MemoryCell("c2", clock=self.clock, skew_us=SKEW_US))
        """Home of the partition `elsewhere`, and of nothing else."""
        self.queue = MemoryQueue(self.clock)
        self.loader = ScriptedLoader()


class Instance:
    """The paths of one service process, wired as `app.py` does, without sockets."""

    def __init__(
        self,
        far: FarSide | None = None,
        *,
        clock: LoopClock | None = None,
        topology: Topology = TOPOLOGY,
        name: str = "i0",
    ) -> None:
        self.far = far or FarSide()
        self.clock = clock or self.far.clock
        rng = random.Random(7)
        namespaces = topology.namespaces
        placement = Placement(topology)
        self.fences = Fences(self.clock, SKEW_US, 1 << 12, ["here"], 20_000_000, placement=placement.id)
        self.fences.watermark = 1 << 62  # a feed that is never late; tests of the bound set it
        self.flights = Flights()
        self.l1 = L1(1 << 24, 10_000, self.clock)
        self.admission = Admission(self.fences, self.clock)
        l2: Pool = self.far.l2
        cell: Cell = self.far.cell
        homes = Homes(placement, {"c1": cell, "c2": self.far.other})
        self.hot_keys = HotKeys(namespaces, self.clock)
        self.near_tiers = NearTiers(self.l1, l2, self.admission, self.hot_keys)
        self.tally = Tally.zero()
        self.tasks = Tasks()
        self.peers = FakePeers()
        self.is_overloaded = False
        self.pool = FakePoolView(self.far.l2, self.far.pool)
        sample = ReadSample(self.hot_keys, random.Random(8))
        loads = Loads(
            loaders={name: self.far.loader for name, n in namespaces.items() if n.origin},
            near_tiers=self.near_tiers,
            admission=self.admission,
            clock=self.clock,
            rng=rng,
            tally=self.tally,
        )
        runner = FlightRunner(
            near_tiers=self.near_tiers,
            l2=l2,
            homes=homes,
            loads=loads,
            flights=self.flights,
            fences=self.fences,
            admission=self.admission,
            tasks=self.tasks,
            rng=rng,
            tally=self.tally,
        )
        self.explainer = Explainer(
            topology=topology,
            placement=placement,
            me=("here", name),
            l1=self.l1,
            pool=self.pool,
            homes=homes,
            peers=self.peers,
            fences=self.fences,
            admission=self.admission,
            clock=self.clock,
            is_overloaded=lambda: self.is_overloaded,
        )
        self.reader = Reader(
            namespaces=namespaces,
            l1=self.l1,
            flights=self.flights,
            runner=runner,
            fences=self.fences,
            admission=self.admission,
            clock=self.clock,
            rng=rng,
            tally=self.tally,
            sample=sample,
        )
        self.merger = Merger(self.fences, self.flights.forget)
        self.applier = Applier(homes, self.clock, SKEW_US)
        self.changes = ChaosQueue(MemoryChanges(self.far.queue))
        self.stream = ChaosQueue(MemoryFenceStream(self.far.queue, "here", follower=("here", name)))
        self.receipts = Receipts("here", {"here": self.stream}, heartbeat_seconds=0.5, outdated_seconds=2.7)
        self.lags = ChangeLags()
        self.announcer = Announcer(
            region="here",
            changes=self.changes,
            stream=self.stream,
            merger=self.merger,
            clock=self.clock,
            lags=self.lags,
        )
        self.invalidator = Invalidator(
            region="here",
            instance=name,
            announcer=self.announcer,
            applier=self.applier,
            near_tiers=self.near_tiers,
            receipts=self.receipts,
            estimator=Estimator(self.l1, sample, homes),
        )
        self.writer = Writer(
            namespaces=namespaces,
            homes=homes,
            announcer=self.announcer,
            applier=self.applier,
            reader=self.reader,
            near_tiers=self.near_tiers,
            clock=self.clock,
            rng=rng,
        )

    async def get(self, key: str, ns: str = "docs", options: ReadOptions = PLAIN) -> Answer:
        return await self.reader.get(Key.of(ns, key), options)

    async def value(self, key: str, ns: str = "docs") -> bytes | None:
        """The bytes of a plain read, whoever answers it."""
        answer = await self.get(key, ns)
        return answer.entry.value if answer.entry is not None else None

    async def put(
        self, key: str, value: bytes, ns: str = "aside", lease: str | None = None, tags: Iterable[str] = ()
    ) -> Written:
        return await self.writer.put(Key.of(ns, key), Draft(value, lease=lease, tags=tuple(tags)))

    async def invalidate(
        self,
        *keys: str,
        ns: str = "docs",
        tags: Iterable[str] = (),
        whole: bool = False,
        soft: bool = False,
        over: str = "",
        wait: Reach = Reach.NONE,
    ) -> Receipt:
        change = Change(ns, keys=keys, tags=tuple(tags), all=whole, soft=soft, over=over)
        return await self.invalidator.invalidate(change, InvalidateOptions(wait))
