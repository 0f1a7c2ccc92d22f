"""Which calls wait for something other than this process: they are no load of it."""

import asyncio

import pytest

from cachesvc.model.entry import Key
from cachesvc.model.requests import ReadOptions
from cachesvc.paths.flight import LONG_LOAD_SECONDS
from tests.paths.world import FarSide, Instance

pytestmark = pytest.mark.looptime
CALLERS = 300


async def test_callers_that_wait_for_one_slow_lease_of_another_instance() -> None:
    far = FarSide()
    holder, instance = Instance(far, name="i1"), Instance(far)
    asked = ReadOptions(lease=True, wait_seconds=10)
    assert (await holder.get("a", "aside", asked)).lease
    waiting = [asyncio.create_task(instance.get("a", "aside", asked)) for _ in range(CALLERS)]
    await asyncio.sleep(1)
    assert instance.reader.waiting_elsewhere() >= CALLERS - 1
    for caller in waiting:
        caller.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert instance.reader.waiting_elsewhere() == 0


async def test_callers_that_joined_a_load_and_all_of_one_that_takes_long() -> None:
    far = FarSide()
    instance = Instance(far)
    far.loader.hold()
    waiting = [asyncio.create_task(instance.get("a")) for _ in range(CALLERS)]
    await asyncio.sleep(LONG_LOAD_SECONDS / 2)
    assert instance.reader.waiting_elsewhere() == CALLERS - 1, "one of them is this load"
    await asyncio.sleep(LONG_LOAD_SECONDS)
    assert instance.reader.waiting_elsewhere() == CALLERS
    far.loader.release()
    await asyncio.gather(*waiting)
    assert instance.reader.waiting_elsewhere() == 0
    assert len(instance.flights) == 0


async def test_loads_of_different_keys_count_until_they_take_long() -> None:
    far = FarSide()
    instance = Instance(far)
    far.loader.hold()
    waiting = [asyncio.create_task(instance.get(f"k{number}")) for number in range(CALLERS)]
    await asyncio.sleep(LONG_LOAD_SECONDS / 2)
    assert instance.reader.waiting_elsewhere() == 0
    await asyncio.sleep(LONG_LOAD_SECONDS)
    instance.flights.forget([Key.of("docs", "k0").digest])
    assert instance.reader.waiting_elsewhere() == CALLERS, "a forgotten flight still waits"
    far.loader.release()
    await asyncio.gather(*waiting)


async def test_puts_that_wait_for_the_time_of_their_values() -> None:
    instance = Instance()
    await instance.invalidate(ns="aside", whole=True)
    waiting = [asyncio.create_task(instance.put(f"k{number}", b"v")) for number in range(CALLERS)]
    await asyncio.sleep(0.01)
    assert instance.writer.waiting_elsewhere() == CALLERS
    waiting[0].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert instance.writer.waiting_elsewhere() == 0
