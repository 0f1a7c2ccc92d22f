"""Traces that a region's queue alone decides: does it say what it has lost? In memory, and in the Lua of a real server."""

import contextlib
from collections.abc import Sequence
from typing import Any

from cachesvc.changes.contract import (
    Attendance,
    Beat,
    Done,
    FenceStream,
    FollowerPosition,
    OtherQueueError,
    Parked,
    position_of,
)
from cachesvc.coherence.fences import Fences
from cachesvc.model.change import Change, Target
from cachesvc.model.entry import Entry, Key, tag_digests_of
from cachesvc.model.fence import Fence
from tests.contracts.queue_benches import SKEW, MemoryBench, QueueBench, RedisBench
from tests.doubles.clocks import ManualClock

HOUR_US = 3_600_000_000
ME = Attendance("me", "i1", ("c1=x",), 1_000_000)
TAG = Target.tag("docs", "t")


async def test_trace_09_a_reader_must_not_miss_that_it_was_overtaken_by_trimming(queue: QueueBench) -> None:
    reader = await _reader(queue)
    await queue.stream().publish([Fence(1, 10)])
    await queue.stream().publish([Fence(2, 20)])
    await queue.trim_fences(keep=1)
    assert (await reader.read(wait_seconds=0)).gap


async def test_trace_10_a_small_at_published_late_must_not_lower_the_floor_of_a_new_reader(
    queue: QueueBench,
) -> None:
    stalled_at = await queue.now_us()
    await queue.stream().publish([Fence(1, stalled_at + 1)])
    published_at = await queue.now_us()
    await queue.stream().publish([Fence(2, stalled_at)])
    await queue.trim_fences(keep=1)
    start = await queue.stream().open()
    assert start.floor >= published_at + 3 * SKEW


async def test_trace_11_an_empty_stream_must_not_be_without_a_floor(queue: QueueBench) -> None:
    before = await queue.now_us()
    start = await queue.stream().open()
    assert start.floor >= before + 3 * SKEW


async def test_trace_16_a_heartbeat_must_not_claim_what_is_open(queue: QueueBench) -> None:
    id_ = await queue.changes.append(Change("docs", keys=("a",)))
    await queue.changes.take("hangs", count=1, wait_seconds=0)
    await queue.now_us()
    accepted_ms, _ = position_of(id_)
    assert (await queue.changes.completion()).complete_to <= accepted_ms * 1000


async def test_trace_25_a_reader_must_not_miss_that_the_queue_lost_its_tail(queue: QueueBench) -> None:
    reader = await _reader(queue)
    await queue.stream().publish([Fence(1, 10)])
    await _fail_over_without_the_last_item(queue)
    assert (await reader.read(wait_seconds=0)).gap


async def test_trace_25_a_consumer_must_not_miss_that_accepted_changes_may_be_lost(queue: QueueBench) -> None:
    epoch = await queue.announce()
    await queue.changes.append(Change("docs", keys=("a",)))
    await queue.lose_all()
    completion = await queue.changes.completion()
    assert completion.epoch != epoch
    assert not completion.announced


async def test_trace_40_a_change_that_was_trimmed_must_be_another_epoch(queue: QueueBench) -> None:
    epoch = await queue.announce()
    await queue.changes.append(Change("docs", keys=("a",)))
    await queue.trim_changes(keep=0)
    completion = await queue.changes.completion()
    assert completion.epoch != epoch
    assert not completion.announced


async def test_trace_40_a_change_that_its_group_forgot_must_be_open(queue: QueueBench) -> None:
    id_ = await queue.changes.append(Change("docs", keys=("a",)))
    await queue.changes.take("gone", count=1, wait_seconds=0)
    await queue.delete_consumer("gone")
    await queue.now_us()
    assert (await queue.changes.completion()).oldest == id_
    assert [change.id for change in await queue.changes.reclaim("c", idle_seconds=0, count=1)] == [id_]


async def test_trace_79_a_change_that_waits_must_not_be_taken_in_place_of_the_callers_own(
    queue: QueueBench,
) -> None:
    first = await queue.changes.append(Change("docs", keys=("a",)))
    assert await queue.changes.take("i1", count=10, wait_seconds=0)
    await queue.changes.acknowledge([first])
    waits = await queue.changes.append(Change("docs", keys=("b",)))
    async with queue.reading_by(consumer="i0") as own:
        held = await own.append(Change("docs", keys=("c",)), held_until_us=await queue.now_us())
    assert [one.id for one in await queue.changes.take("i1", count=10, wait_seconds=0)] == [waits, held]


