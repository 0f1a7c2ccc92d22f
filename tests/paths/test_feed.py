"""The two loops: fences in from every region, changes applied by whoever lives; and what an outage of either does."""

import asyncio

import pytest

from cachesvc.dialogue import Outcome
from cachesvc.feed import Consumer, FeedTally, FenceFeed
from cachesvc.model import Change, Key
from cachesvc.tasks import Tasks
from tests.doubles.loaders import loaded
from tests.paths.world import SKEW_US, FarSide, Instance

pytestmark = pytest.mark.looptime


class Running:
    """An instance with its loops."""

    def __init__(self, far: FarSide, name: str) -> None:
        self.paths = Instance(far)
        self.paths.fences.watermark = 0
        self.tally = FeedTally()
        self.tasks = Tasks()
        paths = self.paths
        self.feed = FenceFeed(paths.stream, paths.fences, paths.merger, paths.clock, SKEW_US, self.tally)
        self.consumer = Consumer(name, paths.changes, paths.stream, paths.applier, paths.merger, paths.clock, 0.5, self.tally)

    def start(self, *, consuming: bool = True) -> None:
        self.tasks.spawn(self.feed.run(), "feed")
        if consuming:
            self.tasks.spawn(self.consumer.run(), "consumer")
            self.tasks.spawn(self.consumer.run_heartbeats(), "heartbeats")
            self.tasks.spawn(self.consumer.run_reclaiming(), "open changes")


async def test_a_change_that_anyone_appends_reaches_every_instance() -> None:
    far = FarSide()
    one, two = Running(far, "one"), Running(far, "two")
    one.start()
    two.start()
    await asyncio.sleep(2)
    assert await one.paths.value("a") == await two.paths.value("a")
    far.loader.default = loaded(b"1")
    await one.paths.changes.append(Change("docs", keys=("a",)))
    await asyncio.sleep(0.5)
    assert [await one.paths.value("a"), await two.paths.value("a")] == [b"1", b"1"]
    assert one.tally.changes + two.tally.changes == 1
    assert not far.queue.changes
    await _stop(one, two)


async def test_an_invalidate_call_is_not_done_twice() -> None:
    far = FarSide()
    one, two = Running(far, "one"), Running(far, "two")
    one.start()
    two.start()
    await asyncio.sleep(2)
    await one.paths.invalidate("a")
    before = far.cell.count("fence_many")
    await asyncio.sleep(10)
    assert far.cell.count("fence_many") == before
    assert one.tally.changes + two.tally.changes == 0
    await _stop(one, two)


async def test_trace_6_a_call_that_dies_between_applying_and_publishing_is_done_again_by_the_group() -> None:
    far = FarSide()
    one, two = Running(far, "one"), Running(far, "two")
    one.start(consuming=False)
    two.start()
    await asyncio.sleep(2)
    assert await two.paths.value("a") == b"value of a"
    far.loader.default = loaded(b"1")
    far.cell.hold["fence_many"] = asyncio.Event()
    doomed = asyncio.create_task(one.paths.invalidate("a"))
    await asyncio.sleep(0.1)
    doomed.cancel()  # applied at home, never published
    far.cell.hold.clear()
    await asyncio.sleep(5)
    assert await two.paths.value("a") == b"1"
    assert two.tally.redone == 1
    assert not far.queue.changes
    await _stop(one, two)


async def test_what_a_dead_consumer_took_is_done_by_another() -> None:
    far = FarSide()
    one, two = Running(far, "one"), Running(far, "two")
    two.start(consuming=False)
    await asyncio.sleep(1)
    assert await two.paths.value("a") == b"value of a"
    far.loader.default = loaded(b"1")
    await one.paths.changes.append(Change("docs", keys=("a",)))
    assert len(await one.paths.changes.take("one", count=10, wait_seconds=0)) == 1  # and dies
    two.start()
    await asyncio.sleep(5)
    assert await two.paths.value("a") == b"1"
    await _stop(one, two)


