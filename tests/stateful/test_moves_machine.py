"""Homes move, and instances take each document when they like: no read is answered an old value.

Beside the instances stands the value behind the cache, a number that each write raises. An instance
that has merged the fence of a write must not answer an earlier number (G1). Documents follow each
other as `cachesvc cell` writes them: a move, its end, and the way back, also before its end. Two
documents at most are in use at a time, as a third one is written when all instances have the second
one. Cells are cut off, lose what they hold, and are replaced by replicas that lag behind.
"""

import asyncio
from typing import Any

import looptime
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from tests.doubles.clocks import LoopClock
from tests.doubles.loaders import loaded
from tests.doubles.memory_cell import MemoryCell, new_issuer
from tests.doubles.tiers import ChaosCell
from tests.paths.test_moving import start, version
from tests.paths.truth import hear
from tests.paths.world import SKEW_US, FarSide, Instance

NAMES = ("i0", "i1", "i2")
names = st.sampled_from(NAMES)
KEY, TAGS = "a", ("t",)
EARLIEST, LATEST = -SKEW_US // 2, SKEW_US // 2


class MovesMachine(RuleBasedStateMachine):
    """Three instances, two cells, one key."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = looptime.patch_event_loop(asyncio.SelectorEventLoop())
        asyncio.set_event_loop(self.loop)
        self.value = 0
        self.documents = [version(1, home="c1")]
        self.instances: dict[str, Instance] = {}
        self.taken = dict.fromkeys(NAMES, 0)
        self.merged = dict.fromkeys(NAMES, 0)
        """The number that the instance must answer at least."""
        self.run(self.begin())

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        self.run(asyncio.sleep(60))
        self.loop.close()

    async def begin(self) -> None:
        self.far = FarSide()
        self.far.cell = ChaosCell(MemoryCell("c1", clock=LoopClock(EARLIEST), skew_us=SKEW_US))
        self.far.other = ChaosCell(MemoryCell("c2", clock=LoopClock(LATEST), skew_us=SKEW_US))
        self.far.loader.default = lambda _: loaded(str(self.value).encode(), tags=TAGS)
        for name in NAMES:
            self.instances[name] = await start(self.far, self.documents[0], name)
        await asyncio.sleep(1)

    @property
    def cells(self) -> dict[str, ChaosCell]:
        return {"c1": self.far.cell, "c2": self.far.other}

    def all_have_it(self) -> bool:
        return set(self.taken.values()) == {len(self.documents) - 1}

    # documents -----------------------------------------------------------------------------------

    @rule()
    def move_on(self) -> None:
        """The next document: the end of the move, or a move to the other cell."""
        last = self.documents[-1]
        home = "c1" if last.cells["c1"].active else "c2"
        if not self.all_have_it():
            return
        if last.former is not None:
            self.documents.append(version(last.version + 1, home=home))
            return
        other = "c2" if home == "c1" else "c1"
        self.documents.append(version(last.version + 1, home=other, former=home))

    @precondition(lambda self: self.documents[-1].former is not None and self.all_have_it())
    @rule()
    def take_it_back(self) -> None:
        last = self.documents[-1]
        home, former = ("c1", "c2") if last.cells["c1"].active else ("c2", "c1")
        self.documents.append(version(last.version + 1, home=former, former=home))

    @rule(name=names)
    def take_the_document(self, name: str) -> None:
        if self.taken[name] < len(self.documents) - 1:
            self.taken[name] += 1
            self.run(self.moved(name))

    async def moved(self, name: str) -> None:
        self.instances[name].move(self.documents[self.taken[name]])

    @rule(name=names, late=st.booleans())
    def crash(self, name: str, late: bool) -> None:
        """A process ends, and another one begins with the document of before, or with the newest."""
        if not late:
            self.taken[name] = len(self.documents) - 1
        self.run(self.started(name))

    async def started(self, name: str) -> None:
        await self.instances[name].tasks.stop()
        self.instances[name] = await start(self.far, self.documents[self.taken[name]], name)
        await hear(self.instances[name])
        self.merged[name] = max(self.merged.values())

    # the world -----------------------------------------------------------------------------------

    @rule(name=st.sampled_from(("c1", "c2")), down=st.booleans())
    def cut(self, name: str, down: bool) -> None:
        self.run(self.cut_off(name, down))

    async def cut_off(self, name: str, down: bool) -> None:
        cell = self.cells[name]
        if cell.down and not down:
            cell.down = False
            for one in self.instances.values():
                one.attach()
        cell.down = down

    @rule(name=st.sampled_from(("c1", "c2")))
    def lose(self, name: str) -> None:
        """The cell's server is replaced by an empty one."""
        self.run(self.lost(name))

    async def lost(self, name: str) -> None:
        cell = self.cells[name].cell
        cell.lose()
        cell.issuer = new_issuer()
        for one in self.instances.values():
            one.attach()

    @rule(ms=st.sampled_from((1, 20, 120, 500)))
    def wait(self, ms: int) -> None:
        self.run(asyncio.sleep(ms / 1000))

    # readers and writers -------------------------------------------------------------------------

    @rule(name=names, what=st.sampled_from(("key", "tag", "namespace")), hold=st.booleans())
    def write(self, name: str, what: str, hold: bool) -> None:
        """A write commits and is announced at an instance; `hold`: it moves on while that is under way."""
        self.run(self.written(name, what, hold))

    async def written(self, name: str, what: str, hold: bool) -> None:
        self.value += 1
        value, one = self.value, self.instances[name]
        everywhere: dict[str, dict[str, Any]] = {
            "key": {},
            "tag": {"tags": TAGS},
            "namespace": {"whole": True},
        }
        targets = everywhere[what]
        keys = (KEY,) if what == "key" else ()
        cells = list(self.cells.values())
        if not hold:
            await one.invalidate(*keys, **targets)
        else:
            for cell in cells:
                cell.hold["fence_many"] = asyncio.Event()
            writing = asyncio.create_task(one.invalidate(*keys, **targets))
            await asyncio.sleep(0.001)
            if self.taken[name] < len(self.documents) - 1:
                self.taken[name] += 1
                await self.moved(name)
            for cell in cells:
                cell.hold.pop("fence_many").set()
            await writing
        self.merged[name] = max(self.merged[name], value)

    @rule(
        reader=names,
        writer=names,
        what=st.sampled_from(("key", "tag", "namespace")),
        hold=st.booleans(),
        follows=st.booleans(),
        hearer=names,
        last=names,
        ms=st.sampled_from((500, 250, 20)),
    )
    def episode(
        self, reader: str, writer: str, what: str, hold: bool, follows: bool, hearer: str, last: str, ms: int
    ) -> None:
        """One has the next document, and reads; one writes, and perhaps takes it; all soon after another."""
        self.move_on()
        self.take_the_document(reader)
        self.run(asyncio.sleep(ms / 1000))
        self.read(reader, cold=True)
        self.write(writer, what, hold)
        if follows:
            self.take_the_document(writer)
        self.read(writer, cold=True)
        self.merge(hearer)
        self.read(last, cold=True)

    @rule(name=names)
    def merge(self, name: str) -> None:
        """An instance merges what its feed has."""
        self.run(hear(self.instances[name]))
        self.merged[name] = max(self.merged.values())

    @rule(name=names, cold=st.booleans())
    def read(self, name: str, cold: bool) -> None:
        self.run(self.found(name, cold))

    async def found(self, name: str, cold: bool) -> None:
        one = self.instances[name]
        if cold:
            one.l1.clear()
            self.far.l2.down = True
        try:
            value = await one.value(KEY)
        finally:
            self.far.l2.down = False
        assert value is not None
        assert int(value) >= self.merged[name], (
            f"{name} answers {value!r}, and has merged {self.merged[name]}"
        )


TestMoves = MovesMachine.TestCase
TestMoves.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
