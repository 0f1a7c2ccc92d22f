"""An instance whose clock is an hour ahead: its values are fresh for their own time."""

import asyncio

import pytest

from cachesvc.model.clock import SECONDS
from tests.doubles.clocks import LoopClock
from tests.doubles.loaders import loaded
from tests.paths.world import FarSide, Instance

pytestmark = pytest.mark.looptime


async def test_a_value_that_it_loads_for_five_seconds_is_not_fresh_for_an_hour() -> None:
    far = FarSide()
    ahead, right = Instance(far, clock=LoopClock(skew_us=3600 * SECONDS)), Instance(far)
    far.loader.default = loaded(b"0", ttl_us=5 * SECONDS)
    assert await ahead.value("a") == b"0"
    far.loader.default = loaded(b"1", ttl_us=5 * SECONDS)
    await asyncio.sleep(7)
    await right.value("a")  # stale by now: answered once more, and refreshed
    await asyncio.sleep(0.1)
    assert await right.value("a") == b"1"
    assert ahead.fences.statistics().clamped >= 1


async def test_the_time_of_a_slow_load_is_no_wrong_clock() -> None:
    far = FarSide()
    one = Instance(far)
    far.loader.hold()
    reading = asyncio.create_task(one.get("a"))
    await asyncio.sleep(1.9)
    far.loader.release()
    answer = await reading
    assert answer.entry is not None
    assert one.fences.statistics().clamped == 0
