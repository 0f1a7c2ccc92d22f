"""Traces of fences that were published and never read: trimmed, lost with the queue, from before an instance began."""

import asyncio

import pytest
from msgspec.structs import replace

from cachesvc.model.change import Change, Target
from cachesvc.model.fence import Fence
from cachesvc.tiers.l3.contract import FenceReply
from tests.doubles.clocks import LoopClock
from tests.doubles.loaders import loaded
from tests.doubles.memory_cell import MemoryCell
from tests.doubles.tiers import ChaosCell
from tests.paths.living import IN_TIME, living
from tests.paths.truth import Store
from tests.paths.world import SKEW_US, FarSide, Instance

pytestmark = pytest.mark.looptime


async def test_trace_09_a_gap_must_not_leave_what_a_clock_that_is_ahead_has_dated() -> None:
    far = FarSide()
    far.cell = ChaosCell(MemoryCell("c1", clock=LoopClock(skew_us=SKEW_US), skew_us=SKEW_US))
    store = Store(far)
    async with living(far, "i1") as i1:
        await asyncio.sleep(2)
        assert await i1.paths.value("a") == b"0"  # `as_of` is S ahead of its own clock
        store.commit()
        await Instance(far).invalidate("a")
        far.queue.trim_fences()  # before i1 has read it
        await asyncio.sleep(0.01)
        assert i1.heard.gaps == 1
        assert await i1.paths.value("a") == b"1"


async def test_trace_09_a_reader_must_not_join_a_load_from_before_a_gap() -> None:
    far = FarSide()
    store = Store(far)
    async with living(far, "i1") as i1:
        await asyncio.sleep(2)
        far.loader.hold()
        far.loader.script("a", loaded(b"0"))
        read_0 = asyncio.create_task(i1.paths.get("a"))
        await far.loader.called()
        store.commit()
        await Instance(far).invalidate("a")
        far.queue.trim_fences()  # the fence that would have told i1 to forget the flight
        await asyncio.sleep(0.5)
        assert i1.heard.gaps == 1
        read_1 = asyncio.create_task(i1.paths.value("a"))
        await asyncio.sleep(0.01)
        far.loader.release()
        await read_0
        assert await read_1 == b"1"


async def test_trace_54_an_item_that_cannot_be_read_must_not_be_passed_in_silence() -> None:
    far = FarSide()
    store = Store(far)
    async with living(far, "i1") as i1:
        await asyncio.sleep(2)
        assert await i1.paths.value("a") == b"0"
        store.commit()
        await Instance(far).invalidate("a")
        item = far.queue.fences[-1]  # before i1 has read it
        far.queue.fences[-1] = replace(item, fields={**item.fields, b"p": item.fields[b"p"][:-1]})
        await asyncio.sleep(0.5)  # heartbeats go on
        assert (i1.heard.gaps, i1.heard.unreadable) == (1, 1)
        assert await i1.paths.value("a") == b"1"


async def test_trace_10_a_late_published_fence_must_not_lower_the_floor_of_a_new_instance() -> None:
    far = FarSide()
    store = Store(far)
    i0, i1 = Instance(far), Instance(far)
    stalled = Target.key("docs", "b")
    (small,) = await far.cell.cell.fence_many([stalled], soft=False)
    assert isinstance(small, FenceReply)
    await asyncio.sleep(1)  # its applier stalls here
    assert await i1.value("a") == b"0"
    await asyncio.sleep(1)
    far.l2.down = True
    store.commit()
    await i0.invalidate("a")
    far.l2.down = False
    await i0.stream.publish([Fence(stalled.digest, small.at)])
    far.queue.trim_fences(keep=1)  # the fence of a is gone; a smaller `at` is what is left
    async with living(far, "i2", consuming=False) as i2:
        await asyncio.sleep(0.01)
        i2.paths.fences.watermark = IN_TIME
        assert await i2.paths.value("a") == b"1"


