"""Traces of clocks that disagree: `at` and `as_of` come from different ones. S is 100 ms."""

import asyncio

import pytest

from cachesvc.model.change import Target
from cachesvc.model.clock import SECONDS
from cachesvc.model.entry import Key
from cachesvc.model.fence import Fence
from tests.doubles.clocks import LoopClock
from tests.doubles.memory_cell import MemoryCell
from tests.doubles.tiers import ChaosCell
from tests.paths.truth import Store, tell
from tests.paths.world import SKEW_US, FarSide, Instance

pytestmark = pytest.mark.looptime

A_DAY_US = 86_400_000_000


def far_side_with_a_home_on(clock: LoopClock) -> FarSide:
    far = FarSide()
    far.cell = ChaosCell(MemoryCell("c1", clock=clock, skew_us=SKEW_US))
    return far


async def test_trace_01_a_late_l1_fill_must_not_survive_a_promotion_to_a_slower_clock() -> None:
    far = far_side_with_a_home_on(LoopClock(skew_us=SKEW_US))
    store = Store(far)
    i0, i1 = Instance(far), Instance(far)
    lagging = far.cell.replica(LoopClock())
    await i0.invalidate("a")  # by the fast clock, + S: the lease of i1 comes 1 µs after that
    far.cell.hold["fill_many"] = asyncio.Event()
    early = asyncio.create_task(i1.get("a"))
    await asyncio.sleep(0.001)  # i1 has loaded 0 and filled L3; the answer to the fill is on its way
    store.commit()
    far.cell.promote(lagging)  # it has neither the first fence nor the fill, and its clock is S behind
    tell(i1, await i0.invalidate("a"))
    far.cell.hold.pop("fill_many").set()
    await early
    assert await i1.value("a") == b"1"


async def test_trace_02_a_copy_must_not_survive_a_restart_on_a_stepped_back_clock() -> None:
    clock = LoopClock(skew_us=SKEW_US)
    far = far_side_with_a_home_on(clock)
    store = Store(far)
    i0, i1 = Instance(far), Instance(far)
    await i0.invalidate("a")
    assert await i1.value("a") == b"0"  # with an `as_of` 2 S ahead of what the clock will say
    await asyncio.sleep(0.001)
    store.commit()
    clock.skew_us = 0
    far.cell.cell.lose()
    tell(i1, await i0.invalidate("a"))
    assert await i1.value("a") == b"1"


async def test_trace_14_a_home_on_a_slow_clock_must_not_issue_behind_a_fast_instance() -> None:
    far = FarSide()
    store = Store(far)
    fast, slow = Instance(far, clock=LoopClock(skew_us=SKEW_US)), Instance(far)
    far.cell.down = True
    assert await fast.value("a") == b"0"  # loaded without a home: `as_of` is the instance's own clock
    far.cell.down = False
    store.commit()
    receipt = await slow.invalidate("a")
    assert receipt.applied
    tell(fast, receipt)
    assert await fast.value("a") == b"1"


async def test_trace_14_a_slow_instance_without_a_home_must_not_issue_behind_a_fast_one() -> None:
    far = FarSide()
    store = Store(far)
    fast, slow = Instance(far, clock=LoopClock(skew_us=SKEW_US)), Instance(far)
    far.cell.down = True
    assert await fast.value("a") == b"0"
    store.commit()
    receipt = await slow.invalidate("a")
    assert not receipt.applied
    tell(fast, receipt)
    assert await fast.value("a") == b"1"


async def test_trace_14_a_copy_from_the_future_must_not_be_admitted() -> None:
    far = FarSide()
    store = Store(far)
    broken, i1 = Instance(far, clock=LoopClock(skew_us=10 * SKEW_US)), Instance(far)
    far.cell.down = True
    assert await broken.value("a") == b"0"  # and copied to L2, with an `as_of` that no fence reaches
    store.commit()
    far.l2.down = True  # the delete does not reach L2
    await i1.invalidate("a")
    far.l2.down = False
    assert await i1.value("a") == b"1"


