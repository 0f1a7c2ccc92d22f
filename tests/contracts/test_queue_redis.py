"""Failures that only a queue on a real server can have.

They concern connections, and servers that die, hang, fill up or come back different.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from cachesvc.changes.contract import Done, FenceBatch, Parked, ReceiptRecord
from cachesvc.changes.redis import fences
from cachesvc.changes.redis.changes import RedisChanges
from cachesvc.changes.redis.fences import RedisFenceStream
from cachesvc.model.change import Change, Target
from cachesvc.model.errors import TierError, TierTimeoutError, TierUnavailableError
from cachesvc.model.fence import Fence
from cachesvc.model.units import Duration
from tests.contracts.queue_benches import RETENTION, SKEW, RedisBench, redis_bench
from tests.doubles.servers import RealServer, redis_server

CHANGE = Change("docs", keys=("a",))
SHORT = 0.01


@pytest.fixture(scope="module")
def server() -> Iterator[RealServer]:
    with redis_server(tcp=True) as running:
        yield running


@pytest.fixture
async def bench(server: RealServer) -> AsyncIterator[RedisBench]:
    async with redis_bench(server) as found:
        yield found


async def caught_up(stream: RedisFenceStream) -> RedisFenceStream:
    await stream.open()
    while (await stream.read(wait_seconds=SHORT)).fences:
        pass
    return stream


async def test_a_dead_server_is_an_error_and_its_return_is_a_gap(bench: RedisBench) -> None:
    reader = bench.stream()
    await reader.publish([Fence(1, 1)])
    await caught_up(reader)
    await bench.changes.take("c", count=1, wait_seconds=0)
    bench.server.kill()
    with pytest.raises(TierUnavailableError):
        await reader.read(wait_seconds=1)
    with pytest.raises(TierUnavailableError):
        await bench.changes.append(CHANGE)
    with pytest.raises(TierUnavailableError):
        await bench.changes.take("c", count=1, wait_seconds=1)
    with pytest.raises(TierUnavailableError):
        await bench.changes.completion()
    await asyncio.to_thread(bench.server.restart)
    batch = await reader.read(wait_seconds=1)
    assert batch == FenceBatch([], None, gap=True, position=batch.position, report=True)
    change_id = await bench.changes.append(CHANGE)
    (taken,) = await bench.changes.take("c", count=1, wait_seconds=1)
    assert taken.id == change_id


async def test_a_hanging_server_costs_the_time_limit(bench: RedisBench) -> None:
    changes = RedisChanges(bench.server.redis_url, "here", timeout=Duration.parse("50ms"))
    stream = RedisFenceStream(
        bench.server.redis_url, "here", skew=SKEW, retention=RETENTION, timeout=Duration.parse("50ms")
    )
    await caught_up(stream)
    await changes.append(CHANGE)
    bench.server.pause()
    try:
        for call in (
            changes.append(CHANGE),
            changes.take("c", count=1, wait_seconds=0.01),
            stream.read(wait_seconds=0.01),
        ):
            with pytest.raises(TierTimeoutError):
                await call
    finally:
        bench.server.resume()
        await stream.stop()
        await changes.stop()


async def test_an_instance_stops_while_its_queue_is_dead(bench: RedisBench) -> None:
    reader = bench.stream(follower=("here", "i1"))
    await reader.open()
    bench.server.kill()
    await reader.stop()
    await asyncio.to_thread(bench.server.restart)


async def test_a_waiting_reader_does_not_hold_up_what_is_published(bench: RedisBench) -> None:
    stream = await caught_up(bench.stream())
    waiting = asyncio.create_task(stream.read(wait_seconds=30))
    await asyncio.sleep(0)
    await stream.publish([Fence(1, 1)])
    assert [fence.at for fence in (await waiting).fences] == [1]


async def test_what_is_remembered_for_another_epoch_is_bounded_in_bytes(
    bench: RedisBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10,000 items of a thousand fences each took 160 MB."""
    monkeypatch.setattr(fences, "REMEMBER_BYTES", 5_000)
    stream = bench.stream()
    for at in range(1, 11):
        await stream.publish([Fence(at * 100 + nth, at) for nth in range(100)])
        remembered = [item for _, item in stream._published]
        assert stream._published_bytes == sum(len(part) for item in remembered for part in item) <= 5_000
    assert len(remembered) == 3, "the newest ones"