async def test_trace_10_the_floor_of_a_new_instance_must_not_be_behind_a_clock_that_is_ahead() -> None:
    far = FarSide()
    far.cell = ChaosCell(MemoryCell("c1", clock=LoopClock(skew_us=SKEW_US), skew_us=SKEW_US))
    store = Store(far)
    i0 = Instance(far)
    assert await i0.value("a") == b"0"  # copied to L2, S ahead of the queue's clock
    far.l2.down = True
    store.commit()
    await i0.invalidate("a")
    far.l2.down = False
    await i0.stream.heartbeat(0, far.queue.epoch_of_changes)
    far.queue.trim_fences(keep=1)
    async with living(far, "i2", consuming=False) as i2:
        await asyncio.sleep(0.01)
        i2.paths.fences.watermark = IN_TIME
        assert await i2.paths.value("a") == b"1"


async def test_trace_11_an_empty_stream_must_not_let_a_new_instance_believe_what_it_finds() -> None:
    far = FarSide()
    await _with_an_old_copy_in_l2(far)
    far.queue.trim_fences()
    async with living(far, "i2", consuming=False) as i2:
        await asyncio.sleep(0.01)
        i2.paths.fences.watermark = IN_TIME
        assert await i2.paths.value("a") == b"1"


async def test_trace_11_a_stream_that_cannot_be_read_must_not_let_a_new_instance_believe_what_it_finds() -> (
    None
):
    far = FarSide()
    await _with_an_old_copy_in_l2(far)
    async with living(far, "i2", deaf=True) as i2:
        await asyncio.sleep(0.01)
        assert await i2.paths.value("a") == b"1"


async def test_trace_12_l3_must_not_be_exempt_from_the_floor_of_a_gap_after_a_promotion() -> None:
    far = FarSide()
    async with living(far, "i1") as i1:
        await asyncio.sleep(2)
        await _with_a_fence_that_the_home_has_lost(far, i1.paths)
        await asyncio.sleep(0.3)
        assert i1.heard.gaps == 1
        assert await i1.paths.value("a") == b"1"


async def test_trace_12_l3_must_not_be_exempt_from_the_floor_of_a_start_after_a_promotion() -> None:
    far = FarSide()
    await _with_a_fence_that_the_home_has_lost(far, Instance(far))
    async with living(far, "i2", consuming=False) as i2:
        await asyncio.sleep(0.3)
        i2.paths.fences.watermark = IN_TIME
        assert await i2.paths.value("a") == b"1"


async def test_trace_25_a_reader_must_not_miss_the_tail_that_the_queue_lost() -> None:
    far = FarSide()
    store = Store(far)
    async with living(far, "i1", consuming=False) as i1:
        await asyncio.sleep(2)
        i1.paths.fences.watermark = IN_TIME
        assert await i1.paths.value("a") == b"0"
        store.commit()
        await Instance(far).invalidate("a")
        far.queue.fences.pop()  # the replica that takes over has not got it, and all that i1 has read
        far.queue.epoch += 1
        await asyncio.sleep(1)
        assert await i1.paths.value("a") == b"1"


async def test_trace_25_an_accepted_change_must_not_be_lost_in_silence_with_the_queues_tail() -> None:
    far = FarSide()
    store = Store(far)
    async with living(far, "i1") as i1:
        await asyncio.sleep(2)
        assert await i1.paths.value("a") == b"0"
        store.commit()
        lost_at = far.clock.now_us()
        await i1.paths.changes.append(Change("docs", keys=("a",)))
        far.queue.changes.clear()
        far.queue.epoch += 1
        await asyncio.sleep(2)
        assert await i1.paths.value("a") == b"1"
        assert i1.paths.fences.fence_on(0, (), "docs") > lost_at, "whoever reads this region's fences is told"


async def _with_an_old_copy_in_l2(far: FarSide) -> None:
    """0, loaded over ten seconds ago; the delete did not reach the server, and the fence was trimmed since."""
    store = Store(far)
    i0 = Instance(far)
    assert await i0.value("a") == b"0"
    await asyncio.sleep(1)
    far.l2.down = True
    store.commit()
    await i0.invalidate("a")
    far.l2.down = False
    await asyncio.sleep(10)


async def _with_a_fence_that_the_home_has_lost(far: FarSide, i1: Instance) -> None:
    """0 in L3; a write, whose fence is trimmed from the stream, and from the home, which failed over to a replica without it."""
    store = Store(far)
    assert await i1.value("a") == b"0"
    lagging = far.cell.replica(far.clock)
    store.commit()
    await Instance(far).invalidate("a")
    far.queue.trim_fences()
    far.cell.promote(lagging)