async def test_trace_15_a_load_in_the_tick_of_its_fence_must_not_be_refused() -> None:
    far = FarSide()
    i0 = Instance(far)
    await i0.invalidate("a")
    await i0.get("a")
    assert (await i0.get("a")).tier == "l1"
    assert far.loader.loads("a") == 1


async def test_trace_24_a_fence_from_a_clock_a_day_ahead_must_not_stop_caching_for_a_day() -> None:
    far = FarSide()
    i0 = Instance(far)
    i0.merger.merge([Fence(Target.key("docs", "a").digest, far.clock.now_us() + A_DAY_US)])
    await asyncio.sleep(1)
    await i0.get("a")
    assert i0.l1.peek(Key.of("docs", "a")) is not None


async def test_trace_28_a_fence_cut_by_a_slow_clock_must_not_be_lost_when_the_clock_is_set_right() -> None:
    far = FarSide()
    store = Store(far)
    slow = LoopClock(skew_us=-20 * SECONDS)
    i0, i1 = Instance(far), Instance(far, clock=slow)
    assert await i0.value("a") == b"0"
    await asyncio.sleep(0.001)
    store.commit()
    far.l2.down = True  # the delete does not reach L2
    tell(i1, await i0.invalidate("a"))  # merged there as own clock + 4 S, which is 19.6 s too early
    far.l2.down = False
    slow.skew_us = 0
    beat(i1)
    assert await i1.value("a") == b"1"


async def test_trace_28_nor_while_the_clock_stays_behind_and_later_fences_are_cut_too() -> None:
    """To remember the latest of the cut times alone would be too little: it moves on with the clock."""
    far = FarSide()
    store = Store(far)
    i0, i1 = Instance(far), Instance(far, clock=LoopClock(skew_us=-20 * SECONDS))
    assert await i0.value("a") == b"0"
    await asyncio.sleep(0.001)
    store.commit()
    far.l2.down = True
    tell(i1, await i0.invalidate("a"))
    far.l2.down = False
    for number in range(42):
        await asyncio.sleep(0.5)
        tell(i1, await i0.invalidate(f"other-{number}"))
    assert await i1.value("a") == b"1"


async def test_trace_45_a_put_after_a_purge_must_not_outlive_the_next_one_of_a_slower_clock() -> None:
    far = FarSide()
    fast, slow = Instance(far, clock=LoopClock(skew_us=SKEW_US)), Instance(far)
    await fast.invalidate(ns="aside", whole=True)
    assert (await fast.put("a", b"0", tags=["t"])).stored
    assert await fast.value("a", "aside") == b"0"
    await asyncio.sleep(0.001)  # the write commits, and `slow` announces it
    tell(fast, await slow.invalidate(ns="aside", tags=["t"]))
    assert await slow.value("a", "aside") is None
    assert await fast.value("a", "aside") is None


async def test_trace_45_nor_the_one_of_a_slower_clock_that_comes_while_the_put_waits() -> None:
    far = FarSide()
    fast, slow = Instance(far, clock=LoopClock(skew_us=SKEW_US)), Instance(far)
    await fast.invalidate(ns="aside", whole=True)
    writing = asyncio.create_task(fast.put("a", b"0", tags=["t"]))
    await asyncio.sleep(0.001)  # the write commits, and `slow` announces it
    tell(fast, await slow.invalidate(ns="aside", tags=["t"]))
    await writing
    assert await slow.value("a", "aside") is None
    assert await fast.value("a", "aside") is None


async def test_trace_46_a_put_that_waited_must_not_outlive_the_fence_of_the_tick_of_its_fill() -> None:
    far = FarSide()
    i0, i1 = Instance(far), Instance(far)
    await i0.invalidate(ns="aside", whole=True)
    assert (await i0.put("a", b"0")).stored
    tell(i0, await i1.invalidate("a", ns="aside"))  # the write has committed; no clock has moved
    assert await i0.value("a", "aside") is None


def beat(instance: Instance) -> None:
    """The heartbeat of each region that comes next, after at most half a second."""
    for region in instance.fences.watermarks:
        instance.fences.heartbeat(region, instance.clock.now_us())
