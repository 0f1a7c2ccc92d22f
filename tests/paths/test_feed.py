"""Fences in from every region: what an instance does with them, with gaps, and while a queue is out of reach."""

import asyncio

import pytest

from cachesvc.model.change import Change
from cachesvc.model.clock import SECONDS
from cachesvc.model.errors import TierUnavailableError
from cachesvc.model.fence import Fence
from cachesvc.model.requests import Outcome, Reach
from tests.doubles.clocks import LoopClock
from tests.doubles.loaders import loaded
from tests.doubles.memory_queue import MemoryFenceStream, MemoryQueue
from tests.paths.running import Running, started, stop
from tests.paths.world import FarSide

pytestmark = pytest.mark.looptime


async def test_a_change_that_anyone_appends_reaches_every_instance() -> None:
    far = FarSide()
    one, two = await started(far, "one", "two")
    assert await one.paths.value("a") == await two.paths.value("a")
    far.loader.default = loaded(b"1")
    await one.paths.changes.append(Change("docs", keys=("a",)))
    await asyncio.sleep(0.5)
    assert [await one.paths.value("a"), await two.paths.value("a")] == [b"1", b"1"]
    assert one.tally.changes + two.tally.changes == 1
    assert not far.queue.changes
    await stop(one, two)


async def test_a_gap_raises_the_floor_of_every_tier() -> None:
    """L3 too: among the fences that were lost may be some that its home has not applied."""
    far = FarSide()
    (one,) = await started(far, "one")
    await one.paths.value("a")
    before = one.paths.fences.floor
    far.queue.trim_fences()
    await asyncio.sleep(2)
    assert one.heard.gaps == 1
    assert one.paths.fences.floor > before
    assert (await one.paths.get("a")).outcome is Outcome.LOADED
    await stop(one)


async def test_a_queue_that_was_down_at_the_start_is_read_when_it_answers() -> None:
    far = FarSide()
    one = Running(far, "one")
    one.paths.stream.down = one.paths.changes.down = True
    one.start()
    await asyncio.sleep(1)
    assert one.feed.tried
    assert not one.feed.is_open
    assert (await one.paths.get("a")).outcome is Outcome.LOADED, "reads go on"
    one.paths.stream.down = one.paths.changes.down = False
    await asyncio.sleep(2)
    assert one.feed.has_caught_up
    assert one.bound_us() < 1_500_000
    await stop(one)


async def test_an_instance_has_caught_up_once_everything_retained_at_its_start_is_merged() -> None:
    far = FarSide()
    (one,) = await started(far, "one")
    for number in range(50):
        await one.paths.changes.append(Change("docs", keys=(f"k{number}",)))
    await asyncio.sleep(1)
    late = Running(far, "late")
    late.start(consuming=False)
    assert not late.feed.has_caught_up
    await asyncio.sleep(0.5)
    assert late.feed.has_caught_up
    assert late.paths.fences.merged >= 50
    await stop(one, late)


async def test_positions_are_reported_once_a_second_and_when_somebody_waits() -> None:
    far = FarSide()
    one, two = await started(far, "one", "two")
    followers = await one.paths.stream.followers()
    assert sorted(follower.instance for follower in followers) == ["one", "two"]
    assert all(follower.silent_us <= 1_100_000 for follower in followers)
    await asyncio.sleep(0.1)
    for waits in (False, True):
        two.paths.stream.calls.clear()
        await one.paths.invalidate("a", wait=Reach.REGION if waits else Reach.NONE)
        await asyncio.sleep(0.05)
        assert ("report" in two.paths.stream.calls) is waits, (
            "if nobody waits, one of the next heartbeats is soon enough"
        )
    await stop(one, two)


async def test_lags_are_those_of_changes_that_came_while_it_listened() -> None:
    """Changes on the stream when an instance starts are history: merging them late is no lag."""
    far = FarSide()
    (one,) = await started(far, "one")
    await one.paths.invalidator.invalidate(Change("docs", keys=("a",)))
    await asyncio.sleep(3)
    (late,) = await started(far, "late")
    assert sum(late.paths.lags.merged.buckets) == 0
    await one.paths.changes.append(Change("docs", keys=("b",)))
    await asyncio.sleep(1)
    assert sum(late.paths.lags.merged.buckets) == 1
    assert late.paths.lags.merged.total < 1
    assert sum(one.paths.lags.published.buckets) + sum(late.paths.lags.published.buckets) == 2
    await stop(one, late)


async def test_a_change_that_waits_for_a_consumer_is_published_late() -> None:
    far = FarSide()
    one = Running(far, "one")
    await one.paths.changes.append(Change("docs", keys=("a",)))
    await asyncio.sleep(5)
    one.start()
    await asyncio.sleep(1)
    assert one.paths.lags.published.total == pytest.approx(5, abs=0.5)
    await stop(one)


async def test_a_feed_survives_an_answer_of_an_unknown_shape_and_a_fence_that_cannot_be_merged() -> None:
    """What was read and not merged is lost to this instance: it is a gap, or an old value would be answered."""
    far = FarSide()
    (one,) = await started(far, "one")
    assert await one.paths.value("a") == b"value of a"
    whole, one.feed._merger = one.feed._merger, BrokenMerger()  # type: ignore[assignment]
    two = Running(far, "two")
    two.start()
    await asyncio.sleep(2)
    far.loader.default = loaded(b"1")
    await two.paths.invalidate("a")
    await asyncio.sleep(1)
    one.feed._merger = whole
    await asyncio.sleep(2)
    assert one.feed.loop.failures == one.heard.failures == 1
    assert one.heard.gaps == 1
    assert await one.paths.value("a") == b"1"
    assert (one.feed.loop.trouble, one.bound_us() < 1_500_000) == ("", True)
    await stop(one, two)


class BrokenMerger:
    def merge(self, fences: object, **_: object) -> None:
        raise ZeroDivisionError("of a defect")


async def test_a_queue_without_heartbeats_is_looked_up_anew() -> None:
    """The consumers may be at another server of its name by now, and this one refuses nothing."""
    far = FarSide()
    one = Running(far, "one")
    one.start(consuming=False)
    await asyncio.sleep(12)
    assert one.paths.stream.calls.count("reconnect") == 2
    await stop(one)


async def test_a_queue_with_heartbeats_is_not() -> None:
    far = FarSide()
    (one,) = await started(far, "one")
    await asyncio.sleep(12)
    assert "reconnect" not in one.paths.stream.calls
    await stop(one)


async def test_an_instance_is_ready_at_another_queue_whose_ids_are_smaller() -> None:
    """It began at a server whose clock is an hour ahead: what was there is below the floor of the gap."""
    far = FarSide()
    far.queue = MemoryQueue(LoopClock(3600 * SECONDS))
    late = Running(far, "late")
    await late.paths.stream.publish([Fence(1, 1)])
    late.paths.stream.queue.read = _refuse
    late.start(consuming=False)
    await asyncio.sleep(1)
    assert late.feed.is_open
    assert not late.feed.has_caught_up
    late.paths.stream.queue = MemoryFenceStream(MemoryQueue(far.clock), "here")
    await asyncio.sleep(2)
    assert late.feed.has_caught_up
    await stop(late)


async def _refuse(**_: object) -> None:
    raise TierUnavailableError("queue", "down")
