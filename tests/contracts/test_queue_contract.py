"""The contract of queues, checked in memory and on all kinds of servers, also a guarded one."""

import asyncio
from collections.abc import Sequence

import pytest

from cachesvc.changes.contract import Beat, Done, FenceStream, OpenChange, OtherQueueError
from cachesvc.model.change import Change
from cachesvc.model.errors import TierError
from cachesvc.model.fence import Fence
from tests.contracts.conftest import KINDS, RELAYED, server_of
from tests.contracts.queue_benches import SKEW, Fields, QueueBench

CHANGE = Change("docs", keys=("a", "ü/#"), tags=("t",), soft=True)
SHORT = 0.01
HELD = 1_700_000_000_000_000

server = server_of(*KINDS, RELAYED)


async def take(queue: QueueBench, consumer: str = "c1", count: int = 10) -> Sequence[OpenChange]:
    return await queue.changes.take(consumer, count=count, wait_seconds=SHORT)


async def complete_to(queue: QueueBench) -> int:
    return (await queue.changes.completion()).complete_to


async def has_beaten(queue: QueueBench) -> bool:
    """Whether a heartbeat was published within 0.4 s; sends none."""
    return (await queue.changes.completion(beat=Beat(400_000, 0))).has_beaten


async def ids(taken: Sequence[OpenChange]) -> list[str]:
    return [item.id for item in taken]


async def publish(stream: FenceStream, *ats: int) -> None:
    for at in ats:
        await stream.publish([Fence(at, at)])


async def drain(stream: FenceStream) -> list[int]:
    """The `at` of everything that is there; a gap stands as -1."""
    seen: list[int] = []
    while True:
        batch = await stream.read(wait_seconds=SHORT)
        if not (batch.gap or batch.fences):
            return seen
        seen += [-1] * batch.gap + [fence.at for fence in batch.fences]


async def test_a_change_is_taken_as_it_was_appended(queue: QueueBench) -> None:
    change_id = await queue.changes.append(CHANGE, held_until_us=1_700_000_000_123_456)
    (taken,) = await take(queue)
    assert taken == OpenChange(change_id, (CHANGE,), held_until_us=1_700_000_000_123_456, source=taken.source)
    assert list(await take(queue)) == []


async def test_changes_that_came_before_any_consumer_are_taken_in_order(queue: QueueBench) -> None:
    appended = [await queue.changes.append(CHANGE) for _ in range(5)]
    assert await ids(await take(queue, count=3)) == appended[:3]
    assert await ids(await take(queue, "c2")) == appended[3:]


async def test_a_waiting_consumer_gets_the_next_change(queue: QueueBench) -> None:
    await take(queue)
    waiting = asyncio.create_task(queue.changes.take("c1", count=1, wait_seconds=30))
    await asyncio.sleep(0)
    change_id = await queue.changes.append(CHANGE)
    assert await ids(await waiting) == [change_id]


async def test_an_acknowledged_change_is_neither_taken_nor_reclaimed(queue: QueueBench) -> None:
    """The call that appended it did it itself before any consumer came to it."""
    first, second, third = [await queue.changes.append(CHANGE) for _ in range(3)]
    await queue.changes.acknowledge([second])
    assert await ids(await take(queue)) == [first, third]
    await queue.changes.acknowledge([first])
    assert await ids(await queue.changes.reclaim("c2", idle_seconds=0, count=10)) == [third]
    await queue.changes.acknowledge([])


async def test_a_held_change_is_taken_by_the_consumer_of_its_own_instance(queue: QueueBench) -> None:
    """Several at once, too. One that is not held is for whoever asks."""
    await was_there(queue, "c1")
    async with queue.reading_by(consumer="c1") as own:
        held = await asyncio.gather(*(own.append(CHANGE, held_until_us=HELD) for _ in range(3)))
        assert await ids(await take(queue, "c2")) == []
        free = await own.append(CHANGE)
        assert await ids(await take(queue, "c2")) == [free]
        assert sorted(await ids(await queue.changes.reclaim("c2", idle_seconds=0, count=10))) == sorted(
            [*held, free]
        )


