"""A look at one copy, by a tier that has it: what is held is told, and nothing about it changes."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from cachesvc.config.service import L2
from cachesvc.model.clock import SECONDS, SystemClock
from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import TierTimeoutError, TierUnavailableError
from cachesvc.model.units import Duration
from cachesvc.tiers.l2.in_process import MemoryTier
from cachesvc.tiers.l2.memcached import MemcachedTier, wire_name
from tests.doubles.servers import RealServer, memcached_server

CLOCK = SystemClock()
PATIENT = L2(connect_timeout=Duration.parse("5s"), timeout=Duration.parse("5s"))
HASTY = L2(timeout=Duration.parse("20ms"))


@pytest.fixture(scope="module", params=[False, True], ids=["unix", "tcp"])
def server(request: pytest.FixtureRequest) -> Iterator[RealServer]:
    with memcached_server(tcp=request.param) as running:
        yield running


@pytest.fixture
async def memcached(server: RealServer) -> AsyncIterator[MemcachedTier]:
    tier = MemcachedTier("mc-0", server.address, PATIENT, CLOCK)
    await tier.start()
    yield tier
    await tier.stop()


def entry(value: bytes, lives_seconds: float = 60) -> Entry:
    now = CLOCK.now_us()
    return Entry(value, now, now + round(lives_seconds * SECONDS))


@pytest.fixture(params=["memory", "memcached"])
def tier(request: pytest.FixtureRequest, memcached: MemcachedTier) -> MemoryTier | MemcachedTier:
    return memcached if request.param == "memcached" else MemoryTier(CLOCK, 1 << 24)


@pytest.mark.parametrize("text", ["plain", "with space", "x" * 400])
async def test_what_is_held_is_told_and_not_counted(tier: MemoryTier | MemcachedTier, text: str) -> None:
    key, held = Key.of("looks", text), entry(b"v" * 300_000)
    assert await tier.look(key) is None
    await tier.set_many([(key, held)])
    before = tier.statistics()
    assert await tier.look(key) == held
    assert tier.statistics() == before


async def raw(server: RealServer, command: bytes) -> bytes:
    where = server.where
    opened = (
        asyncio.open_unix_connection(where) if isinstance(where, str) else asyncio.open_connection(*where)
    )
    reader, writer = await opened
    writer.write(command)
    line = await reader.readline()
    writer.close()
    return line


async def test_to_memcached_the_copy_looks_as_unused_as_before(
    memcached: MemcachedTier, server: RealServer
) -> None:
    key = Key.of("looks", "unused")
    await memcached.set_many([(key, entry(b"v"))])
    await memcached.look(key)
    assert b"fetch=no" in await raw(server, b"me %b\r\n" % wire_name(key.id))
    await memcached.get_many([key])
    assert b"fetch=yes" in await raw(server, b"me %b\r\n" % wire_name(key.id))


async def test_in_memory_a_look_does_not_save_a_copy_from_its_turn() -> None:
    first, second, third = (Key.of("looks", text) for text in "abc")
    tier = MemoryTier(CLOCK, 2_000)
    await tier.set_many([(first, entry(b"v" * 300)), (second, entry(b"v" * 300))])
    await tier.look(first)
    await tier.set_many([(third, entry(b"v" * 300))])
    assert await tier.look(first) is None


async def test_a_server_that_is_not_there_or_no_memcached_is_a_value() -> None:
    async def answer_nonsense(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"VA many\r\n")
        writer.close()

    nowhere = await MemcachedTier("gone", "unix:/nowhere", PATIENT, CLOCK).look(Key.of("looks", "k"))
    assert isinstance(nowhere, TierUnavailableError)
    async with await asyncio.start_server(answer_nonsense, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        odd = await MemcachedTier("odd", f"127.0.0.1:{port}", PATIENT, CLOCK).look(Key.of("looks", "k"))
    assert isinstance(odd, TierUnavailableError)


async def test_a_silent_server_is_given_up() -> None:
    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as silent:
        port = silent.sockets[0].getsockname()[1]
        found = await MemcachedTier("silent", f"127.0.0.1:{port}", HASTY, CLOCK).look(Key.of("looks", "k"))
    assert isinstance(found, TierTimeoutError)
