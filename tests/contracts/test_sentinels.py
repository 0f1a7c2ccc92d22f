"""A cell's or queue's server that real sentinels watch, and which they replace."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TypeVar

import pytest
from redis.asyncio import Redis

from cachesvc.changes.redis.changes import RedisChanges
from cachesvc.changes.redis.fences import RedisFenceStream
from cachesvc.model.change import Change, Target
from cachesvc.model.clock import SystemClock
from cachesvc.model.entry import Key
from cachesvc.model.errors import TierError
from cachesvc.model.fence import Fence
from cachesvc.model.units import Duration
from cachesvc.tiers.l3.contract import Read
from cachesvc.tiers.l3.redis_cell import RedisCell
from tests.contracts.cell_benches import SETTINGS, SKEW_US
from tests.doubles.sentinels import Watched, watched

T = TypeVar("T")
CHANGE = Change("docs", keys=("a",))
SKEW, RETENTION = Duration.parse("100ms"), Duration.parse("1h")


@pytest.fixture(scope="module")
def group() -> Iterator[Watched]:
    with watched(3) as running:
        yield running


async def tried(call: Callable[[], Awaitable[T]]) -> T:
    """Returns the result of a call that is made until it succeeds, for ten seconds."""
    until = time.monotonic() + 10
    while True:
        try:
            return await call()
        except TierError:
            assert time.monotonic() < until
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def cell_at(url: str) -> AsyncIterator[RedisCell]:
    cell = RedisCell("c1", url, SETTINGS, SKEW_US, SystemClock())
    await cell.start()
    try:
        yield cell
    finally:
        await cell.stop()


async def fenced(cell: RedisCell) -> None:
    """Returns when the cell has taken a fence."""

    async def fence() -> None:
        (reply,) = await cell.fence_many([Target.key("docs", "a")], soft=False)
        if isinstance(reply, TierError):
            raise reply

    await tried(fence)


async def test_a_planned_failover_is_followed_although_the_old_master_goes_on(group: Watched) -> None:
    """Nothing fails: the old master takes writes for ten more seconds. What it takes is lost."""
    changes = RedisChanges(group.url(), "here")
    stream = RedisFenceStream(group.url(), "here", skew=SKEW, retention=RETENTION)
    async with cell_at(group.url(1)) as cell:
        await tried(lambda: changes.append(CHANGE))
        await stream.publish([Fence(1, 1)])
        await fenced(cell)
        old, issuer = await asyncio.to_thread(group.master), cell.issuer
        await asyncio.to_thread(group.fail_over)
        new = await asyncio.to_thread(group.master)
        async with Redis.from_url(old.redis_url) as admin:
            assert (await admin.info("replication"))["role"] == "master"
        until = time.monotonic() + 5
        while cell.issuer == issuer or (changes.master, stream.master) != (cell.master, cell.master):
            assert time.monotonic() < until
            for call in (lambda: changes.append(CHANGE), lambda: stream.publish([Fence(1, 1)])):
                await tried(call)
            await fenced(cell)
            await asyncio.sleep(0.05)
        assert cell.master == f"127.0.0.1:{new.port}"
        async with Redis.from_url(old.redis_url) as admin:
            taken = await admin.xlen("changes")
            await changes.append(CHANGE)
            assert await admin.xlen("changes") == taken
    await changes.stop()
    await stream.stop()


@pytest.mark.parametrize("harm", ["pause", "kill"])
async def test_a_master_that_hangs_or_is_killed_is_left_for_the_new_one(group: Watched, harm: str) -> None:
    changes = RedisChanges(group.url(), "here")
    async with cell_at(group.url(1)) as cell:
        old = await asyncio.to_thread(group.master)
        await tried(lambda: changes.append(CHANGE))
        await fenced(cell)
        issuer = cell.issuer
        getattr(old, harm)()
        await asyncio.to_thread(group.wait_replaced, old)
        decided = time.monotonic()
        await tried(lambda: changes.append(CHANGE))
        await fenced(cell)
        assert time.monotonic() - decided < 5
        assert cell.issuer != issuer
        (reply,) = await cell.read_many([Read(Key.of("docs", "a"))])
        assert not isinstance(reply, TierError)
        assert cell.master == changes.master
    await changes.stop()