async def test_a_consumer_that_waits_is_not_woken_by_what_another_instance_holds(queue: QueueBench) -> None:
    await was_there(queue, "c2")
    waiting = asyncio.create_task(queue.changes.take("c2", count=1, wait_seconds=0.3))
    await asyncio.sleep(0.05)
    async with queue.reading_by(consumer="c1") as own:
        await own.append(CHANGE, held_until_us=HELD)
        assert await ids(await waiting) == []


async def test_what_a_dead_consumer_took_is_reclaimed(queue: QueueBench) -> None:
    change_id = await queue.changes.append(CHANGE)
    await take(queue, "dead")
    assert list(await queue.changes.reclaim("c2", idle_seconds=60, count=10)) == []
    (again,) = await queue.changes.reclaim("c2", idle_seconds=0, count=10)
    assert (again.id, again.changes) == (change_id, (CHANGE,))


async def test_reclaiming_before_anything_was_taken_finds_nothing(queue: QueueBench) -> None:
    assert list(await queue.changes.reclaim("c1", idle_seconds=0, count=10)) == []


async def was_there(queue: QueueBench, consumer: str) -> None:
    """The consumer takes a change, which is closed. (Redis 7.0 notes no consumer that is given nothing.)"""
    change_id = await queue.changes.append(CHANGE)
    assert await ids(await take(queue, consumer)) == [change_id]
    await queue.changes.acknowledge([change_id])


async def test_a_consumer_that_left_is_forgotten_once_it_has_nothing_open(queue: QueueBench) -> None:
    """What it has taken is adopted first: one with something open stays, however long it is silent."""
    change_id = await queue.changes.append(CHANGE)
    await take(queue, "gone")
    await was_there(queue, "idle")
    assert await queue.changes.forget_consumers(idle_seconds=60) == 0
    assert await queue.changes.forget_consumers(idle_seconds=0) == 1
    assert await ids(await queue.changes.reclaim("c2", idle_seconds=0, count=10)) == [change_id]
    assert await queue.changes.forget_consumers(idle_seconds=0) == 1
    await queue.changes.acknowledge([change_id])
    assert await queue.changes.forget_consumers(idle_seconds=0) == 1
    assert await queue.changes.forget_consumers(idle_seconds=0) == 0


async def test_to_forget_consumers_is_no_loss(queue: QueueBench) -> None:
    epoch = await queue.announce()
    taken, closed = [await queue.changes.append(CHANGE) for _ in range(2)]
    await take(queue, "gone")
    await queue.changes.acknowledge([closed])
    await was_there(queue, "idle")
    await queue.changes.forget_consumers(idle_seconds=0)
    completion = await queue.changes.completion()
    assert (completion.epoch, completion.lost, completion.oldest) == (epoch, 0, taken)
    assert completion.announced


async def test_before_anything_was_taken_there_is_no_consumer_to_forget(queue: QueueBench) -> None:
    assert await queue.changes.forget_consumers(idle_seconds=0) == 0


async def test_a_consumer_that_is_forgotten_while_it_waits_gets_the_next_change(queue: QueueBench) -> None:
    await was_there(queue, "c1")
    waiting = asyncio.create_task(queue.changes.take("c1", count=1, wait_seconds=30))
    await asyncio.sleep(0.02)
    assert await queue.changes.forget_consumers(idle_seconds=0) == 1
    change_id = await queue.changes.append(CHANGE)
    assert await ids(await waiting) == [change_id]
    assert await ids(await queue.changes.reclaim("c2", idle_seconds=0, count=10)) == [change_id]


EVENT = b'{"specversion":"1.0","id":"1","source":"/s","type":"dev.cachesvc.change.v1","data":{"namespace":"docs","keys":["a"]}}'
MALFORMED = {
    b"": "truncated",
    b"\xff{": "malformed",
    b"[]": "Expected `object`",
    EVENT.replace(b'"data"', b'"date"'): "data",
    EVENT.replace(b"change.v1", b"change.v2"): "type",
    EVENT.replace(b'"specversion":"1.0"', b'"specversion":"0.3"'): "specversion",
    EVENT.replace(b"keys", b"kyes"): "kyes",
    EVENT.replace(b',"keys":["a"]', b""): "no keys",
}


