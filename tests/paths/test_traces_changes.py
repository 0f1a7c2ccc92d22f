"""Traces of changes that were accepted and that nobody has done yet."""

import asyncio

import pytest

from cachesvc.changes.consume import WAIT_SECONDS
from cachesvc.model.change import Change
from tests.doubles.loaders import loaded
from tests.doubles.memory_queue import MemoryChanges
from tests.paths.living import hang, living
from tests.paths.running import Running
from tests.paths.truth import Store
from tests.paths.world import FarSide

pytestmark = pytest.mark.looptime


async def test_trace_06_a_handler_that_dies_after_applying_must_not_leave_the_others_untold() -> None:
    far = FarSide()
    store = Store(far)
    async with living(far, "i0", consuming=False) as i0, living(far, "i1") as i1:
        await asyncio.sleep(2)
        assert await i1.paths.value("a") == b"0"
        store.commit()
        far.cell.hold["fence_many"] = asyncio.Event()
        doomed = asyncio.create_task(i0.paths.invalidate("a"))
        await asyncio.sleep(0.1)
        doomed.cancel()  # applied at home, never published
        far.cell.hold.clear()
        await asyncio.sleep(5)
        assert await i1.paths.value("a") == b"1"
        assert i1.tally.redone == 1
        assert not far.queue.changes


async def test_trace_16_heartbeats_must_not_vouch_for_changes_that_nobody_has_done() -> None:
    far = FarSide()
    store = Store(far)
    async with living(far, "i1") as i1:
        await asyncio.sleep(2)
        assert await i1.paths.value("a") == b"0"
        assert i1.bound_us() < 1_000_000
        i1.paths.changes.queue.take = hang
        await asyncio.sleep(WAIT_SECONDS + 0.5)  # a call that waits already is over
        store.commit()
        await i1.paths.changes.append(Change("docs", keys=("a",)))
        await asyncio.sleep(5)
        assert i1.bound_us() > 3_000_000
        assert await i1.paths.value("a") == b"1"


async def test_trace_17_l1_must_not_answer_beyond_max_lag_while_changes_are_not_done() -> None:
    far = FarSide()
    async with living(far, "i1") as i1:
        await _with_a_change_that_nobody_does(far, i1)
        assert await i1.paths.value("a") == b"1"


async def test_trace_17_l2_must_not_answer_beyond_max_lag_while_changes_are_not_done() -> None:
    far = FarSide()
    async with living(far, "i1") as i1, living(far, "i2", consuming=False) as i2:
        await _with_a_change_that_nobody_does(far, i1)
        assert await i2.paths.value("a") == b"1"


async def test_trace_17_l3_must_not_answer_beyond_max_lag_while_changes_are_not_done() -> None:
    far = FarSide()
    async with living(far, "i1") as i1, living(far, "i2", consuming=False) as i2:
        await _with_a_change_that_nobody_does(far, i1)
        far.l2.down = True
        assert await i2.paths.value("a") == b"1"


async def test_trace_17_a_running_load_must_not_answer_readers_that_came_beyond_max_lag() -> None:
    far = FarSide()
    store = Store(far)
    async with living(far, "i1") as i1:
        await asyncio.sleep(2)
        i1.paths.changes.queue.take = hang
        await asyncio.sleep(WAIT_SECONDS + 0.5)  # a call that waits already is over
        await i1.paths.changes.append(Change("slow", keys=("b",)))
        await asyncio.sleep(5)
        far.loader.hold()
        far.loader.script("a", loaded(b"0"))
        read_0 = asyncio.create_task(i1.paths.get("a", "slow"))
        await far.loader.called()
        store.commit()
        await i1.paths.changes.append(Change("slow", keys=("a",)))
        await asyncio.sleep(5)
        read_1 = asyncio.create_task(i1.paths.value("a", "slow"))
        await asyncio.sleep(0.01)
        far.loader.release()
        await read_0
        assert await read_1 == b"1"


async def test_trace_40_a_change_that_was_trimmed_must_not_vanish_unnoticed() -> None:
    """By a producer's XADD with MAXLEN: nobody has done it, and nobody can."""
    far = FarSide()
    async with living(far, "i1") as i1:
        await _before_a_change(far, i1)
        await i1.paths.changes.append(Change("docs", keys=("a",)))
        far.queue.trim_changes(keep=0)
        await asyncio.sleep(5)
        assert await i1.paths.value("a") == b"1"
        assert i1.bound_us() < 1_000_000
        assert i1.tally.lost == 1


async def test_trace_40_a_change_that_its_group_forgot_must_not_vanish_unnoticed() -> None:
    """By XGROUP DELCONSUMER: it is neither pending nor undelivered, and nobody is to get it."""
    far = FarSide()
    async with living(far, "i1") as i1:
        await _before_a_change(far, i1)
        await i1.paths.changes.append(Change("docs", keys=("a",)))
        await MemoryChanges(far.queue).take("i2", count=10, wait_seconds=0)
        far.queue.delete_consumer("i2")
        await asyncio.sleep(5)
        assert await i1.paths.value("a") == b"1"
        assert not far.queue.changes


async def test_trace_83_heartbeats_must_not_keep_a_consumer_from_looking_for_what_is_open() -> None:
    far = FarSide()
    store = Store(far)
    async with living(far, "i0") as i0:
        await asyncio.sleep(0.05)  # so that the turns of i1 come after its heartbeats
        async with living(far, "i1") as i1:
            await asyncio.sleep(2)
            assert await i1.paths.value("a") == b"0"
            i0.paths.changes.queue.reclaim = hang
            store.commit()
            await i0.paths.changes.append(Change("docs", keys=("a",)))
            assert await i0.paths.changes.take("i0", count=1, wait_seconds=0), "and hangs on it"
            await asyncio.sleep(4)
            assert not far.queue.changes
            assert await i1.paths.value("a") == b"1"
            assert i1.tally.changes == 1


async def _before_a_change(far: FarSide, i1: Running) -> None:
    """0 in every tier, and a write; the consumer takes nothing."""
    store = Store(far)
    await asyncio.sleep(2)
    assert await i1.paths.value("a") == b"0"
    i1.paths.changes.queue.take = hang
    await asyncio.sleep(WAIT_SECONDS + 0.5)  # a call that waits already is over
    store.commit()


async def _with_a_change_that_nobody_does(far: FarSide, i1: Running) -> None:
    """0 in every tier, a write and its change; the only consumer hangs, for longer than `max_lag`."""
    store = Store(far)
    await asyncio.sleep(2)
    assert await i1.paths.value("a") == b"0"
    i1.paths.changes.queue.take = hang
    await asyncio.sleep(WAIT_SECONDS + 0.5)  # a call that waits already is over
    store.commit()
    await i1.paths.changes.append(Change("docs", keys=("a",)))
    await asyncio.sleep(5)