async def test_trace_80_an_item_that_was_not_pushed_must_not_be_passed_over(queue: QueueBench) -> None:
    """As an older release appends it, or while a follower's connection is made anew."""
    reader, publisher = await _reader(queue), queue.stream()
    assert not (await reader.read(wait_seconds=0.01)).fences
    await publisher.publish([Fence(1, 10)])
    assert (await reader.read(wait_seconds=1)).fences
    await queue.append_fence_item(b"p", (2).to_bytes(8, "big") + (20).to_bytes(8, "big"))
    await publisher.publish([Fence(3, 30)])
    seen = [*(await reader.read(wait_seconds=1)).fences, *(await reader.read(wait_seconds=0)).fences]
    assert [fence.at for fence in seen] == [20, 30]


async def test_trace_41_a_heartbeat_must_be_refused_by_another_queue(queue: QueueBench) -> None:
    reader = await _reader(queue)
    completion = await queue.changes.completion()
    await queue.lose_all()
    with contextlib.suppress(OtherQueueError):
        await queue.stream().heartbeat(completion.complete_to, completion.epoch)
    assert (await reader.read(wait_seconds=0)).complete_to is None
    assert (await reader.read(wait_seconds=0)).complete_to is None


async def test_trace_81_a_look_must_not_send_a_heartbeat_over_changes_that_may_be_lost(
    queue: QueueBench,
) -> None:
    """Nobody has announced the loss: the consumer has met another epoch than that of the look."""
    epoch, reader = await queue.announce(), await _reader(queue)
    met = Beat(0, 1 << 60, epoch, (await queue.changes.completion()).queue)
    assert (await queue.changes.completion(ME, met)).has_beaten
    assert (await reader.read(wait_seconds=0)).complete_to is not None
    await queue.changes.append(Change("docs", keys=("a",)))
    await queue.trim_changes(keep=0)
    assert not (await queue.changes.completion(ME, met)).has_beaten
    assert (await reader.read(wait_seconds=0)).complete_to is None
    await queue.lose_all()
    assert not (await queue.changes.completion(ME, met)).has_beaten
    lost = await queue.announce()
    assert not (await queue.changes.completion(ME, Beat(0, 1 << 60, lost, met.queue))).has_beaten, (
        "it is another queue: who else uses it?"
    )


async def test_trace_82_a_look_must_not_send_the_time_of_a_wrong_clock(queue: QueueBench) -> None:
    """The queue's clock may be ahead, or give an open change another age than before."""
    epoch, reader = await queue.announce(), await _reader(queue)
    id_ = await queue.changes.append(Change("docs", keys=("a",)))
    await queue.changes.take("hangs", count=1, wait_seconds=0)
    seen = await queue.changes.completion()
    own_us = seen.now_us - 1
    for beat in (
        Beat(0, 1 << 60, epoch, seen.queue, id_),
        Beat(0, own_us, epoch, seen.queue),
    ):
        assert not (await queue.changes.completion(ME, beat)).has_beaten
        assert (await reader.read(wait_seconds=0)).complete_to is None
    assert (await queue.changes.completion(ME, Beat(0, 1 << 60, epoch, seen.queue))).has_beaten
    assert (await reader.read(wait_seconds=0)).complete_to == seen.complete_to


async def test_trace_44_a_second_instance_of_a_name_must_be_waited_for(queue: QueueBench) -> None:
    behind = queue.stream(follower=("here", "i0"), incarnation="a")
    await behind.open()
    ahead = queue.stream(follower=("here", "i0"), incarnation="b")
    await ahead.open()
    position = await ahead.publish([Fence(1, 10)])
    await ahead.report(position)
    positions = {one.incarnation: one.position for one in await queue.stream().followers()}
    assert positions == {"a": "0-0", "b": position}


async def test_trace_47_the_first_cell_that_has_a_tag_must_not_speak_for_the_others(
    queue: QueueBench,
) -> None:
    reader = await _reader(queue)
    both = [Parked(cell, await queue.now_us(), 0, TAG) for cell in ("c2", "c3")]
    await _park(queue, *both)
    await queue.stream().settle(both[:1])
    assert not (await reader.read(wait_seconds=0)).fences
    await queue.stream().settle(both[1:])
    assert (await reader.read(wait_seconds=0)).fences


async def test_trace_48_a_retry_must_not_end_what_was_parked_meanwhile(queue: QueueBench) -> None:
    early = Parked("c2", await queue.now_us(), 0, TAG)
    late = Parked("c2", early.at + 10, 0, TAG)
    await _park(queue, early)
    assert list(await queue.changes.parked(idle_seconds=0, count=10)) == [early]
    await _park(queue, late)
    await queue.stream().settle([early])
    assert list(await queue.changes.parked(idle_seconds=0, count=10)) == [late]


