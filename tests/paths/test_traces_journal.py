"""Traces of a queue that is away, and of the journal that stands in for it meanwhile."""

import asyncio

import pytest

from cachesvc.model.requests import Reach
from tests.doubles.memory_journal import MemoryDisk
from tests.paths.living import IN_TIME, living
from tests.paths.running import Running
from tests.paths.truth import Store
from tests.paths.world import FarSide

pytestmark = pytest.mark.looptime


def cut_off(one: Running, *, is_away: bool = True) -> None:
    """Puts the queue out of this instance's reach, or back into it."""
    one.paths.stream.down = one.paths.changes.down = is_away


async def test_trace_72_a_process_that_dies_after_it_has_applied_must_have_said_so_before() -> None:
    far, disk = FarSide(), MemoryDisk()
    store = Store(far)
    async with living(far, "i1") as i1:
        await asyncio.sleep(2)
        assert await i1.paths.value("a") == b"0"
        i1.paths.fences.watermark = IN_TIME
        async with living(far, "i0", disk=disk, deaf=True) as i0:
            apply = i0.paths.applier.apply
            has_applied = asyncio.Event()

            async def dies(changes: object) -> object:
                await apply(changes)  # type: ignore[arg-type]
                has_applied.set()
                return await asyncio.Event().wait()

            i0.paths.applier.apply = dies  # type: ignore[method-assign, assignment]  # for this trace
            store.commit()
            call = asyncio.create_task(i0.paths.invalidate("a"))
            await has_applied.wait()
            await i0.stop()
            call.cancel()
        async with living(far, "i0", disk=disk):
            await asyncio.sleep(3)
            assert await i1.paths.value("a") == b"1"


async def test_trace_73_an_instance_must_honour_after_a_restart_what_it_has_not_announced() -> None:
    far, disk = FarSide(), MemoryDisk()
    store = Store(far, tags=("t",))
    async with living(far, "i0", disk=disk) as i0:
        await asyncio.sleep(2)
        assert await i0.paths.value("a") == b"0"
        await asyncio.sleep(1)
        cut_off(i0)
        store.commit()
        assert not (await i0.paths.invalidate(tags=["t"])).announced
    async with living(far, "i0", disk=disk, deaf=True) as i0:
        i0.paths.fences.watermark = IN_TIME
        assert await i0.paths.value("a") == b"1"


async def test_trace_74_instances_that_reach_the_queue_must_not_think_themselves_in_time() -> None:
    """i0 alone is cut off. Nobody else knows of the change, whether i0 lives on or dies."""
    far, disk = FarSide(), MemoryDisk()
    store = Store(far)
    async with living(far, "i1", disk=MemoryDisk()) as i1:
        async with living(far, "i0", disk=disk) as i0:
            await asyncio.sleep(2)
            assert await i1.paths.value("a") == b"0"
            cut_off(i0)
            store.commit()
            assert not (await i0.paths.invalidate("a")).announced
            await asyncio.sleep(5)
            assert i1.bound_us() > 2_000_000
            assert await i1.paths.value("a") == b"1"
        store.value = b"2"
        await asyncio.sleep(60)
        assert i1.bound_us() > 60_000_000
        assert "journal" in i1.loops.rivals.said


async def test_trace_74_a_wait_or_a_token_must_not_say_that_others_have_merged_it() -> None:
    far, disk = FarSide(), MemoryDisk()
    store = Store(far)
    async with living(far, "i1") as i1, living(far, "i0", disk=disk) as i0:
        await asyncio.sleep(2)
        assert await i1.paths.value("a") == b"0"
        cut_off(i0)
        store.commit()
        receipt = await i0.paths.invalidate("a", wait=Reach.GLOBAL)
        assert (receipt.reached, receipt.missing) == (False, ("queue of here",))
        await asyncio.sleep(5)
        assert i1.bound_us() > 2_000_000


async def test_trace_75_what_cannot_be_read_of_a_journal_must_not_be_left_out() -> None:
    far, disk = FarSide(), MemoryDisk()
    store, before = Store(far), len(disk.data)
    async with living(far, "i1") as i1:
        await asyncio.sleep(2)
        assert await i1.paths.value("a") == b"0"
        async with living(far, "i0", disk=disk, deaf=True) as i0:
            store.commit()
            assert not (await i0.paths.invalidate("a")).announced
        disk.data = disk.data[:before] + bytes(len(disk.data) - before)
        async with living(far, "i0", disk=disk):
            await asyncio.sleep(2)
            assert await i1.paths.value("a") == b"1"


async def test_trace_76_what_is_announced_late_must_not_refuse_what_was_loaded_since() -> None:
    far, disk = FarSide(), MemoryDisk()
    store = Store(far, tags=("t",))
    async with living(far, "i0", disk=disk) as i0:
        await asyncio.sleep(2)
        cut_off(i0)
        store.commit()
        await i0.paths.invalidate(tags=["t"])
        await asyncio.sleep(1)
        loads = len(far.loader.calls)
        assert await i0.paths.value("a") == b"1"
        cut_off(i0, is_away=False)
        await asyncio.sleep(5)
        assert not i0.paths.journal
        assert await i0.paths.value("a") == b"1"
        assert len(far.loader.calls) == loads + 1
