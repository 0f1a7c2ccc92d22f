"""Changes applied by whoever lives; and what an outage of a home or of the queue does."""

import asyncio
from typing import Any

import pytest

from cachesvc.changes.consume import DEPARTED_SECONDS, FORGET_SECONDS, WAIT_SECONDS
from cachesvc.changes.contract import OpenChange
from cachesvc.changes.events.cloudevents import encode
from cachesvc.model.change import Change
from cachesvc.model.entry import Key
from cachesvc.model.errors import TierTimeoutError
from tests.doubles.loaders import loaded
from tests.paths.living import hang
from tests.paths.running import Running, started, stop
from tests.paths.world import FarSide

pytestmark = pytest.mark.looptime


async def test_an_invalidate_call_is_not_done_twice() -> None:
    far = FarSide()
    one, two = await started(far, "one", "two")
    await one.paths.invalidate("a")
    before = far.cell.count("fence_many")
    await asyncio.sleep(10)
    assert far.cell.count("fence_many") == before
    assert one.tally.changes + two.tally.changes == 0
    await stop(one, two)


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
    await stop(one, two)


async def test_a_malformed_event_is_buried_with_its_reason_and_blocks_nobody() -> None:
    far = FarSide()
    (one,) = await started(far, "one")
    far.queue.append_event(b"not json")
    await one.paths.changes.append(Change("docs", keys=("a",)))
    await asyncio.sleep(2)
    assert (one.tally.dead_letters, one.tally.buried) == (1, 1)
    assert one.tally.changes == 1
    assert len(far.queue.dead) == 1
    await stop(one)


async def test_with_the_home_down_the_fence_goes_out_at_once_and_the_change_is_applied_when_it_is_back() -> (
    None
):
    far = FarSide()
    (one,) = await started(far, "one")
    await one.paths.value("a")
    far.cell.down = True
    far.loader.default = loaded(b"1")
    receipt = await one.paths.invalidate("a")
    assert not receipt.applied
    assert await one.paths.value("a") == b"1"
    await asyncio.sleep(10)
    assert one.tally.waiting == 1
    assert one.bound_us() < 1_500_000, "the change is parked: it holds up nobody's bound"
    state = await one.paths.receipts.state(receipt.id)
    assert state is not None
    assert (state.state, state.missed) == ("parked", ("c1",))
    far.cell.down = False
    await asyncio.sleep(5)
    assert one.tally.waiting == 0
    state = await one.paths.receipts.state(receipt.id)
    assert state is not None
    assert (state.state, state.cells, state.missed) == ("done", ("c1",), ())
    assert await one.paths.value("a") == b"1"
    await stop(one)


async def test_a_home_that_stays_away_holds_up_neither_other_changes_nor_fences_its_keys_again_and_again() -> (
    None
):
    far = FarSide()
    (one,) = await started(far, "one")
    far.other.down = True
    await one.paths.changes.append(Change("docs", keys=("{elsewhere}:a", "near")))
    await one.paths.changes.append(Change("docs", keys=("b",)))
    await asyncio.sleep(1.5)
    assert not far.queue.changes
    assert one.tally.waiting == 1, "the change of the other home is done"
    key = Key.of("docs", "{elsewhere}:a")
    fenced_at = one.paths.fences.fence_on(key.digest, (), "docs")
    await asyncio.sleep(10)
    assert one.paths.fences.fence_on(key.digest, (), "docs") == fenced_at
    await one.paths.value(key.text)
    assert (await one.paths.get(key.text)).tier == "l1", "and its keys can be cached meanwhile"
    far.other.down = False
    await asyncio.sleep(3)
    assert one.tally.waiting == 0
    assert one.paths.fences.fence_on(key.digest, (), "docs") == fenced_at
    assert (await far.other.inspect(key, [])).fence_at > fenced_at, "its home issues its own"
    assert not one.paths.fences.exact_fence_on(key.digest, (), "docs"), "and is trusted again"
    await stop(one)


async def test_a_stream_of_changes_that_is_another_one_fences_every_namespace_and_not_again() -> None:
    """A change may have been accepted and lost with the old stream: nothing cached before can be vouched for, L3 included."""
    far = FarSide()
    one, two = await started(far, "one", "two")
    await one.paths.value("a")
    far.loader.default = loaded(b"1")
    epochs = one.tally.epochs + two.tally.epochs
    far.queue.lose()
    await asyncio.sleep(2)
    assert await one.paths.value("a") == await two.paths.value("a") == b"1"
    assert one.tally.epochs + two.tally.epochs in (epochs + 1, epochs + 2), (
        "by one of them, or by both in the same moment"
    )
    fenced = one.paths.fences.fence_on(0, (), "docs")
    await asyncio.sleep(5)
    assert one.paths.fences.fence_on(0, (), "docs") == fenced
    await stop(one, two)