async def test_a_cancelled_read_loses_nothing(bench: RedisBench) -> None:
    """Whatever point of the exchange it is cancelled at."""
    reader, publisher = await caught_up(bench.stream()), bench.stream()
    for turns in range(12):
        await publisher.publish([Fence(turns, turns + 1)])
        reading = asyncio.create_task(reader.read(wait_seconds=1))
        for _ in range(turns):
            await asyncio.sleep(0)
        if reading.done():
            continue
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        seen: list[int] = []
        while turns + 1 not in seen:
            batch = await reader.read(wait_seconds=1)
            assert not batch.gap
            seen += [fence.at for fence in batch.fences]


async def test_another_epoch_is_a_gap_even_if_the_position_is_there(bench: RedisBench) -> None:
    """A replica was promoted, or the server came back from disk: the tail may be missing."""
    reader = bench.stream()
    await reader.publish([Fence(1, 1)])
    await caught_up(reader)
    await bench.admin.set("fences:epoch", "another")
    assert (await reader.read(wait_seconds=SHORT)).gap
    batch = await reader.read(wait_seconds=SHORT)
    assert ([fence.at for fence in batch.fences], batch.gap) == ([1], False)


@pytest.mark.parametrize("notices", ["publish", "heartbeat"])
async def test_a_publisher_repeats_its_last_minute_after_a_new_epoch(bench: RedisBench, notices: str) -> None:
    publisher, reader = bench.stream(), bench.stream()
    await publisher.publish([Fence(1, 1), Fence(2, 2)])
    await bench.lose_all()
    await reader.open()
    if notices == "publish":
        await publisher.publish([Fence(3, 3)])
    else:
        await bench.beat(9, publisher)
    seen = [fence.at for fence in (await reader.read(wait_seconds=SHORT)).fences]
    assert {1, 2} <= set(seen)
    before = await bench.admin.xlen("fences")
    await bench.beat(9, publisher)
    assert await bench.admin.xlen("fences") == before + 1


@pytest.mark.parametrize("fields", [{"p": "odd"}, {"n": "\x92\x01"}, {"h": "soon"}, {"later": "1"}])
async def test_an_item_that_cannot_be_read_is_a_gap(bench: RedisBench, fields: dict[str, str]) -> None:
    reader = await caught_up(bench.stream())
    await bench.admin.xadd("fences", fields)  # type: ignore[arg-type]  # redis-py: the dict's types are invariant
    await bench.stream().publish([Fence(1, 1)])
    batch = await reader.read(wait_seconds=SHORT)
    assert ([fence.at for fence in batch.fences], batch.gap) == ([1], True)
    assert not (await reader.read(wait_seconds=SHORT)).gap


async def test_an_item_that_cannot_be_read_may_have_been_paced(bench: RedisBench) -> None:
    """So the gap tells those in force, once, beside what else was read."""
    reader = await caught_up(bench.stream())
    paced = Fence(7, await bench.now_us(), over=1_000_000)
    await bench.stream().publish([paced])
    await reader.read(wait_seconds=SHORT)
    await bench.admin.xadd("fences", {"later": "1"})
    await bench.admin.zadd("fences:paced", {"of a later release": paced.at + 1_000_000_000})
    await bench.stream().publish([Fence(1, 1)])
    batch = await reader.read(wait_seconds=SHORT)
    assert (list(batch.fences), batch.gap, batch.report) == ([Fence(1, 1), paced], True, True)


async def test_a_publisher_repeats_its_paced_fences_however_old(bench: RedisBench) -> None:
    publisher = bench.stream()
    now = await bench.now_us()
    paced, over = Fence(1, now - 120_000_000, over=600_000_000), Fence(2, now - 9_000_000_000, over=1_000_000)
    await publisher.publish([over])
    await publisher.publish([paced])
    await bench.lose_all()
    await publisher.publish([Fence(3, 3)])
    assert list((await bench.stream().open()).fences) == [paced]


@pytest.mark.parametrize("lost", ["stream", "group"])
@pytest.mark.parametrize("notices", ["take", "completion"])
async def test_the_epoch_of_changes_goes_with_its_group(bench: RedisBench, lost: str, notices: str) -> None:
    before = await bench.changes.completion()
    if lost == "stream":
        await bench.admin.delete("changes")
    else:
        await bench.admin.xgroup_destroy("changes", "cachesvc")
    await bench.admin.xadd("changes", {"event": "x"})
    if notices == "take":
        await bench.changes.take("c", count=1, wait_seconds=SHORT)
    assert (await bench.changes.completion()).epoch != before.epoch