async def test_a_malformed_event_is_buried_with_its_reason_and_blocks_nobody() -> None:
    far = FarSide()
    one = Running(far, "one")
    one.start()
    await asyncio.sleep(1)
    far.queue.append_event(b"not json")
    await one.paths.changes.append(Change("docs", keys=("a",)))
    await asyncio.sleep(1)
    assert one.tally.dead_letters == 1
    assert one.tally.changes == 1
    assert len(far.queue.dead) == 1
    await _stop(one)


async def test_with_the_home_down_the_fence_goes_out_at_once_and_the_change_is_applied_when_it_is_back() -> None:
    far = FarSide()
    one = Running(far, "one")
    one.start()
    await asyncio.sleep(2)
    await one.paths.value("a")
    far.cell.down = True
    far.loader.default = loaded(b"1")
    receipt = await one.paths.invalidate("a")
    assert not receipt.applied
    assert await one.paths.value("a") == b"1"
    await asyncio.sleep(10)
    assert len(far.queue.changes) == 1
    far.cell.down = False
    await asyncio.sleep(5)
    assert not far.queue.changes
    assert await one.paths.value("a") == b"1"
    await _stop(one)


async def test_a_home_that_stays_away_holds_up_neither_other_changes_nor_fences_its_keys_again_and_again() -> None:
    far = FarSide()
    one = Running(far, "one")
    one.start()
    await asyncio.sleep(2)
    far.other.down = True
    await one.paths.changes.append(Change("docs", keys=("{elsewhere}:a", "near")))
    await one.paths.changes.append(Change("docs", keys=("b",)))
    await asyncio.sleep(1)
    assert len(far.queue.changes) == 1, "the change of the other home is done"
    key = Key.of("docs", "{elsewhere}:a")
    fenced_at = one.paths.fences.fence_on(key.digest, (), "docs")
    await asyncio.sleep(10)
    assert one.paths.fences.fence_on(key.digest, (), "docs") == fenced_at
    await one.paths.value(key.text)
    assert (await one.paths.get(key.text)).tier == "l1", "and its keys can be cached meanwhile"
    far.other.down = False
    await asyncio.sleep(3)
    assert not far.queue.changes
    assert one.paths.fences.fence_on(key.digest, (), "docs") > fenced_at, "its home issues its own"
    await _stop(one)


async def test_trace_16_heartbeats_do_not_vouch_for_changes_that_nobody_has_done() -> None:
    far = FarSide()
    one = Running(far, "one")
    one.start()
    await asyncio.sleep(2)
    await one.paths.value("a")
    assert _bound(one) < 1_000_000
    one.paths.changes.queue.take = _never  # the consumer hangs; its heartbeats go on
    await asyncio.sleep(1)
    await one.paths.changes.append(Change("docs", keys=("a",)))
    await asyncio.sleep(5)
    assert _bound(one) > 3_000_000
    far.loader.default = loaded(b"1")
    assert await one.paths.value("a") == b"1", "max_lag bounds what the lost change may cost"
    await _stop(one)


async def test_a_gap_raises_the_floor() -> None:
    far = FarSide()
    one = Running(far, "one")
    one.start()
    await asyncio.sleep(2)
    await one.paths.value("a")
    before = one.paths.fences.floor
    far.queue.lose()
    await asyncio.sleep(2)
    assert one.tally.gaps >= 1
    assert one.paths.fences.floor > before
    answer = await one.paths.get("a")
    assert (answer.outcome, answer.tier) == (Outcome.HIT, "l3"), "L3 is judged at home and needs no floor"
    await _stop(one)


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
    assert one.feed.is_open
    assert _bound(one) < 1_500_000
    await _stop(one)


def _bound(running: Running) -> int:
    return running.paths.fences.bound_us(running.paths.clock.now_us())


async def _never(*_: object, **__: object) -> list[object]:
    await asyncio.Event().wait()
    return []


async def _stop(*running: Running) -> None:
    for one in running:
        await one.tasks.stop()
        await one.paths.tasks.stop()