async def test_an_event_that_says_nothing_changed_is_skipped_and_closed() -> None:
    far = FarSide()
    (one,) = await started(far, "one")
    take = one.paths.changes.queue.take

    async def take_as_nothing(*arguments: Any, **options: Any) -> list[OpenChange]:
        return [OpenChange(item.id) for item in await take(*arguments, **options)]

    one.paths.changes.queue.take = take_as_nothing
    await asyncio.sleep(WAIT_SECONDS + 0.5)  # a call that waits already is over
    await one.paths.changes.append(Change("docs", keys=("a",)))
    await asyncio.sleep(1)
    assert (one.tally.skipped, one.tally.changes) == (1, 0)
    assert not far.queue.changes
    await stop(one)


@pytest.mark.parametrize("method", ["take", "reclaim", "parked", "completion"])
async def test_an_answer_of_an_unknown_shape_ends_no_loop_of_a_consumer(method: str) -> None:
    """As Redis 6.2 answers XAUTOCLAIM with two items, where 7.0 answers with three."""
    far = FarSide()
    (one,) = await started(far, "one")
    assert await one.paths.value("a") == b"value of a"
    inner = one.paths.changes.queue
    await inner.append(Change("docs", keys=("left",)))
    assert await inner.take("dead", count=1, wait_seconds=0), "something is left to reclaim"
    setattr(inner, method, misshapen)
    await asyncio.sleep(10)
    failures = one.tally.failures
    assert failures > 5
    delattr(inner, method)
    far.loader.default = loaded(b"1")
    await one.paths.changes.append(Change("docs", keys=("a",)))
    await asyncio.sleep(3)
    assert await one.paths.value("a") == b"1"
    assert one.bound_us() < 1_500_000
    loops = (one.consumer.taking, one.consumer.beating, one.consumer.reclaiming)
    assert sum(loop.failures for loop in loops) == one.tally.failures <= failures + 1
    await stop(one)


async def test_a_wait_for_changes_ends_when_the_queue_does_not_answer_a_look() -> None:
    """Its connection may lead to a server that is gone without a word."""
    far = FarSide()
    (one,) = await started(far, "one")
    inner, calls = one.paths.changes.queue, one.paths.changes.calls
    inner.take = hang
    await asyncio.sleep(WAIT_SECONDS + 0.5)
    takes = calls.count("take")
    await asyncio.sleep(20)
    assert calls.count("take") == takes, "it waits"
    inner.completion = away
    await asyncio.sleep(2)
    assert calls.count("take") > takes
    assert one.consumer.taking.trouble == ""
    await stop(one)


async def away(*_: object, **__: object) -> object:
    raise TierTimeoutError("queue", "no answer within 1 s")


@pytest.mark.parametrize("instances", [1, 2, 12])
async def test_an_idle_instance_asks_its_queue_at_most_three_times_a_second(instances: int) -> None:
    far = FarSide()
    running = []
    for number in range(instances):
        running += await started(far, f"i{number}")
        await asyncio.sleep(0.037)  # no two have their turns at the same time
    await asyncio.sleep(5)
    for one in running:
        one.paths.changes.calls.clear()
        one.paths.stream.calls.clear()
    await asyncio.sleep(20)
    asked = [
        call
        for one in running
        for call in (*one.paths.changes.calls, *one.paths.stream.calls)
        if call != "read"  # what is pushed is read without a call
    ]
    assert len(asked) / 20 <= (3.25 if instances == 1 else 2.75 * instances)
    assert all(one.bound_us() < 1_000_000 for one in running)
    await stop(*running)


async def test_a_consumer_that_left_is_removed_from_the_group_after_an_hour() -> None:
    far = FarSide()
    one, other = await started(far, "one", "other")
    await stop(other)
    assert set(far.queue.consumers) == {"one", "other"}
    await asyncio.sleep(DEPARTED_SECONDS - 5)
    assert set(far.queue.consumers) == {"one", "other"}
    await asyncio.sleep(FORGET_SECONDS + 10)
    assert set(far.queue.consumers) == {"one"}
    assert one.tally.epochs == 1
    await stop(one)


async def misshapen(*_: object, **__: object) -> object:
    raise ValueError("not enough values to unpack (expected 3, got 2)")


async def test_a_change_that_cannot_be_done_stays_open_and_keeps_no_other_open() -> None:
    far = FarSide()
    (one,) = await started(far, "one")
    assert await one.paths.value("a") == b"value of a"
    whole = one.consumer._applier.apply

    async def defective(changes: Any) -> Any:
        if any("poison" in change.keys for change in changes):
            raise ZeroDivisionError("of a defect")
        return await whole(changes)

    one.consumer._applier.apply = defective  # type: ignore[method-assign]
    far.loader.default = loaded(b"1")
    for key in ("poison", "a"):
        far.queue.append_event(encode(Change("docs", keys=(key,)), id_=key, source="/test"))
    await asyncio.sleep(10)
    assert await one.paths.value("a") == b"1"
    assert len(far.queue.changes) == 1
    assert one.bound_us() > 9_000_000
    assert one.consumer.reclaiming.failures > 5
    one.consumer._applier.apply = whole  # type: ignore[method-assign]
    await asyncio.sleep(3)
    assert not far.queue.changes
    assert one.bound_us() < 1_500_000
    await stop(one)
