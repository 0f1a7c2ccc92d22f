"""What the queue pushes to followers, on a real server: counted in commands, and what is not believed."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from cachesvc.changes.contract import FenceBatch, FenceStream
from cachesvc.changes.redis import pushes
from cachesvc.changes.redis.fences import RedisFenceStream
from cachesvc.changes.redis.pushes import Push, _push_in
from cachesvc.model.errors import TierUnavailableError
from cachesvc.model.fence import Fence
from tests.contracts.queue_benches import RedisBench, redis_bench
from tests.doubles.servers import RealServer, redis_server


@pytest.fixture(scope="module")
def server() -> Iterator[RealServer]:
    with redis_server() as running:
        yield running


@pytest.fixture
async def bench(server: RealServer) -> AsyncIterator[RedisBench]:
    async with redis_bench(server) as made:
        yield made


async def reader_of(bench: RedisBench) -> RedisFenceStream:
    """A follower at the end of the stream, to which the queue pushes."""
    await bench.stream().publish([Fence(0, 1)])
    reader = bench.stream()
    await reader.open()
    await read(reader, 1)
    waiting = asyncio.create_task(reader.read(wait_seconds=5))
    await asyncio.sleep(0.05)
    await bench.stream().publish([Fence(0, 2)])
    await waiting
    return reader


async def read(reader: FenceStream, fences: int) -> list[FenceBatch]:
    """The batches up to the one with so many fences in all."""
    batches: list[FenceBatch] = []
    while sum(len(batch.fences) for batch in batches) < fences:
        batches.append(await reader.read(wait_seconds=5))
        assert not batches[-1].gap
    return batches


async def calls(bench: RedisBench) -> dict[str, int]:
    """The commands of clients and scripts since the last call, by name."""
    stats: Any = await bench.admin.info("commandstats")
    await bench.admin.config_resetstat()
    return {name.removeprefix("cmdstat_"): one["calls"] for name, one in stats.items()}


async def test_a_follower_sends_no_command_for_what_is_pushed(bench: RedisBench) -> None:
    reader, publisher = await reader_of(bench), bench.stream()
    await publisher.publish([Fence(0, 3)])
    await read(reader, 1)
    await calls(bench)
    for at in range(20):
        await publisher.publish([Fence(7, 100 + at)])
        (batch,) = await read(reader, 1)
        assert [fence.at for fence in batch.fences] == [100 + at]
    counted = await calls(bench)
    assert (counted["evalsha"], counted.get("xread", 0)) == (20, 0), "those of the publisher"


async def test_changes_that_come_at_once_are_taken_in_together(bench: RedisBench) -> None:
    reader, publisher = await reader_of(bench), bench.stream()
    for at in range(100, 110):
        await publisher.publish([Fence(7, at)])
    batches = await read(reader, 10)
    assert [fence.at for batch in batches for fence in batch.fences] == [*range(100, 110)]
    assert len(batches) < 10


async def test_a_long_item_is_not_pushed_and_is_read_from_the_stream(bench: RedisBench) -> None:
    reader, publisher = await reader_of(bench), bench.stream()
    await publisher.publish([Fence(digest, 9) for digest in range(1000)])
    await publisher.publish([Fence(1, 10)])
    await read(reader, 1001)
    assert reader._pushes.is_trusted, "nothing was missed"


async def test_news_that_nobody_pushes_is_found_and_waited_for_in_another_way(bench: RedisBench) -> None:
    """As an older release appends its items."""
    reader = await reader_of(bench)
    for _ in range(pushes.MOST_MISSED):
        assert reader._pushes.is_trusted
        await bench.append_fence_item(b"h", b"7")
        assert (await reader.read(wait_seconds=0.02)).complete_to == 7
    assert not reader._pushes.is_trusted
    waiting = asyncio.create_task(reader.read(wait_seconds=5))
    await asyncio.sleep(0.05)
    await bench.append_fence_item(b"h", b"8")
    assert (await waiting).complete_to == 8


async def test_a_user_without_the_right_to_subscribe_waits_in_another_way(bench: RedisBench) -> None:
    await bench.admin.acl_setuser("default", enabled=True, nopass=True, commands=["-subscribe"])
    try:
        reader = await reader_of(bench)
        assert not reader._pushes.is_trusted
        waiting = asyncio.create_task(reader.read(wait_seconds=5))
        await asyncio.sleep(0.05)
        await bench.stream().publish([Fence(1, 10)])
        assert [fence.at for fence in (await waiting).fences] == [10]
    finally:
        await bench.admin.acl_setuser("default", enabled=True, nopass=True, commands=["+subscribe"])


async def test_what_anybody_pushes_is_only_a_hint(bench: RedisBench) -> None:
    """A push of another epoch, one that cannot be read, and one that was delivered already."""
    reader = await reader_of(bench)
    at, epoch = reader._position.decode(), reader.epoch
    for said in (
        f"{epoch}x {at} 9999999999999-0 1 1\nh7",
        "garbage",
        f"{epoch} {at} 9999999999999-0 9 1\nh7",
        f"{epoch} - 1-1 1 1\nh7",
    ):
        await bench.admin.publish(reader._channel.decode(), said)
        batch = await reader.read(wait_seconds=0.05)
        assert (batch.complete_to, batch.gap, batch.position) == (None, False, reader._in_epoch(at.encode()))
    await bench.stream().publish([Fence(1, 10)])
    await read(reader, 1)


async def test_a_follower_whose_connection_is_cut_goes_on_where_it_was(bench: RedisBench) -> None:
    reader = await reader_of(bench)
    await bench.admin.client_kill_filter(_type="pubsub")
    await bench.stream().publish([Fence(1, 10)])
    await asyncio.sleep(0.05)
    await read(reader, 1)
    waiting = asyncio.create_task(reader.read(wait_seconds=5))
    await asyncio.sleep(0.05)
    await bench.admin.client_kill_filter(_type="pubsub")
    with pytest.raises(TierUnavailableError):
        await waiting
    await bench.stream().publish([Fence(1, 11)])
    await read(reader, 1)


@pytest.mark.parametrize(
    "payload",
    [b"", b"e 1-1", b"e 1-1 1-2 1\nh", b"e 1-1 1-2 1 1\nh", b"e 1-1 1-2 1 1\nh77", b"e x 1-2 1 1\nh7"],
)
def test_a_push_of_another_shape_is_none(payload: bytes) -> None:
    assert _push_in(payload) is None


def test_a_push_has_the_fields_of_its_item() -> None:
    assert _push_in(b"e:s - 1-2 1 3\np\n\x00\n") == Push(b"e:s", b"-", b"1-2", {b"p": b"\n\x00\n"})
    assert _push_in(b"e:s 1-1 1-2\n") == Push(b"e:s", b"1-1", b"1-2", None)
