"""Targets that a home cell could not take.

They wait apart, so that `complete_to` can pass, and are tried until the cell has taken them.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from cachesvc.changes.contract import Done, OpenCount, Parked, ReceiptRecord
from cachesvc.changes.redis.parked_items import name_of, parse, text_of
from cachesvc.model.change import Change, Target
from cachesvc.model.clock import SECONDS
from cachesvc.model.fence import Fence
from tests.contracts.queue_benches import QueueBench

CHANGE = Change("docs", keys=("a", "ü/#"), tags=("t/#",))
KEY, TAG = Target.key("docs", "a"), Target.tag("docs", "t/#")
WHOLE = Target.whole("docs")
SHORT = 0.01


async def park(queue: QueueBench, *parked: Parked, fences: Sequence[Fence] = (Fence(1, 1),)) -> str:
    """One that was appended, taken, and missed by cells; its id."""
    id_ = await queue.changes.append(CHANGE)
    await queue.changes.take("c1", count=10, wait_seconds=SHORT)
    await queue.stream().publish(fences, done=[Done(id_, parked, ("c1",))])
    return id_


async def tried(queue: QueueBench, idle_seconds: float = 0, count: int = 10) -> list[Parked]:
    return [*await queue.changes.parked(idle_seconds=idle_seconds, count=count)]


async def of(queue: QueueBench, target: Target = KEY, cell: str = "c2", *, after: int = 0) -> Parked:
    """The target as it would be parked now, `after` µs."""
    return Parked(cell, await queue.now_us() + after, 2**63, target)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(
    "target", [KEY, TAG, WHOLE, Target.key("docs", "*"), Target.key("docs", "ü/#"), None]
)
def test_what_is_parked_is_read_as_it_was_written(target: Target | None, soft: bool) -> None:
    parked = Parked("c2", 17, 2**63, target, soft=soft and target is not None)
    assert parse("c2", name_of(parked), text_of(parked)) == parked


def test_a_parked_target_is_a_change_of_its_own() -> None:
    assert Parked("c2", 1, 0, KEY, soft=True).change == Change("docs", keys=("a",), soft=True)
    assert Parked("c2", 1, 0, TAG).change == Change("docs", tags=("t/#",))
    assert Parked("c2", 1, 0, WHOLE).change == Change("docs", all=True)


async def test_a_change_of_a_journal_is_parked_once_and_has_one_receipt(queue: QueueBench) -> None:
    """It was never appended, and is published again if its instance died meanwhile."""
    parked = await of(queue)
    done = Done("1700000000000-1234567890123456", (parked,), ("c1",), is_from_journal=True)
    stream = queue.stream()
    position = await stream.publish([Fence(1, 1)], done=[done])
    assert await tried(queue) == [parked]
    assert await stream.receipt(done.id) == ReceiptRecord("parked", position, ("c1",), ("c2",))
    await stream.settle([parked])
    await stream.publish([Fence(1, 1)], done=[done])
    assert await tried(queue) == []
    assert await stream.receipt(done.id) == ReceiptRecord("done", position, ("c1", "c2"), ())
    assert (await queue.changes.completion()).lost == 0


async def test_what_is_parked_holds_complete_to_up_no_longer(queue: QueueBench) -> None:
    await park(queue, await of(queue))
    now = await queue.now_us()
    assert (await queue.changes.completion()).complete_to >= now
    assert list(await queue.changes.take("c1", count=10, wait_seconds=SHORT)) == []
    assert list(await queue.changes.reclaim("c2", idle_seconds=0, count=10)) == []


async def test_each_target_is_tried_again_as_it_was_parked(queue: QueueBench) -> None:
    parked = [await of(queue), await of(queue, TAG), await of(queue, WHOLE, "c3")]
    await park(queue, *parked)
    assert sorted(await tried(queue), key=lambda one: one.at) == parked


async def test_a_change_is_parked_before_anybody_took_it(queue: QueueBench) -> None:
    """The invalidate call that appended it met the cell that was down."""
    id_ = await queue.changes.append(CHANGE)
    parked = await of(queue)
    await queue.stream().publish([Fence(1, 1)], done=[Done(id_, (parked,))])
    assert list(await queue.changes.take("c1", count=10, wait_seconds=SHORT)) == []
    assert await tried(queue) == [parked]


async def test_a_target_that_is_parked_twice_is_one_with_the_later_at(queue: QueueBench) -> None:
    early, late = await of(queue), await of(queue, after=5)
    for parked in (late, early):
        await park(queue, parked)
    assert await tried(queue) == [late]
    assert ((await queue.changes.completion()).count).parked == 1
    for parked in (await of(queue, cell="c3"), Parked("c2", late.at, 1, KEY, soft=True)):
        await park(queue, parked)
    assert ((await queue.changes.completion()).count).parked == 3, (
        "another cell, and a soft one, are another retry"
    )


async def test_a_try_restarts_the_idle_time_of_the_cell(queue: QueueBench) -> None:
    one = await of(queue)
    await park(queue, one)
    assert await tried(queue, idle_seconds=5) == [one]
    other = await of(queue, TAG)
    await park(queue, other)
    elsewhere = await of(queue, cell="c3")
    await park(queue, elsewhere)
    assert await tried(queue, idle_seconds=5) == [elsewhere], "each cell has a time of its own"
    await queue.pass_time(10)
    again = {name_of(each) + each.cell for each in await tried(queue, idle_seconds=5)}
    assert again == {name_of(each) + each.cell for each in (one, other, elsewhere)}


async def test_no_more_are_tried_than_were_asked_for_and_a_cell_that_took_some_is_due_at_once(
    queue: QueueBench,
) -> None:
    parked = [await of(queue, Target.key("docs", str(number))) for number in range(5)]
    for one in parked:
        await park(queue, one)
    first = await tried(queue, idle_seconds=5, count=2)
    assert first == parked[:2], "the earliest first"
    assert await tried(queue, idle_seconds=5, count=2) == []
    await queue.stream().settle(first)
    assert await tried(queue, idle_seconds=5, count=10) == parked[2:]
    await queue.stream().settle(parked[2:])
    assert (await queue.changes.completion()).count == OpenCount(0, 0, 0)
    assert await tried(queue) == []


async def test_what_was_parked_again_meanwhile_stays(queue: QueueBench) -> None:
    early = await of(queue)
    await park(queue, early)
    late = await of(queue, after=5)
    await park(queue, late)
    await queue.stream().settle([early])
    assert await tried(queue) == [late]


@pytest.mark.parametrize("target", [KEY, TAG, WHOLE])
async def test_the_last_cell_that_takes_it_ends_the_unapplied_fence(
    queue: QueueBench, target: Target
) -> None:
    reader, stream = queue.stream(), queue.stream()
    await reader.open()
    there, elsewhere = await of(queue, target), await of(queue, target, "c3")
    await park(queue, there, elsewhere, await of(queue, Target.key("docs", "other")), fences=())
    await stream.settle([there])
    assert not (await reader.read(wait_seconds=SHORT)).fences
    await stream.settle([elsewhere])
    named = "docs" if target is WHOLE else ""
    seen = (await reader.read(wait_seconds=SHORT)).fences
    assert list(seen) == [Fence(target.digest, elsewhere.at, namespace=named, placement=2**63)]
    await stream.settle([elsewhere])
    assert not (await reader.read(wait_seconds=SHORT)).fences


async def test_many_that_are_taken_together_share_an_item(queue: QueueBench) -> None:
    reader = queue.stream()
    await reader.open()
    parked = [await of(queue, Target.key("docs", str(number))) for number in range(300)]
    await park(queue, *parked, fences=())
    await queue.stream().settle(parked)
    batch = await reader.read(wait_seconds=SHORT)
    assert [fence.digest for fence in batch.fences] == [one.target.digest for one in parked if one.target]


async def test_what_was_applied_anew_is_parked_anew_in_the_same_step(queue: QueueBench) -> None:
    reader = queue.stream()
    await reader.open()
    old = await of(queue)
    await park(queue, old, fences=())
    new = Parked("c2", old.at + 5, 7, KEY)
    await queue.stream().settle([old], anew=[new])
    assert await tried(queue) == [new]
    await queue.stream().settle([new], anew=[])
    assert await tried(queue) == []
    assert not (await reader.read(wait_seconds=SHORT)).fences, "it was published with fences of its own"


async def test_what_is_older_than_every_copy_is_forgotten(queue: QueueBench) -> None:
    await park(queue, await of(queue), await of(queue, TAG), await of(queue, cell="c3"))
    await queue.pass_time(3600)
    left = await of(queue, WHOLE)
    await park(queue, left)
    assert len(await tried(queue)) == 4, "a minute longer than a copy"
    await queue.pass_time(61)
    (found,) = await tried(queue)
    assert (found.cell, found.target) == ("c2", WHOLE)
    assert ((await queue.changes.completion()).count).parked == 1


async def test_an_at_of_a_clock_that_is_behind_is_not_forgotten(queue: QueueBench) -> None:
    now = await queue.now_us()
    await park(queue, Parked("c2", now - 7200 * SECONDS, 0, KEY))
    (found,) = await tried(queue)
    assert found.at >= now, "the commit was before the parking"


async def test_a_buried_change_has_parked_its_targets(queue: QueueBench) -> None:
    fields = {b"event": b"not json", b"more": b"\xff\x00"}
    id_ = await queue.append_fields(fields)
    (taken,) = await queue.changes.take("c1", count=1, wait_seconds=SHORT)
    parked = await of(queue)
    await queue.stream().publish([Fence(1, 1)], done=[Done(id_, (parked,), stays_open=True)])
    assert ((await queue.changes.completion()).count).backlog == 1
    await queue.changes.bury(taken)
    assert await queue.dead() == [(id_, taken.reason, fields)]
    assert (await queue.changes.completion()).count == OpenCount(0, 1, 1)
    assert await tried(queue) == [parked]


async def test_a_change_that_is_gone_cannot_be_parked(queue: QueueBench) -> None:
    """Another consumer did it meanwhile, or the server lost it."""
    parked = await of(queue)
    id_ = await queue.changes.append(CHANGE)
    await queue.changes.acknowledge([id_])
    await queue.stream().publish([Fence(1, 1)], done=[Done(id_, (parked,)), Done("1-1", (parked,))])
    assert (await queue.changes.completion()).count == OpenCount(0, 0, 0)


# receipts ----------------------------------------------------------------------------------------


async def receipt(queue: QueueBench, id_: str) -> ReceiptRecord:
    found = await queue.stream().receipt(id_)
    assert found is not None
    return found


async def test_a_receipt_tells_which_cell_is_missing_until_that_has_taken_it(queue: QueueBench) -> None:
    stream = queue.stream()
    there, elsewhere = await of(queue), await of(queue, cell="c3")
    id_ = await park(queue, there, elsewhere)
    position = (await receipt(queue, id_)).position
    assert await receipt(queue, id_) == ReceiptRecord("parked", position, ("c1",), ("c2", "c3"))
    await stream.settle([there])
    assert await receipt(queue, id_) == ReceiptRecord("parked", position, ("c1", "c2"), ("c3",))
    await stream.settle([elsewhere])
    assert await receipt(queue, id_) == ReceiptRecord("done", position, ("c1", "c2", "c3"))


async def test_the_receipts_of_merged_changes_are_done_together(queue: QueueBench) -> None:
    early = await of(queue)
    first = await park(queue, early)
    late = await of(queue, after=5)
    second = await park(queue, late)
    await queue.stream().settle([early])
    assert [(await receipt(queue, id_)).state for id_ in (first, second)] == ["parked", "parked"]
    await queue.stream().settle([late])
    assert [(await receipt(queue, id_)).state for id_ in (first, second)] == ["done", "done"]
    again = await of(queue)
    third = await park(queue, again)
    assert (await receipt(queue, third)).state == "parked"
    assert (await receipt(queue, second)).state == "done", "what is parked later is no part of it"


# bounds ------------------------------------------------------------------------------------------


@pytest.fixture
async def small(queue: QueueBench) -> AsyncIterator[QueueBench]:
    """A queue that keeps four targets, or 64 bytes of names, for each cell."""
    async with queue.bounded(4, 64) as bounded:
        yield bounded


@pytest.mark.parametrize("names", [[*"abcde"], ["x" * 40, "y" * 40]])
async def test_more_than_is_kept_for_a_cell_becomes_everything_in_it(
    small: QueueBench, names: list[str]
) -> None:
    parked = [await of(small, Target.key("docs", name)) for name in names]
    newest = Parked("c2", parked[0].at + SECONDS, 5, Target.key("docs", names[0]))
    kept = await of(small, cell="c3")
    ids = [await park(small, newest), await park(small, *parked[1:], kept), await park(small, kept)]
    (whole,) = [one for one in await tried(small) if one.cell == "c2"]
    assert (whole.target, whole.at) == (None, newest.at), "the newest `at` of all"
    assert ((await small.changes.completion()).count) == OpenCount(0, 2, 0, 1), "and no other cell is touched"
    later = Parked("c2", newest.at + SECONDS, 6, TAG)
    ids.append(await park(small, later))
    await small.stream().settle([whole])
    whole = Parked("c2", later.at, 6)
    assert [one for one in await tried(small) if one.cell == "c2"] == [whole]
    await small.stream().settle([kept])
    assert [(await receipt(small, id_)).state for id_ in ids] == ["parked", "parked", "done", "parked"]
    await small.stream().settle([whole])
    assert [(await receipt(small, id_)).state for id_ in ids] == ["done"] * 4
    assert (await small.changes.completion()).count == OpenCount(0, 0, 0)


async def test_a_target_of_a_cell_that_overflowed_is_not_known_to_be_applied(small: QueueBench) -> None:
    reader = small.stream()
    await reader.open()
    there = await of(small, TAG)
    await park(
        small, there, *[await of(small, Target.key("docs", name), "c3") for name in "abcde"], fences=()
    )
    await small.stream().settle([there])
    assert not (await reader.read(wait_seconds=SHORT)).fences


async def test_parking_at_once_from_many_keeps_each(queue: QueueBench) -> None:
    parked = [await of(queue, Target.key("docs", str(number))) for number in range(50)]
    await asyncio.gather(*(park(queue, one) for one in parked))
    assert {name_of(one) for one in await tried(queue, count=100)} == {name_of(one) for one in parked}
