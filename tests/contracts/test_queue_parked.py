"""A change that a home cell could not take waits apart, so that `complete_to` can pass it, and is tried until it is closed."""

import asyncio
from collections.abc import Sequence

from cachesvc.changes.contract import Done, Missing, OpenChange, OpenCount
from cachesvc.model.change import Change
from cachesvc.model.fence import Fence
from tests.contracts.queue_benches import QueueBench

CHANGE = Change("docs", keys=("a", "ü"), tags=("t",))
SHORT = 0.01


async def parked(queue: QueueBench, *, missed: tuple[str, ...] = ("c2",)) -> OpenChange:
    """One that was appended, taken, and missed by a cell."""
    id_ = await queue.changes.append(CHANGE)
    (taken,) = await queue.changes.take("c1", count=10, wait_seconds=SHORT)
    await queue.stream().publish([Fence(1, 1)], done=[Done(id_, missed, ("c1",))])
    return taken


async def tried(queue: QueueBench, idle_seconds: float = 0, count: int = 10) -> Sequence[OpenChange]:
    return await queue.changes.parked("c2", idle_seconds=idle_seconds, count=count)


async def test_a_parked_change_holds_complete_to_up_no_longer(queue: QueueBench) -> None:
    await parked(queue)
    now = await queue.now_us()
    assert (await queue.changes.completion()).complete_to >= now


async def test_a_parked_change_is_tried_again_as_it_was_taken(queue: QueueBench) -> None:
    taken = await parked(queue)
    assert list(await queue.changes.take("c1", count=10, wait_seconds=SHORT)) == []
    assert list(await queue.changes.reclaim("c2", idle_seconds=0, count=10)) == []
    assert list(await tried(queue)) == [taken]


async def test_a_change_is_parked_before_anybody_took_it(queue: QueueBench) -> None:
    """The invalidate call that appended it met the cell that was down."""
    id_ = await queue.changes.append(CHANGE)
    await queue.stream().publish([Fence(1, 1)], done=[Done(id_, ("c2",))])
    assert list(await queue.changes.take("c1", count=10, wait_seconds=SHORT)) == []
    assert [item.id for item in await tried(queue)] == [id_]


async def test_a_try_restarts_the_idle_time(queue: QueueBench) -> None:
    one = await parked(queue)
    await queue.pass_time(10)
    other = await parked(queue)
    assert list(await tried(queue, idle_seconds=5)) == [one]
    assert list(await tried(queue, idle_seconds=5)) == []
    await queue.pass_time(10)
    assert {item.id for item in await tried(queue, idle_seconds=5)} == {one.id, other.id}


async def test_no_more_are_tried_than_were_asked_for(queue: QueueBench) -> None:
    """Those that waited longest come first."""
    found = []
    for _ in range(3):
        found.append(await parked(queue))
        await queue.pass_time(1)
    assert list(await tried(queue, count=2)) == found[:2]
    assert list(await tried(queue, idle_seconds=0.5)) == found[2:]


async def test_one_that_is_missed_again_stays_parked_and_waits_anew(queue: QueueBench) -> None:
    taken = await parked(queue)
    await queue.pass_time(10)
    await queue.stream().publish([], done=[Done(taken.id, ("c2",))])
    assert list(await tried(queue, idle_seconds=5)) == []
    assert list(await tried(queue)) == [taken]


async def test_a_parked_change_is_closed_by_its_id(queue: QueueBench) -> None:
    for how in ("publish", "acknowledge"):
        taken = await parked(queue)
        if how == "publish":
            await queue.stream().publish([Fence(1, 1)], done=[Done(taken.id)])
        else:
            await queue.changes.acknowledge([taken.id])
        assert list(await tried(queue)) == []
        assert await queue.changes.open_count() == OpenCount(0, 0, 0)


async def test_a_parked_change_is_buried_with_all_its_fields(queue: QueueBench) -> None:
    fields = {b"event": b"not json", b"more": b"\xff\x00"}
    id_ = await queue.append_fields(fields)
    await queue.stream().publish([Fence(1, 1)], done=[Done(id_, ("c2",))])
    (taken,) = await tried(queue)
    await queue.changes.bury(taken)
    assert await queue.dead() == [(id_, taken.reason, fields)]
    assert list(await tried(queue)) == []


async def test_what_waits_is_counted(queue: QueueBench) -> None:
    await parked(queue)
    await queue.append_event(b"not json")
    (bad,) = await queue.changes.take("c1", count=10, wait_seconds=SHORT)
    await queue.changes.bury(bad)
    await queue.changes.append(CHANGE)
    await queue.changes.append(CHANGE)
    await queue.changes.take("c1", count=1, wait_seconds=SHORT)
    assert await queue.changes.open_count() == OpenCount(backlog=2, parked=1, dead=1)


async def test_a_change_that_is_gone_cannot_be_parked(queue: QueueBench) -> None:
    """Another consumer did it meanwhile, or the server lost it."""
    taken = await parked(queue)
    await queue.changes.acknowledge([taken.id])
    await queue.stream().publish([Fence(1, 1)], done=[Done(taken.id, ("c2",)), Done("1-1", ("c2",))])
    assert await queue.changes.open_count() == OpenCount(0, 0, 0)


async def test_a_parked_change_keeps_its_first_at_and_the_cells_that_miss_it(queue: QueueBench) -> None:
    id_ = await queue.changes.append(CHANGE)
    stream = queue.stream()
    await stream.publish([Fence(1, 17)], done=[Done(id_, ("c2",), ("c1",), at=17, placement=2**63)])
    (found,) = await tried(queue)
    assert found.missing == Missing(17, 2**63, ("c2",), ("c1",))
    await stream.publish([], done=[Done(id_, ("c2", "c3"), (), at=17, placement=5)])
    (again,) = await tried(queue)
    assert again.missing == Missing(17, 5, ("c2", "c3"))


async def test_a_retry_that_publishes_nothing_leaves_the_receipt_its_position(queue: QueueBench) -> None:
    """Not even if others publish in the same moment."""
    id_ = await queue.changes.append(CHANGE)
    stream = queue.stream()
    position = await stream.publish([Fence(1, 17)], done=[Done(id_, ("c2",), ("c1",), at=17)])
    await asyncio.gather(
        stream.publish([], done=[Done(id_, ("c2",), ("c1",), at=17)]), stream.publish([Fence(2, 18)])
    )
    receipt = await stream.receipt(id_)
    assert receipt is not None
    assert (receipt.state, receipt.position, receipt.cells) == ("parked", position, ("c1",))


async def test_nothing_is_left_of_a_parked_change_that_is_closed(queue: QueueBench) -> None:
    id_ = await queue.changes.append(CHANGE)
    stream = queue.stream()
    await stream.publish([Fence(1, 17)], done=[Done(id_, ("c2",), ("c1",), at=17)])
    await stream.publish([Fence(1, 18)], done=[Done(id_, (), ("c1", "c2"))])
    assert list(await tried(queue)) == []
    receipt = await stream.receipt(id_)
    assert receipt is not None
    assert (receipt.state, receipt.cells, receipt.missed) == ("done", ("c1", "c2"), ())
