"""A queue whose clock is wrong, and is set right: bound and readiness stay true."""

import asyncio
from collections.abc import Sequence

import pytest

from cachesvc.model.clock import SECONDS
from tests.doubles.clocks import LoopClock
from tests.paths.running import Running, started, stop
from tests.paths.world import SKEW_US, FarSide

pytestmark = pytest.mark.looptime


def far_side_with_a_queue_on(clock: LoopClock) -> FarSide:
    far = FarSide()
    far.queue.clock = clock
    return far


async def nothing(*_: object, **__: object) -> Sequence[object]:
    return []


async def test_a_clock_that_is_ahead_and_set_back_does_not_hide_an_open_change() -> None:
    """With 60 s ahead, then corrected, a change was stuck for 62 s while the bound read 0.5 s."""
    clock = LoopClock(skew_us=60 * SECONDS)
    far = far_side_with_a_queue_on(clock)
    (one,) = await started(far, "one")
    assert one.bound_us() < SECONDS
    one.paths.changes.queue.reclaim = nothing
    far.queue.changes[far.queue.next_position()] = {b"event": b"{}"}  # taken by nobody
    far.queue.delivered = (1 << 60, 0)
    await asyncio.sleep(10)
    assert one.bound_us() > 9 * SECONDS
    clock.skew_us = 0
    await asyncio.sleep(5)
    assert one.bound_us() > 14 * SECONDS
    far.queue.changes.clear()
    await asyncio.sleep(2)
    assert one.bound_us() < SECONDS
    await stop(one)


async def test_a_consumer_that_began_after_the_clock_was_set_back_does_not_hide_it_either() -> None:
    clock = LoopClock(skew_us=60 * SECONDS)
    far = far_side_with_a_queue_on(clock)
    far.queue.changes[far.queue.next_position()] = {b"event": b"{}"}
    far.queue.delivered = (1 << 60, 0)
    clock.skew_us = 0
    one, two = Running(far, "one"), Running(far, "two")
    for each in (one, two):
        each.paths.changes.queue.reclaim = nothing
    one.start()
    await asyncio.sleep(10)
    two.start()
    await asyncio.sleep(10)
    assert one.bound_us() > 18 * SECONDS
    assert two.bound_us() > 18 * SECONDS
    await stop(one, two)


async def test_a_clock_that_is_behind_makes_the_bound_larger_never_smaller() -> None:
    far = far_side_with_a_queue_on(LoopClock(skew_us=-10 * SECONDS))
    (one,) = await started(far, "one")
    assert 10 * SECONDS <= one.bound_us() < 11 * SECONDS
    await stop(one)


async def test_a_queue_that_was_two_hours_ahead_keeps_no_new_instance_unready() -> None:
    clock = LoopClock(skew_us=7200 * SECONDS)
    far = far_side_with_a_queue_on(clock)
    (one,) = await started(far, "one")
    clock.skew_us = 0
    late = Running(far, "late")
    late.start()
    await asyncio.sleep(1)
    assert late.feed.has_caught_up
    assert late.paths.clock.now_us() > late.paths.fences.floor > late.paths.clock.now_us() - 2 * SECONDS
    assert late.paths.fences.statistics().clamped >= 1
    assert (await late.paths.get("a")).entry is not None
    await stop(one, late)


async def test_an_instance_whose_own_clock_was_behind_raises_its_first_floor_when_that_is_set_right() -> None:
    far = FarSide()
    (one,) = await started(far, "one")
    await asyncio.sleep(30)
    late = Running(far, "late")
    late.paths.clock = slow = LoopClock(skew_us=-40 * SECONDS)
    late.paths.fences._clock = slow
    published = far.clock.now_us() - 33 * SECONDS
    late.start(consuming=False)
    await asyncio.sleep(1)
    assert late.paths.fences.floor < published
    slow.skew_us = 0
    await asyncio.sleep(1)
    assert late.paths.fences.floor > published + 3 * SKEW_US - SECONDS
    await stop(one, late)
