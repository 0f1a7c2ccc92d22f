"""A server whose clock was ahead and is set right: no time that it noted bars for hours."""

from collections.abc import AsyncIterator, Iterator

import pytest

from cachesvc.changes.contract import Done, Parked
from cachesvc.model.change import Change, Target
from cachesvc.model.clock import SECONDS
from cachesvc.model.errors import TierError
from cachesvc.model.fence import Fence
from cachesvc.tiers.l3.contract import Put
from tests.contracts import queue_benches
from tests.contracts.cell_benches import KEY, NS, SKEW_US, MemoryBench, RedisBench, redis_bench
from tests.contracts.queue_benches import QueueBench
from tests.doubles.servers import RealServer, redis_server, valkey_server

HOURS = 7200


# a queue -----------------------------------------------------------------------------------------


async def test_a_dead_follower_is_waited_for_no_longer_than_one_that_just_died(queue: QueueBench) -> None:
    stream = queue.stream(follower=("eu", "a"))
    await stream.open()
    await stream.report("")
    await queue.pass_time(-HOURS)
    (follower,) = await queue.stream().followers()
    assert follower.silent_us < SECONDS
    await queue.pass_time(61)
    assert await queue.stream().followers() == []


async def test_a_cell_that_missed_something_is_tried_at_once(queue: QueueBench) -> None:
    id_ = await queue.changes.append(Change(NS, keys=("a",)))
    await queue.changes.take("a", count=1, wait_seconds=0.01)
    parked = Parked("c1", await queue.now_us(), 0, Target.key(NS, "a"))
    await queue.stream().publish([Fence(1, 2)], done=[Done(id_, (parked,))])
    await queue.changes.parked(idle_seconds=1.0, count=10)
    await queue.pass_time(-HOURS)
    assert [one.target for one in await queue.changes.parked(idle_seconds=1.0, count=10)] == [parked.target]
    assert await queue.changes.parked(idle_seconds=1.0, count=10) == []
    await queue.pass_time(2)
    assert [one.target for one in await queue.changes.parked(idle_seconds=1.0, count=10)] == [parked.target]


async def open_change_of_a_clock_ahead(queue: QueueBench) -> str:
    if isinstance(queue, queue_benches.RedisBench):  # its clock cannot be set, so the id is made up
        ahead = (await queue.now_us()) // 1000 + HOURS * 1000
        item: object = await queue.admin.xadd("changes", {"event": b"{}"}, id=f"{ahead}-0")
        assert isinstance(item, bytes)
        return item.decode()
    id_ = await queue.changes.append(Change(NS, keys=("a",)))
    await queue.pass_time(-HOURS)
    return id_


async def test_an_open_change_whose_id_is_ahead_of_the_clock_stops_complete_to(queue: QueueBench) -> None:
    await queue.changes.take("a", count=1, wait_seconds=0.001)
    id_ = await open_change_of_a_clock_ahead(queue)
    first = await queue.changes.completion()
    assert first.complete_to <= first.now_us <= await queue.now_us()
    assert first.oldest == id_
    later = await queue.changes.completion()
    assert later.now_us > first.now_us
    assert later.complete_to == first.complete_to
    await queue.changes.acknowledge([id_])
    assert (await queue.changes.completion()).complete_to > first.complete_to


# a cell ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[redis_server, valkey_server])
def cell_server(request: pytest.FixtureRequest) -> Iterator[RealServer]:
    with request.param() as running:
        yield running


@pytest.fixture
async def cell(cell_server: RealServer) -> AsyncIterator[RedisBench]:
    async with redis_bench(cell_server) as bench:
        yield bench


async def test_a_cell_that_booted_two_hours_ahead_waits_s_and_not_two_hours(cell: RedisBench) -> None:
    now = (await cell.state()).now_us
    await cell.admin.hset("meta", "issues_from", str(now + HOURS * SECONDS))
    await cell.admin.hset("meta", "broken_at", str(now + HOURS * SECONDS + SKEW_US))
    (refused,) = await cell.cell.put_many([Put(KEY, await cell.entry())])
    assert isinstance(refused, TierError)
    assert "new issuer waits" in refused.why
    await cell.settle()
    entry, _ = await cell.fill()
    reply = await cell.read()
    assert (reply.entry, reply.exact) == (entry, True)
    assert await cell.fence(Target.tag(NS, "t")) > now


async def test_a_wait_of_a_new_issuer_is_still_a_wait(cell: RedisBench) -> None:
    await cell.restart_with_data()
    (refused,) = await cell.cell.put_many([Put(KEY, await cell.entry())])
    assert isinstance(refused, TierError)


async def test_a_record_that_was_filled_before_the_clock_was_set_back_is_not_answered(
    cell: RedisBench,
) -> None:
    """Two hours later it would look younger than the fences of these two hours."""
    await cell.fill()
    ahead = (await cell.state()).now_us + HOURS * SECONDS
    await cell.admin.setrange(b"v:" + KEY.id, 0, ahead.to_bytes(8, "big"))
    reply = await cell.read()
    assert (reply.entry, reply.fenced, reply.lease is not None) == (None, True, True)
    entry, _ = await cell.fill(lease=reply.lease)
    assert (await cell.read()).entry == entry


async def test_the_cell_in_this_process_does_the_same() -> None:
    cell = MemoryBench()
    await cell.settle()
    cell.memory.restart()
    await cell.pass_time(-HOURS)
    (refused,) = await cell.cell.put_many([Put(KEY, await cell.entry())])
    assert isinstance(refused, TierError)
    await cell.settle()
    await cell.fill(fresh_for=3 * HOURS)
    await cell.pass_time(-60)
    await cell.settle()
    reply = await cell.read(refresh=True)
    assert (reply.entry, reply.fenced) == (None, True)