async def test_trace_48_what_is_more_than_a_queue_keeps_must_not_be_forgotten(queue: QueueBench) -> None:
    async with queue.bounded(4, 1000) as small:
        now = await small.now_us()
        await _park(small, *(Parked("c2", now + n, 0, Target.key("docs", str(n))) for n in range(5)))
        assert list(await small.changes.parked(idle_seconds=0, count=10)) == [Parked("c2", now + 4)]


async def test_trace_50_the_followers_of_another_server_must_not_answer_for_a_fence(
    queue: QueueBench,
) -> None:
    position = await queue.stream().publish([Fence(1, 10)])
    await queue.lose_all()
    other = queue.stream(follower=("here", "i1"))
    await other.open()
    await other.report(await queue.stream().publish([Fence(2, 20)]))
    listed: Sequence[FollowerPosition] = ()
    with contextlib.suppress(OtherQueueError):
        listed = await queue.stream().followers(of=position)
    assert not listed


async def _park(queue: QueueBench, *parked: Parked) -> None:
    id_ = await queue.changes.append(Change("docs", tags=("t",)))
    await queue.stream().publish([], done=[Done(id_, parked)])


async def test_trace_54_a_reader_must_not_pass_an_item_that_it_cannot_read(queue: QueueBench) -> None:
    reader = await _reader(queue)
    await queue.append_fence_item(b"p", bytes(15))
    await queue.stream().publish([Fence(2, 20)])
    batch = await reader.read(wait_seconds=0)
    assert (batch.gap, batch.unreadable, [fence.digest for fence in batch.fences]) == (True, 1, [2])
    await queue.stream().publish([Fence(3, 30)])
    assert not (await reader.read(wait_seconds=0)).gap


async def test_trace_59_a_paced_fence_without_room_must_not_be_forgotten(queue: QueueBench) -> None:
    async with queue.bounded(paced=2) as small:
        now = await small.now_us()
        key, (tag,) = Key.of("docs", "a"), tag_digests_of("docs", ("t",))
        copy = Entry(b"0", now - 1, now + HOUR_US, tags=("t",), tag_digests=(tag,))
        paced = [Fence(target, now, over=HOUR_US + n) for n, target in enumerate((tag, 1, 2))]
        await small.stream().publish(paced)
        await small.trim_fences(keep=0)
        i1 = Fences(ManualClock(now), 100_000, 1 << 10, ["here"], 1)
        i1.merge((await small.stream().open()).fences)
        assert i1.is_soft_fenced(copy, key.digest, "docs", now + HOUR_US)


async def test_trace_60_a_server_that_was_a_replica_meanwhile_must_be_another_epoch(
    queue: QueueBench,
) -> None:
    reader, epoch = await _reader(queue), await queue.announce()
    while (await reader.read(wait_seconds=0)).fences:
        pass
    await queue.changes.append(Change("docs", keys=("a",)))
    await queue.stream().publish([Fence(2, 20)])
    await _fail_over_and_back_without_the_last_items(queue)
    assert (await reader.read(wait_seconds=0)).gap
    completion = await queue.changes.completion()
    assert completion.epoch != epoch
    assert not completion.announced


async def _reader(queue: QueueBench) -> FenceStream:
    """One that has read all there is."""
    reader = queue.stream()
    await queue.beat(1)
    await reader.open()
    await reader.read(wait_seconds=0)
    return reader


async def _fail_over_and_back_without_the_last_items(queue: QueueBench) -> None:
    """To a server without them, to which nobody attaches, and back with its data."""
    if isinstance(queue, MemoryBench):
        server = queue.queue
        server.fences.pop()
        server.changes.popitem()
        server.added -= 1
        server.be_promoted()
    elif isinstance(queue, RedisBench):
        newest: Any = await queue.admin.xrevrange("fences", count=1)
        await queue.admin.xdel("fences", newest[0][0])
        changes: Any = await queue.admin.xrange("changes")
        ((id_, _),) = changes
        await queue.admin.xdel("changes", id_)
        admin: Any = queue.admin
        await admin.execute_command("XSETID", "changes", id_, "ENTRIESADDED", 0, "MAXDELETEDID", "0-0")
        await queue.admin.replicaof("127.0.0.1", "1")
        await queue.admin.replicaof("NO", "ONE")


async def _fail_over_without_the_last_item(queue: QueueBench) -> None:
    """To a replica that has got all but the last item: what a reader has read is still there."""
    if isinstance(queue, MemoryBench):
        queue.queue.fences.pop()
        queue.queue.epoch += 1
    elif isinstance(queue, RedisBench):
        newest: Any = await queue.admin.xrevrange("fences", count=1)
        await queue.admin.xdel("fences", newest[0][0])
        await queue.admin.set("fences:epoch", "of another server")