@pytest.mark.parametrize("event", MALFORMED)
async def test_what_cannot_be_read_is_given_with_its_reason_and_buried(
    queue: QueueBench, event: bytes
) -> None:
    bad = await queue.append_event(event)
    good = await queue.changes.append(CHANGE)
    first, second = await take(queue)
    assert (first.id, first.changes, second.id, second.changes) == (bad, (), good, (CHANGE,))
    assert MALFORMED[event] in first.reason
    await queue.changes.bury(first)
    assert await queue.dead() == [(bad, first.reason, {b"event": event})]
    assert await ids(await queue.changes.reclaim("c2", idle_seconds=0, count=10)) == [good]


async def test_any_producer_may_append_a_cloudevent(queue: QueueBench) -> None:
    event = EVENT.replace(
        b'"data"', b'"subject":"s","time":"2026-01-01T00:00:00Z","traceparent":"00-x","data"'
    )
    item_id = await queue.append_event(event)
    assert list(await take(queue)) == [OpenChange(item_id, (Change("docs", keys=("a",)),), source="/s")]


async def test_complete_to_is_the_oldest_open_change_else_the_clock(queue: QueueBench) -> None:
    """Trace 16: it stands still while a change is undelivered or taken and not acknowledged."""
    start = await queue.now_us()
    assert start <= await complete_to(queue) <= await queue.now_us()
    first = await queue.changes.append(CHANGE)
    before_first = int(first.partition("-")[0]) * 1000
    await queue.now_us()
    second = await queue.changes.append(CHANGE)
    assert await complete_to(queue) == before_first
    await take(queue)
    assert await complete_to(queue) == before_first
    await queue.changes.acknowledge([first])
    assert await complete_to(queue) == int(second.partition("-")[0]) * 1000
    third = await queue.changes.append(CHANGE)
    await queue.changes.acknowledge([second])
    assert await complete_to(queue) == int(third.partition("-")[0]) * 1000
    await queue.changes.acknowledge([third])
    now = await queue.now_us()
    assert await complete_to(queue) >= now


async def test_every_reader_sees_every_fence(queue: QueueBench) -> None:
    fences = [
        Fence(1, 2),
        Fence((1 << 64) - 1, 3, soft=True),
        Fence(5, 4, namespace="docs"),
        Fence(6, 7, soft=True, namespace="docs"),
        Fence(8, 9, unapplied=True),
        Fence(10, 11, unapplied=True, namespace="docs"),
    ]
    one, two, publisher = queue.stream(), queue.stream(), queue.stream()
    await one.open()
    await two.open()
    await publisher.publish(fences)
    for reader in (one, two):
        seen: list[Fence] = []
        while len(seen) < len(fences):
            seen += (await reader.read(wait_seconds=SHORT)).fences
        assert sorted(seen, key=lambda fence: fence.at) == fences
        assert await drain(reader) == []


async def test_a_new_reader_gets_everything_retained(queue: QueueBench) -> None:
    stream = queue.stream()
    await publish(stream, 1, 2, 3)
    reader = queue.stream(max_batch=2)
    await reader.open()
    assert await drain(reader) == [1, 2, 3]
    await publish(stream, 4)
    assert await drain(reader) == [4]


async def test_a_waiting_reader_gets_the_next_fence(queue: QueueBench) -> None:
    reader, publisher = queue.stream(), queue.stream()
    await reader.open()
    await drain(reader)
    waiting = asyncio.create_task(reader.read(wait_seconds=30))
    await asyncio.sleep(0)
    await publish(publisher, 1)
    assert [fence.at for fence in (await waiting).fences] == [1]


async def test_publishing_closes_the_changes_it_is_done_with(queue: QueueBench) -> None:
    change_id = await queue.changes.append(CHANGE)
    other = await queue.changes.append(CHANGE)
    await take(queue)
    await queue.stream().publish([Fence(1, 1)], done=[Done(change_id)])
    assert await ids(await queue.changes.reclaim("c2", idle_seconds=0, count=10)) == [other]
    await queue.stream().publish([], done=[Done(other)])
    untaken = await queue.changes.append(CHANGE)
    await queue.stream().publish([Fence(1, 1)], done=[Done(untaken)])
    assert list(await take(queue)) == []
    assert await complete_to(queue) >= await queue.now_us() - 1_000_000
    assert list(await queue.changes.reclaim("c2", idle_seconds=0, count=10)) == []


