"""Servers that are far away answer with default settings; hung ones fail in time.

Real servers behind links that delay every byte (tests/faults/proxy.py).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from cachesvc.changes.redis.changes import RedisChanges
from cachesvc.config.service import L2, L3
from cachesvc.model.change import Change, Target
from cachesvc.model.clock import SECONDS, SystemClock
from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import TierError
from cachesvc.tiers.l2.deadline import Deadline
from cachesvc.tiers.l2.memcached import MemcachedTier
from cachesvc.tiers.l3.contract import FenceReply, Put, Read, Reply, Use
from cachesvc.tiers.l3.redis_cell import RedisCell
from cachesvc.tiers.redis_connections import RedisConnections
from tests.doubles.own_time import OwnTime
from tests.doubles.servers import RealServer, memcached_server, redis_server
from tests.doubles.waiting import until
from tests.faults.proxy import Link, Order

ROUND_TRIPS_MS = [50, 100, 200, 400]
KEY = Key.of("docs", "a")
CLOCK = SystemClock()
SKEW_US = 20_000
PATIENCE_SECONDS = 30.0
"""A single call may fail on a busy machine; a server that is too far fails all of them."""
LONGEST_SECONDS = 3.0
"""No call waits for a hung server longer than this, in the time that the loop has had."""


@pytest.fixture(scope="module")
def redis() -> Iterator[RealServer]:
    with redis_server(tcp=True) as running:
        yield running


@pytest.fixture(scope="module")
def memcached() -> Iterator[RealServer]:
    with memcached_server(tcp=True) as running:
        yield running


@asynccontextmanager
async def far(server: RealServer, round_trip_ms: float) -> AsyncIterator[tuple[int, Link]]:
    """The port of a link to the server, and the link."""
    link = Link(server.port)
    link.obey(Order("far", delay_ms=round_trip_ms / 2))
    listening = await link.listen(0)
    try:
        yield listening.sockets[0].getsockname()[1], link
    finally:
        link.obey(Order("far", mode="cut"))
        listening.close()


async def succeeded(call: Callable[[], Awaitable[object]]) -> int:
    """Calls until the answer is no `TierError`, and returns how often it failed before."""
    failures, ends = 0, time.monotonic() + PATIENCE_SECONDS
    while True:
        async with OwnTime() as took:
            try:
                answer = await call()
            except TierError as error:
                answer = error
        assert took.seconds < PATIENCE_SECONDS / 3
        if not isinstance(answer, TierError):
            return failures
        failures += 1
        assert time.monotonic() < ends, answer
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("round_trip_ms", ROUND_TRIPS_MS)
async def test_a_far_cell_attaches_and_answers(redis: RealServer, round_trip_ms: int) -> None:
    async with far(redis, round_trip_ms) as (port, link):
        cell = RedisCell("c1", f"redis://127.0.0.1:{port}/0", L3(), SKEW_US, CLOCK)
        await cell.start()

        async def read() -> Reply | TierError:
            return (await cell.read_many([Read(KEY, lease=True, refresh=True)]))[0]

        async def fence() -> FenceReply | TierError:
            return (await cell.fence_many([Target.key("docs", "b")], soft=False))[0]

        await succeeded(read)
        await succeeded(fence)
        for _ in range(3):
            await succeeded(read)
        connects = cell.statistics().connects
        for _ in range(3):
            assert (await cell.report()).info["role"] == "master"
            assert (await cell.claim([Use("eu", "i1", "q1")], 10 * SECONDS)).server
        assert cell.statistics().connects <= connects + 1, "none of them was closed"
        shown = cell.statistics()
        assert round_trip_ms / 1000 <= shown.round_trip_seconds < 1
        assert shown.timeout_seconds > 0.1 + round_trip_ms / 1000
        now = CLOCK.now_us()
        put = Put(KEY, Entry(b"v", now, now + 60 * SECONDS))
        await succeeded(lambda: _first(cell.put_many([put])))

        link.obey(Order("far", mode="hold"))
        async with OwnTime() as took:
            assert isinstance(await read(), TierError)
        assert took.seconds < LONGEST_SECONDS
        async with OwnTime() as took:
            assert isinstance(await read(), TierError), "the next one finds no connection"
        assert took.seconds < 2 * (0.3 + 6 * round_trip_ms / 1000) + 0.5
        link.obey(Order("far", delay_ms=round_trip_ms / 2))
        await succeeded(read)
        await cell.stop()


async def test_the_first_request_to_a_far_cell_is_answered(redis: RealServer) -> None:
    """The way is not measured yet, and is longer than `l3.connect_timeout`."""
    async with far(redis, 1.5 * 1000 * L3().connect_timeout.seconds) as (port, _):
        cell = RedisCell("c1", f"redis://127.0.0.1:{port}/0", L3(), SKEW_US, CLOCK)
        (reply,) = await cell.read_many([Read(KEY)])
        assert not isinstance(reply, TierError), reply
        assert cell.statistics().connects == 1
        await cell.stop()


async def _first(calling: Awaitable[object]) -> object:
    return (await calling)[0]  # type: ignore[index]  # a sequence of answers


async def test_a_connection_to_a_cell_greets_and_attaches_in_one_exchange() -> None:
    """The server answers nothing before it has read all: a second exchange would not come."""
    info = b"run_id:r1\r\nrole:master\r\nredis_version:7.4.0\r\n"
    attached = b"*3\r\n:1\r\n$0\r\n\r\n$%d\r\n%b\r\n" % (len(info), info)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = b""
        while not said.endswith(b"\r\n77\r\n"):
            said += await reader.read(1 << 16)
        assert said.index(b"HELLO") < said.index(b"secret") < said.index(b"SELECT") < said.index(b"EVAL")
        writer.write(b"%1\r\n+proto\r\n:3\r\n+OK\r\n" + attached)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        url = f"redis://:secret@127.0.0.1:{listening.sockets[0].getsockname()[1]}/3"
        cell = RedisCell("c1", url, L3(), SKEW_US, CLOCK, placement=(5, 77))
        await cell.start()
        await until("it is attached", lambda: cell.issuer != 0)
        await cell.stop()


async def test_a_cell_that_hangs_from_the_start_costs_one_request_the_time_of_a_far_one(
    redis: RealServer,
) -> None:
    async with far(redis, 0) as (port, link):
        link.obey(Order("far", mode="hold"))
        cell = RedisCell("c1", f"redis://127.0.0.1:{port}/0", L3(), SKEW_US, CLOCK)
        failures = []
        for _ in range(3):
            async with OwnTime() as took:
                (reply,) = await cell.read_many([Read(KEY)])
            assert isinstance(reply, TierError)
            assert took.seconds < LONGEST_SECONDS
            failures.append(str(reply))
            await asyncio.sleep(0.1)
        assert ["1200 ms" in failure for failure in failures] == [True, False, False]
        link.obey(Order("far"))
        await succeeded(lambda: _first(cell.read_many([Read(KEY)])))
        await cell.stop()


@pytest.mark.parametrize("round_trip_ms", ROUND_TRIPS_MS)
async def test_a_far_queue_takes_changes(redis: RealServer, round_trip_ms: int) -> None:
    async with far(redis, round_trip_ms) as (port, link):
        changes = RedisChanges(f"redis://127.0.0.1:{port}/0", "eu")
        change = Change("docs", keys=("a",))
        await succeeded(lambda: changes.take("eu-a", count=10, wait_seconds=0.1))
        await succeeded(lambda: changes.append(change))
        for _ in range(3):
            await succeeded(lambda: changes.append(change))
            assert await changes.take("eu-a", count=10, wait_seconds=10)
        link.obey(Order("far", mode="hold"))
        async with OwnTime() as took:
            with pytest.raises(TierError):
                await changes.append(change)
        assert took.seconds < 1 + 5 * max(round_trip_ms / 1000, 0.1) + 1
        await changes.stop()


async def test_a_connection_that_was_reset_before_its_first_use_is_opened_anew(redis: RealServer) -> None:
    """Its opening went on behind a caller that gave up, and nobody has looked at its socket."""
    async with far(redis, 0) as (port, link):
        pool = RedisConnections.at(f"redis://127.0.0.1:{port}/0")
        client = Redis.from_pool(pool)
        connection: Any = await pool.get_connection()  # type: ignore[no-untyped-call]  # redis-py's
        await connection.disconnect()
        await connection.connect()
        link.obey(Order("far", mode="cut"))
        await until("it is reset", connection._writer.is_closing)
        await pool.release(connection)
        link.obey(Order("far"))
        assert await client.ping()
        await client.aclose()


async def test_an_opening_goes_on_behind_a_caller_that_gave_up_and_the_next_one_joins_it(
    redis: RealServer,
) -> None:
    async with far(redis, 0) as (port, link):
        link.obey(Order("far", mode="hold"))
        pool = RedisConnections.at(f"redis://127.0.0.1:{port}/0")
        client = Redis.from_pool(pool)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await client.ping()
        assert link.obey(Order("far")).connections == 1
        assert await client.ping()
        assert link.obey(Order("far")).connections == 1
        await client.aclose()


@pytest.mark.parametrize("round_trip_ms", ROUND_TRIPS_MS)
async def test_a_far_memcached_is_connected_and_answers(memcached: RealServer, round_trip_ms: int) -> None:
    async with far(memcached, round_trip_ms) as (port, link):
        leaf = MemcachedTier("mc", f"127.0.0.1:{port}", L2(), CLOCK)
        tier = Deadline(leaf, L2().timeout.seconds, way_seconds=leaf.way_seconds)
        await tier.start()
        await succeeded(lambda: _first(tier.get_many([KEY])))
        now = CLOCK.now_us()
        item = (KEY, Entry(b"v", now, now + 600 * SECONDS))

        async def store() -> TierError | None:
            return next(iter(await tier.set_many([item])), None)

        async def read() -> object:
            (found,) = await tier.get_many([KEY])
            assert isinstance(found, TierError) or (found is not None and found.value == b"v")
            return found

        await succeeded(store)
        for _ in range(3):
            await succeeded(read)
        link.obey(Order("far", mode="hold"))
        async with OwnTime() as took:
            (found,) = await tier.get_many([KEY])
        assert isinstance(found, TierError)
        assert took.seconds < LONGEST_SECONDS
        link.obey(Order("far", delay_ms=round_trip_ms / 2))
        await succeeded(lambda: _first(tier.get_many([KEY])))
        await tier.stop()