async def test_a_server_that_started_again_has_another_epoch_of_changes(bench: RedisBench) -> None:
    """Even with all its keys: its disk may lack the tail."""
    before = await bench.announce()
    random: Any = await bench.admin.get("changes:epoch")
    await bench.changes.stop()
    await bench.admin.aclose()
    await asyncio.to_thread(bench.server.restart)
    await bench.changes.take("c", count=1, wait_seconds=SHORT)
    await bench.admin.set("changes:epoch", random)
    await bench.admin.set("changes:announced", before)
    after = await bench.changes.completion()
    assert after.epoch != before
    assert not after.announced


async def test_a_read_ends_after_a_mebibyte(bench: RedisBench) -> None:
    """A million retained fences are no single answer: the reader's loop goes on between its reads."""
    publisher, reader = bench.stream(), bench.stream(max_batch=1000)
    total = 64 * 4096
    await publisher.publish([Fence(number, 1) for number in range(total)])
    await reader.open()
    sizes: list[int] = []
    while sum(sizes) < total:
        sizes.append(len((await reader.read(wait_seconds=SHORT)).fences))
    assert max(sizes) <= 32 * 4096


async def test_parked_changes_do_not_count_as_open(bench: RedisBench) -> None:
    """One cell that is away would otherwise end the invalidations of all others."""
    changes = RedisChanges(bench.server.redis_url, "here", max_open=1)
    try:
        id_ = await changes.append(CHANGE)
        await bench.stream().publish(
            [Fence(1, 1)], done=[Done(id_, (Parked("c2", 1, 0, Target.key("docs", "a")),))]
        )
        await changes.append(CHANGE)
        with pytest.raises(TierUnavailableError, match="do not keep up"):
            await changes.append(CHANGE)
    finally:
        await changes.stop()


async def test_a_publication_that_was_refused_closed_nothing(bench: RedisBench) -> None:
    id_ = await bench.changes.append(CHANGE)
    await bench.admin.config_set("maxmemory", "1")
    try:
        with pytest.raises(TierError, match="maxmemory"):
            await bench.stream().publish([Fence(1, 1)], done=[Done(id_)])
    finally:
        await bench.admin.config_set("maxmemory", "0")
    assert await bench.stream().receipt(id_) == ReceiptRecord("open")
    assert await bench.admin.xlen("fences") == 0


async def test_items_older_than_the_retention_go(bench: RedisBench) -> None:
    for i in range(300):
        await bench.admin.xadd("fences", {"h": "1"}, id=f"{i + 1}-0")
    await bench.beat(1)
    assert await bench.admin.xlen("fences") <= 101, "whole nodes of 100 items are trimmed"


async def test_when_too_many_changes_are_open_the_next_is_refused(bench: RedisBench) -> None:
    changes = RedisChanges(bench.server.redis_url, "here", max_open=2)
    try:
        ids = [await changes.append(CHANGE) for _ in range(2)]
        with pytest.raises(TierUnavailableError, match="do not keep up"):
            await changes.append(CHANGE)
        await changes.acknowledge(ids[:1])
        await changes.append(CHANGE)
    finally:
        await changes.stop()


async def test_a_full_server_takes_no_change_and_says_so(bench: RedisBench) -> None:
    await bench.admin.config_set("maxmemory", "1")
    try:
        with pytest.raises(TierError, match="maxmemory"):
            await bench.changes.append(CHANGE)
    finally:
        await bench.admin.config_set("maxmemory", "0")


async def test_two_consumers_that_make_the_group_at_once(bench: RedisBench) -> None:
    other = RedisChanges(bench.server.redis_url, "here")
    change_id = await bench.changes.append(CHANGE)
    try:
        taken = await asyncio.gather(
            *[c.take("c", count=1, wait_seconds=SHORT) for c in (bench.changes, other)]
        )
        assert [item.id for batch in taken for item in batch] == [change_id]
    finally:
        await other.stop()


async def test_an_item_without_an_event_is_buried(bench: RedisBench) -> None:
    await bench.admin.xadd("changes", {"evnt": "x"})
    (bad,) = await bench.changes.take("c", count=1, wait_seconds=SHORT)
    assert not bad.changes
    await bench.changes.bury(bad)
    await bench.changes.bury(bad)
    assert await bench.admin.xlen("changes:dead") == 1
    assert await bench.admin.xlen("changes") == 0
