"""The paths of instances over the same far tiers, on fakes and a clock that tests move."""

import itertools
import random
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from cachesvc.app.paths import Remote, build
from cachesvc.app.tasks import Tasks
from cachesvc.config import service as config
from cachesvc.config.topology import Cell as CellDocument
from cachesvc.config.topology import Namespace, Origin, Region, Topology
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
from cachesvc.model.units import Duration, Size
from cachesvc.tiers.l2.in_process import MemoryTier
from cachesvc.tiers.l3.contract import Cell
from cachesvc.tiers.l3.placement import Placement
from cachesvc.tiers.origin.budget import Turns
from tests.doubles.clocks import LoopClock
from tests.doubles.explaining import FakePeers, FakePoolView
from tests.doubles.loaders import ScriptedLoader
from tests.doubles.memory_cell import MemoryCell
from tests.doubles.memory_journal import MemoryDisk, MemoryJournalStore
from tests.doubles.memory_queue import MemoryChanges, MemoryFenceStream, MemoryQueue
from tests.doubles.queues import ChaosQueue
from tests.doubles.tiers import ChaosCell, ChaosTier

SKEW_US = 100_000
_INCARNATIONS = itertools.count()

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
    """The paths of one service process, without sockets."""

    def __init__(
        self,
        far: FarSide | None = None,
        *,
        clock: LoopClock | None = None,
        topology: Topology = TOPOLOGY,
        name: str = "i0",
        homes: Mapping[str, Cell] | None = None,
        turns: Mapping[str, Turns] = MappingProxyType({}),
        snapshots: str = "",
        disk: MemoryDisk | None = None,
    ) -> None:
        """`homes`: cells that this instance reaches at other servers than the far side's.

        `turns`: its origin budgets. `snapshots`: the directory of its snapshot of L1. `disk`: where its
        journal is; without one it keeps none.
        """
        self.far = far = far or FarSide()
        self.clock = clock or far.clock
        self.topology = topology
        self.service = config.Service(
            region="here",
            instance=name,
            l1=config.L1(
                budget=Size(1 << 24), max_entries=10_000, snapshot=config.Snapshot(directory=snapshots)
            ),
            coherence=config.Coherence(max_clock_skew=Duration(SKEW_US), sketch_slots=1 << 12),
        )
        self.tasks = Tasks()
        self.pool = FakePoolView(far.l2, far.pool)
        self.peers = FakePeers()
        incarnation = str(next(_INCARNATIONS))
        self.changes = ChaosQueue(MemoryChanges(far.queue, consumer=name))
        self.stream = ChaosQueue(
            MemoryFenceStream(
                far.queue, "here", follower=("here", name), incarnation=f"{next(_INCARNATIONS)}"
            )
        )
        self.is_overloaded = False
        self.remote = Remote(
            l2=far.l2,
            pool=self.pool,
            cells={"c1": far.cell, "c2": far.other, **(homes or {})},
            loaders={name: far.loader for name, n in topology.namespaces.items() if n.origin},
            changes=self.changes,
            streams={"here": self.stream},
            peers=self.peers,
        )
        self.paths = paths = build(
            self.service,
            topology,
            self.remote,
            placement=Placement(topology),
            clock=self.clock,
            rng=random.Random(7),
            tasks=self.tasks,
            is_overloaded=lambda: self.is_overloaded,
            incarnation=incarnation,
            turns=turns,
            journal_store=MemoryJournalStore(disk) if disk is not None else None,
        )
        self.journal = paths.journal
        self.fences, self.admission, self.l1 = paths.fences, paths.admission, paths.l1
        self.flights, self.tally, self.lags = paths.flights, paths.tally, paths.lags
        self.merger, self.applier, self.receipts = paths.merger, paths.applier, paths.receipts
        self.reader, self.writer, self.invalidator = paths.reader, paths.writer, paths.invalidator
        self.announcer, self.explainer = paths.announcer, paths.explainer
        self.warm_restart = paths.warm_restart
        self.fences.watermark = 1 << 62  # a feed that is never late; tests of the bound set it

    def attach(self) -> None:
        """Attaches to every cell in reach, with the placement and the version of the own topology."""
        under = self.paths.homes.placement.id
        for cell in (self.far.cell, self.far.other):
            if not cell.down:
                cell.activate(under, self.topology.version)

    def move(self, topology: Topology) -> None:
        """Takes another document as `app/instance.py` does, and attaches to every cell in reach."""
        self.topology = topology
        self.paths.rehome(topology, Placement(topology), self.clock.now_us())
        self.attach()

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
