"""Puts and invalidations at random, by clocks that are up to S apart.

No read is older than the write that was announced last.
"""

import asyncio
import random

import pytest

from cachesvc.model.change import Target
from cachesvc.model.fence import Fence
from cachesvc.model.requests import ReadOptions, Receipt
from tests.doubles.clocks import LoopClock
from tests.doubles.memory_cell import MemoryCell
from tests.doubles.tiers import ChaosCell
from tests.paths.world import SKEW_US, FarSide, Instance

pytestmark = pytest.mark.looptime

PAUSES = (0, 0.000_001, 0.000_5, 0.001, 0.05, 0.1, 0.15, 0.2, 0.201, 0.3)
WHOLE = Target.whole("aside").digest


class Storm:
    """Three instances and a home, each with a clock of its own, and one key.

    The values of the key are the numbers of its writes.
    """

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        far = FarSide()
        far.cell = ChaosCell(MemoryCell("c1", clock=self.clock(), skew_us=SKEW_US))
        self.instances = [Instance(far, clock=self.clock(), name=f"i{n}") for n in range(3)]
        self.written = 0

    def clock(self) -> LoopClock:
        return LoopClock(self.rng.choice((0, SKEW_US)))

    async def write(self) -> None:
        """A write commits and is announced; every instance has merged its fence."""
        self.written += 1
        by = self.rng.choice(self.instances)
        match self.rng.choice(("key", "tag", "namespace")):
            case "key":
                self.merge(await by.invalidate("k", ns="aside"))
            case "tag":
                self.merge(await by.invalidate(ns="aside", tags=["t"]))
            case _:
                self.merge(await by.invalidate(ns="aside", whole=True))

    def merge(self, receipt: Receipt) -> None:
        for instance in self.instances:
            instance.merger.merge(
                [
                    Fence(digest, at, namespace="aside" if digest == WHOLE else "")
                    for digest, at in receipt.token
                ]
            )

    def put(self) -> "asyncio.Task[ReadOptions]":
        """Puts the current value; the result is that of reads with the put's token."""
        return asyncio.create_task(self._put(b"%d" % self.written))

    async def _put(self, value: bytes) -> ReadOptions:
        written = await self.rng.choice(self.instances).put("k", value, tags=["t"])
        assert written.stored
        return ReadOptions(token=written.token)

    async def read(self, options: ReadOptions) -> set[int | None]:
        answers = [await instance.get("k", "aside", options) for instance in self.instances]
        return {None if answer.entry is None else int(answer.entry.value) for answer in answers}


@pytest.mark.parametrize("seed", range(15))
async def test_a_put_is_read_until_the_next_write_and_never_after_it(seed: int) -> None:
    storm = Storm(seed)
    for _ in range(20):
        await storm.write()
        await asyncio.sleep(storm.rng.choice(PAUSES))
        token = await storm.put()
        assert await storm.read(token) == {storm.written}
        await asyncio.sleep(storm.rng.choice(PAUSES))
        await storm.write()
        assert await storm.read(ReadOptions()) == {None}


@pytest.mark.parametrize("seed", range(15))
async def test_a_write_that_is_announced_while_a_put_waits_is_never_hidden_by_its_value(seed: int) -> None:
    storm = Storm(seed)
    for _ in range(20):
        await storm.write()
        await asyncio.sleep(storm.rng.choice(PAUSES))
        put = storm.put()
        await asyncio.sleep(storm.rng.choice(PAUSES[3:]))  # it is stored, or waits
        await storm.write()
        await put
        assert await storm.read(ReadOptions()) == {None}
