"""A cell's or queue's server that real sentinels watch, and which they replace."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from redis import Redis as BlockingRedis
from redis.asyncio import Redis

from cachesvc.changes.redis.changes import RedisChanges
from cachesvc.changes.redis.fences import RedisFenceStream
from cachesvc.config.logins import RedisLogin, RedisLogins
from cachesvc.model.change import Change, Target
from cachesvc.model.clock import SystemClock
from cachesvc.model.entry import Key
from cachesvc.model.errors import TierError, TierUnavailableError
from cachesvc.model.fence import Fence
from cachesvc.model.units import Duration
from cachesvc.tiers.l3.contract import Read
from cachesvc.tiers.l3.redis_cell import RedisCell
from cachesvc.tiers.redis_connections import DEFAULT_ACCESS, Access, access_of
from tests.contracts.cell_benches import SETTINGS, SKEW_US
from tests.doubles.certificates import Authority
from tests.doubles.sentinels import NAME, Watched, sentinel, watched
from tests.doubles.servers import free_port, redis_server

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
async def cell_at(url: str, access: Access = DEFAULT_ACCESS) -> AsyncIterator[RedisCell]:
    cell = RedisCell("c1", url, SETTINGS, SKEW_US, SystemClock(), access=access)
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


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[tuple[str, ssl.SSLContext]]:
    """The URL of a server with TLS and a password, and of its sentinel with TLS and another one."""
    authority = Authority(tmp_path)
    server, port = authority.issue(), free_port()
    files = {"cert": server.cert, "key": server.key, "ca-cert": server.ca}
    words = [word for name, file in files.items() for word in (f"--tls-{name}-file", file)]
    lines = [
        *(f"tls-{name}-file {file}" for name, file in files.items()),
        "tls-auth-clients no",
        "tls-replication yes",
        "requirepass of-sentinels",
        f"sentinel monitor {NAME} 127.0.0.1 {port} 1",
        f"sentinel auth-pass {NAME} of-servers",
    ]
    ports = ("--tls-port", str(port), "--tls-auth-clients", "no")
    with redis_server(*ports, *words) as up, sentinel(*lines, port="tls-port") as watching:
        with BlockingRedis.from_url(up.redis_url) as admin:
            admin.config_set("requirepass", "of-servers")
        yield f"rediss+sentinel://localhost:{watching.port}/{NAME}/0", authority.client_context()


async def test_sentinels_with_tls_and_a_login_of_their_own(guarded: tuple[str, ssl.SSLContext]) -> None:
    url, context = guarded
    access = access_of(
        RedisLogins(password="of-servers"), "cells", RedisLogin(password="of-sentinels"), context
    )
    async with cell_at(url, access) as cell:
        await fenced(cell)
    scheme, _, rest = url.partition("//")
    async with cell_at(
        f"{scheme}//:of-servers@{rest}?sentinel_password=of-sentinels", Access(context)
    ) as cell:
        await fenced(cell)
    wrong = access_of(RedisLogins(password="of-servers"), "cells", RedisLogin(password="wrong"), context)
    async with cell_at(url, wrong) as cell:
        (reply,) = await cell.fence_many([Target.key("docs", "a")], soft=False)
    assert isinstance(reply, TierUnavailableError)
    assert "invalid username-password pair" in reply.why
    assert reply.why.endswith("look at the user and password of `sentinel`, or of its URL")
    async with cell_at(url, Access()) as cell:
        (reply,) = await cell.fence_many([Target.key("docs", "a")], soft=False)
    assert isinstance(reply, TierUnavailableError)
    assert "its certificate is of an authority that tls.ca does not have" in reply.why