async def test_a_heartbeat_carries_complete_to(queue: QueueBench) -> None:
    stream, reader = queue.stream(), queue.stream()
    await reader.open()
    await drain(reader)
    await queue.beat(1, stream)
    await publish(stream, 7)
    await queue.beat(3, stream)
    batch = await reader.read(wait_seconds=SHORT)
    assert ([fence.at for fence in batch.fences], batch.complete_to, batch.gap) == ([7], 3, False)
    batch = await reader.read(wait_seconds=SHORT)
    assert (list(batch.fences), batch.complete_to) == ([], None)


async def test_a_reader_that_was_overtaken_by_trimming_has_a_gap(queue: QueueBench) -> None:
    stream, reader = queue.stream(), queue.stream(max_batch=1)
    await publish(stream, 1, 2, 3, 4)
    await reader.open()
    await reader.read(wait_seconds=SHORT)
    await queue.trim_fences(2)
    assert await drain(reader) == [-1, 3, 4]


async def test_trimming_behind_a_reader_is_no_gap(queue: QueueBench) -> None:
    stream, reader = queue.stream(), queue.stream()
    await publish(stream, 1, 2)
    await reader.open()
    assert await drain(reader) == [1, 2]
    await queue.trim_fences(1)
    await publish(stream, 3)
    assert await drain(reader) == [3]


async def test_what_is_trimmed_between_open_and_the_first_read_is_a_gap(queue: QueueBench) -> None:
    stream, reader = queue.stream(), queue.stream()
    await publish(stream, 1, 2)
    await reader.open()
    await queue.trim_fences(1)
    assert await drain(reader) == [-1, 2]


async def test_what_is_trimmed_after_opening_an_empty_stream_is_a_gap(queue: QueueBench) -> None:
    """Trace 11, and the position of a reader that has seen no item."""
    stream, reader = queue.stream(), queue.stream()
    await reader.open()
    await publish(stream, 1)
    await queue.trim_fences(0)
    assert await drain(reader) == [-1]


async def test_a_server_that_lost_its_data_is_a_gap_once(queue: QueueBench) -> None:
    """Trace 25: whatever was published since is delivered, and the position is in the new stream."""
    stream, reader = queue.stream(), queue.stream()
    await publish(stream, 1)
    await reader.open()
    assert await drain(reader) == [1]
    await queue.lose_all()
    await publish(queue.stream(), 2)
    assert await drain(reader) == [-1, 2]
    await publish(queue.stream(), 3)
    assert await drain(reader) == [3]


async def test_a_reader_without_a_position_has_a_gap(queue: QueueBench) -> None:
    await publish(queue.stream(), 1)
    assert await drain(queue.stream()) == [-1, 1]


async def test_the_floor_of_a_new_reader_is_behind_nothing_that_may_be_gone(queue: QueueBench) -> None:
    """Traces 10, 11: publication time of the oldest retained item and 3 S, heartbeats included; if there is none, now."""
    empty_from = await queue.now_us()
    floor = (await queue.stream().open()).floor
    assert empty_from + 3 * SKEW <= floor <= await queue.now_us() + 3 * SKEW + 1000
    await queue.lose_all()
    stream = queue.stream()
    before = await queue.now_us()
    await queue.beat(1, stream)
    after = await queue.now_us()
    await publish(stream, 1)
    floor = (await queue.stream().open()).floor
    assert before - 1000 + 3 * SKEW <= floor <= after + 1000 + 3 * SKEW
    await queue.now_us()
    await publish(stream, 2)
    await queue.trim_fences(1)
    assert (await queue.stream().open()).floor > floor


async def test_many_fences_at_once_arrive_all(queue: QueueBench) -> None:
    reader = queue.stream()
    await reader.open()
    await queue.stream().publish([Fence(i, i + 1) for i in range(10_000)])
    assert sorted(await drain(reader)) == list(range(1, 10_001))


async def test_a_placement_travels_with_its_fences(queue: QueueBench) -> None:
    fences = [
        Fence(1, 1),
        Fence(2, 2, placement=7),
        Fence(3, 3, soft=True, placement=(1 << 32) - 1),
        Fence(4, 4, namespace="docs", placement=7),
        Fence(5, 5, unapplied=True, placement=7),
    ]
    assert await queue.delivered(fences) == fences


