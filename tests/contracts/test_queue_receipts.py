"""A queue answers for a change by its id, in each state, and keeps the audit of its maker."""

from cachesvc.changes.contract import Audit, Done, OpenChange, OpenCount, Parked, ReceiptRecord
from cachesvc.model.change import Change, Target
from cachesvc.model.fence import Fence
from tests.contracts.queue_benches import QueueBench

CHANGE = Change("docs", keys=("a",))
AUDIT = Audit("shop\n, Ärger & Co", "i1", "docs", "2 keys, 1 tag", soft=True, over="5m")
SHORT = 0.01
PARKED = (Parked("c2", 1, 0, Target.key("docs", "a")),)


async def test_an_accepted_change_is_open_whoever_took_it(queue: QueueBench) -> None:
    stream = queue.stream()
    id_ = await queue.changes.append(CHANGE)
    assert await stream.receipt(id_) == ReceiptRecord("open")
    await queue.changes.take("c1", count=1, wait_seconds=SHORT)
    assert await stream.receipt(id_) == ReceiptRecord("open")


async def test_what_never_was_has_no_receipt(queue: QueueBench) -> None:
    await queue.changes.append(CHANGE)
    for id_ in ("1-0", "", "x", "1", "99999999999999999999999-0", "1700000000000-0\n", "*"):
        assert await queue.stream().receipt(id_) is None


async def test_a_done_change_has_its_fence_and_its_cells(queue: QueueBench) -> None:
    stream = queue.stream()
    id_ = await queue.changes.append(CHANGE)
    position = await stream.publish([Fence(1, 1)], done=[Done(id_, cells=("c1", "c2"))])
    assert await stream.receipt(id_) == ReceiptRecord("done", position, ("c1", "c2"))


async def test_a_buried_change_says_why(queue: QueueBench) -> None:
    reason = "not JSON:\nline 2, ünreadable"
    id_ = await queue.append_event(b"x")
    await queue.changes.bury(OpenChange(id_, reason=reason))
    assert await queue.stream().receipt(id_) == ReceiptRecord("buried", reason=reason)


async def test_a_buried_change_keeps_what_was_known_of_its_fence(queue: QueueBench) -> None:
    id_ = await queue.changes.append(CHANGE)
    done = Done(id_, PARKED, ("c1",), stays_open=True)
    position = await queue.stream().publish([Fence(1, 1)], done=[done])
    await queue.changes.bury(OpenChange(id_, reason="the cell is gone"))
    assert await queue.stream().receipt(id_) == ReceiptRecord(
        "buried", position, ("c1",), ("c2",), "the cell is gone"
    )


async def test_burying_what_is_gone_leaves_its_receipt(queue: QueueBench) -> None:
    id_ = await queue.changes.append(CHANGE)
    position = await queue.stream().publish([Fence(1, 1)], done=[Done(id_)])
    await queue.changes.bury(OpenChange(id_, reason="late"))
    assert await queue.stream().receipt(id_) == ReceiptRecord("done", position)
    assert await queue.dead() == []


async def test_receipts_are_kept_fifteen_minutes(queue: QueueBench) -> None:
    ids = []
    for _ in range(3):
        ids.append(await queue.changes.append(CHANGE))
        await queue.stream().publish([Fence(1, 1)], done=[Done(ids[-1])])
    await queue.pass_time(14 * 60)
    assert all([await queue.stream().receipt(id_) for id_ in ids])
    await queue.pass_time(2 * 60)
    assert not any([await queue.stream().receipt(id_) for id_ in ids])


async def test_who_comes_second_changes_no_receipt(queue: QueueBench) -> None:
    """An invalidate call and a consumer did the same change: applying twice costs misses, and the first fence was enough."""
    stream = queue.stream()
    id_ = await queue.changes.append(CHANGE)
    first = await stream.publish([Fence(1, 1)], done=[Done(id_, cells=("c1",), audit=AUDIT)])
    await stream.publish([Fence(1, 2)], done=[Done(id_, PARKED, audit=AUDIT)])
    assert await stream.receipt(id_) == ReceiptRecord("done", first, ("c1",))
    assert await queue.audit() == [(id_, AUDIT)]


async def test_who_invalidated_what_is_written_down_once(queue: QueueBench) -> None:
    stream = queue.stream()
    first, second, third = [await queue.changes.append(CHANGE) for _ in range(3)]
    plain = Audit("/orders", "i2", "docs", "all")
    await stream.publish(
        [Fence(1, 1)], done=[Done(first, PARKED, audit=AUDIT), Done(second), Done(third, audit=plain)]
    )
    await stream.publish([Fence(1, 2)], done=[Done(first, audit=AUDIT)])
    assert await queue.audit() == [(first, AUDIT), (third, plain)]


async def test_a_thousand_changes_are_done_at_once(queue: QueueBench) -> None:
    ids = [await queue.changes.append(CHANGE) for _ in range(1000)]
    taken = await queue.changes.take("c1", count=1000, wait_seconds=SHORT)
    assert [item.id for item in taken] == ids
    fences = [Fence(number, number) for number in range(1, 1001)]
    missed = [
        (Parked("c2", 1, 0, Target.key("docs", str(number))),) if number % 10 == 0 else ()
        for number in range(1000)
    ]
    done = [Done(id_, missed[number], ("c1",), AUDIT) for number, id_ in enumerate(ids)]
    position = await queue.stream().publish(fences, done=done)
    assert (await queue.changes.completion()).count == OpenCount(0, 100, 0)
    assert await queue.stream().receipt(ids[10]) == ReceiptRecord("parked", position, ("c1",), ("c2",))
    assert await queue.stream().receipt(ids[999]) == ReceiptRecord("done", position, ("c1",))
    assert [id_ for id_, _ in await queue.audit()] == ids
    await queue.changes.acknowledge(ids)
    assert (await queue.changes.completion()).count == OpenCount(0, 100, 0)


async def test_whoever_sees_the_receipt_finds_the_fence(queue: QueueBench) -> None:
    """Fence, closing and receipt are one transaction: at no moment is a change neither open nor done."""
    reader = queue.stream()
    await reader.open()
    id_ = await queue.changes.append(CHANGE)
    await queue.stream().publish([Fence(1, 1)], done=[Done(id_)])
    receipt = await reader.receipt(id_)
    assert receipt is not None
    batch = await reader.read(wait_seconds=SHORT)
    assert ([fence.at for fence in batch.fences], batch.position) == ([1], receipt.position)