async def test_the_epoch_of_changes_is_announced_once(queue: QueueBench) -> None:
    """A queue that nobody has used yet has an epoch too, and nobody has announced it."""
    first = await queue.changes.completion()
    assert first.epoch
    assert not first.announced
    await queue.changes.append(CHANGE)
    await take(queue)
    assert (await queue.changes.completion()).epoch == first.epoch
    await queue.announce()
    after = await queue.changes.completion()
    assert (after.epoch, after.announced) == (first.epoch, True)


async def test_a_queue_that_lost_its_changes_has_another_epoch(queue: QueueBench) -> None:
    """Even if a producer made the new stream before any of us came to it."""
    before = await queue.announce()
    await queue.lose_all()
    await queue.append_event(EVENT)
    after = await queue.changes.completion()
    assert after.epoch != before
    assert not after.announced
    with pytest.raises(OtherQueueError):
        await queue.stream().announce([], before)
    assert not (await queue.changes.completion()).announced, (
        "who comes late with the old one does not hide the new one"
    )
    await queue.announce()
    assert (await queue.changes.completion()).announced
    assert len(await take(queue)) == 1


async def test_a_fence_is_out_when_its_change_is_closed(queue: QueueBench) -> None:
    """Publishing is one transaction: `complete_to` cannot pass a change whose fence is not on the stream before the heartbeat."""
    reader = queue.stream()
    await reader.open()
    id_ = await queue.changes.append(CHANGE)
    await queue.stream().publish([Fence(1, 1)], done=[Done(id_)])
    await queue.beat(await complete_to(queue))
    batch = await reader.read(wait_seconds=SHORT)
    assert [fence.at for fence in batch.fences] == [1]
    assert (batch.complete_to or 0) > int(id_.partition("-")[0]) * 1000 - 1


async def test_who_reads_an_item_gets_its_id_and_all_its_fields(queue: QueueBench) -> None:
    seen: dict[str, Fields] = {}

    def decode(id_: str, fields: Fields) -> OpenChange:
        seen[id_] = dict(fields)
        return OpenChange(id_, source="somebody")

    fields = {b"schema": b"1", b"value": b"\xff\x00"}
    async with queue.reading_by(decode) as changes:
        id_ = await queue.append_fields(fields)
        assert list(await changes.take("c1", count=1, wait_seconds=SHORT)) == [
            OpenChange(id_, source="somebody")
        ]
        assert list(await changes.reclaim("c1", idle_seconds=0, count=1)) == [
            OpenChange(id_, source="somebody")
        ]
    assert seen == {id_: fields}


async def test_what_is_no_id_is_refused(queue: QueueBench) -> None:
    """Quietly closing nothing would leave a change open of which the caller thinks that it is done."""
    await queue.changes.append(CHANGE)
    await take(queue)
    for id_ in ("x", "here:1700000000000-0"):
        with pytest.raises(TierError):
            await queue.changes.acknowledge([id_])
        with pytest.raises(TierError):
            await queue.stream().publish([], done=[Done(id_)])


async def test_a_heartbeat_is_not_sent_while_another_one_is_recent(queue: QueueBench) -> None:
    """Two consumers may find in the same moment that one is due."""
    reader, first, second = (queue.stream() for _ in range(3))
    await reader.open()
    epoch = await queue.announce()
    assert not await has_beaten(queue)
    await first.heartbeat(1, epoch, unless_beaten_us=400_000)
    await second.heartbeat(2, epoch, unless_beaten_us=400_000)
    assert (await reader.read(wait_seconds=SHORT)).complete_to == 1
    assert await has_beaten(queue)
    await queue.pass_time(0.4)
    assert not await has_beaten(queue)
    await second.heartbeat(3, epoch, unless_beaten_us=400_000)
    assert (await reader.read(wait_seconds=SHORT)).complete_to == 3
    await queue.pass_time(-7200)
    assert not await has_beaten(queue), "a clock that was set back bars nobody"
    await queue.lose_all()
    assert not await has_beaten(queue)
