"""L2 copes with a real memcached that dies, hangs, refuses or returns."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator

import pytest

from cachesvc.config.service import L2, Breakers
from cachesvc.model.clock import SECONDS, SystemClock
from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import TierError, TierTimeoutError, TierUnavailableError
from cachesvc.model.units import Duration
from cachesvc.tiers.breaker import Breaker, BreakerState
from cachesvc.tiers.envelope import pack
from cachesvc.tiers.l2.batched import Batched
from cachesvc.tiers.l2.contract import Lookup
from cachesvc.tiers.l2.deadline import Deadline
from cachesvc.tiers.l2.guarded import Guarded
from cachesvc.tiers.l2.memcached import MemcachedTier, wire_name
from tests.doubles.servers import RealServer, memcached_server

CLOCK = SystemClock()
BRISK = L2(connect_timeout=Duration.parse("250ms"), timeout=Duration.parse("250ms"))
ENDLESS = L2(connect_timeout=Duration.parse("1h"), timeout=Duration.parse("1h"))
KEYS = [Key.of("pages", f"key-{number}") for number in range(50)]


def entry(value: bytes = b"value") -> Entry:
    now = CLOCK.now_us()
    return Entry(value, now, now + 600 * SECONDS)


ENTRIES = [entry(b"%d" % number * 100) for number in range(50)]


@pytest.fixture(params=[False, True], ids=["unix", "tcp"])
def server(request: pytest.FixtureRequest) -> Iterator[RealServer]:
    with memcached_server("-I", "4k", "-o", "slab_chunk_max=2048", tcp=request.param) as server:
        yield server


@pytest.fixture
async def tier(server: RealServer) -> AsyncIterator[MemcachedTier]:
    tier = MemcachedTier("mc-0", server.address, BRISK, CLOCK)
    await tier.start()
    yield tier
    await asyncio.wait_for(tier.stop(), 10)


async def get(tier: MemcachedTier | Deadline | Batched, key: Key) -> Lookup:
    return (await tier.get_many([key]))[0]


async def test_a_flipped_bit_is_a_miss_that_is_counted_and_said_once(
    tier: MemcachedTier, caplog: pytest.LogCaptureFixture
) -> None:
    await tier.set_many(list(zip(KEYS[:3], ENTRIES[:3], strict=True)))
    for key, value in ((KEYS[0], ENTRIES[0]), (KEYS[1], ENTRIES[1])):
        data = bytearray(pack(key, value))
        data[data.index(value.value) + 7] ^= 4
        await tier._write([b"set %b 0 0 %d\r\n%b\r\n" % (wire_name(key.id), len(data), bytes(data))])
    for _ in range(2):
        assert await tier.get_many(KEYS[:4]) == [None, None, ENTRIES[2], None]
    assert (tier.statistics().damaged, tier.statistics().misses) == (4, 6)
    assert [record.getMessage() for record in caplog.records] == [
        "memcached mc-0 holds a damaged copy, which is a miss; more are counted"
    ]


async def test_a_killed_server_is_an_error_and_after_its_restart_it_is_empty(
    tier: MemcachedTier, server: RealServer
) -> None:
    await tier.set_many([(KEYS[0], ENTRIES[0])])
    server.kill()
    assert isinstance(await get(tier, KEYS[0]), TierUnavailableError)
    assert [type(failure) for failure in await tier.set_many([(KEYS[0], ENTRIES[0])])] == [
        TierUnavailableError
    ]
    assert [type(failure) for failure in await tier.delete_many(KEYS[:2])] == [TierUnavailableError] * 2
    await asyncio.to_thread(server.restart)
    assert await get(tier, KEYS[0]) is None
    assert not await tier.set_many([(KEYS[0], ENTRIES[0])])
    assert await get(tier, KEYS[0]) == ENTRIES[0]
    statistics = tier.statistics()
    assert (statistics.hits, statistics.misses, statistics.errors, statistics.failed_writes) == (1, 1, 1, 3)


async def test_a_server_that_is_down_at_the_start_is_used_once_it_is_there(server: RealServer) -> None:
    server.kill()
    tier = MemcachedTier("mc-0", server.address, BRISK, CLOCK)
    await tier.start()
    assert isinstance(await get(tier, KEYS[0]), TierUnavailableError)
    await asyncio.to_thread(server.restart)
    assert await get(tier, KEYS[0]) is None
    await tier.stop()


async def test_a_hung_server_times_out_and_its_late_answer_is_nobodys(
    tier: MemcachedTier, server: RealServer
) -> None:
    await tier.set_many(list(zip(KEYS, ENTRIES, strict=True)))
    server.pause()
    assert isinstance(await get(tier, KEYS[1]), TierTimeoutError)
    assert [type(failure) for failure in await tier.set_many([(KEYS[9], ENTRIES[9])])] == [TierTimeoutError]
    server.resume()
    assert await get(tier, KEYS[2]) == ENTRIES[2]
    assert list(await tier.get_many(KEYS)) == ENTRIES


async def test_a_deadline_frees_the_thread_of_a_hung_server_and_nothing_is_out_of_step(
    server: RealServer,
) -> None:
    """The socket's own timeout is an hour here: only the connection that was shut down can end the read."""
    leaf = MemcachedTier("mc-0", server.address, ENDLESS, CLOCK)
    tier = Deadline(leaf, 0.1, name="mc-0")
    await tier.start()
    await leaf.set_many(list(zip(KEYS, ENTRIES, strict=True)))
    server.pause()
    queued = [asyncio.ensure_future(get(tier, key)) for key in KEYS[:5]]
    assert [type(answer) for answer in await asyncio.gather(*queued)] == [TierTimeoutError] * 5
    server.resume()
    assert list(await asyncio.wait_for(leaf.get_many(KEYS), 10)) == ENTRIES
    server.pause()
    assert isinstance(await get(tier, KEYS[0]), TierTimeoutError)
    await asyncio.wait_for(tier.stop(), 10)


async def test_what_the_server_refuses_fails_alone(tier: MemcachedTier) -> None:
    """An item above the server's `-I` is answered SERVER_ERROR; the entries of the same batch are stored, the stream goes on."""
    items = [(KEYS[0], ENTRIES[0]), (KEYS[1], entry(b"x" * 20_000)), (KEYS[2], ENTRIES[2])]
    failures = await tier.set_many(items)
    assert [type(failure) for failure in failures] == [TierError]
    assert "too large" in str(failures[0])
    assert list(await tier.get_many(KEYS[:3])) == [ENTRIES[0], None, ENTRIES[2]]


async def test_before_start_and_after_stop_nothing_is_reached(server: RealServer) -> None:
    tier = MemcachedTier("mc-0", server.address, BRISK, CLOCK)
    assert isinstance(await get(tier, KEYS[0]), TierUnavailableError)
    await tier.start()
    assert await get(tier, KEYS[0]) is None
    await tier.stop()
    assert isinstance(await get(tier, KEYS[0]), TierUnavailableError)


async def test_a_value_somebody_else_stored_is_a_miss(tier: MemcachedTier, server: RealServer) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tier, "_pack", lambda key, entry: b"\x80\x04not ours")
        await tier.set_many([(KEYS[0], ENTRIES[0])])
    assert await get(tier, KEYS[0]) is None
    assert tier.statistics().misses == 1


async def test_a_dead_server_is_left_alone_and_found_again(
    server: RealServer, caplog: pytest.LogCaptureFixture
) -> None:
    seconds = 0.0
    breaker = Breaker(
        Breakers(first_probe=Duration.parse("5s"), longest_probe=Duration.parse("5s")), now=lambda: seconds
    )
    leaf = MemcachedTier("mc-0", server.address, BRISK, CLOCK)
    tier = Batched(Guarded(Deadline(leaf, 1.0, name="mc-0"), breaker, name="mc-0"), 512, name="mc-0")
    await tier.start()
    server.kill()
    with caplog.at_level(logging.WARNING):
        answers = [await get(tier, KEYS[0]) for _ in range(6)]
    assert all(isinstance(answer, TierUnavailableError) for answer in answers)
    assert leaf.statistics().errors == 1, "it cannot be connected to"
    assert [record.getMessage().split(":")[:2] for record in caplog.records] == [
        ["mc-0 fails", " left alone"]
    ]
    await asyncio.to_thread(server.restart)
    assert "breaker is open" in str(await get(tier, KEYS[0]))
    seconds = 7.5
    assert await get(tier, KEYS[0]) is None
    assert [await get(tier, KEYS[0]) for _ in range(6)].count(None) == 2, "a share of the calls"
    assert breaker.state is BreakerState.CLOSED
    await tier.stop()


async def test_a_server_says_how_full_it_is_unless_it_is_dead(
    tier: MemcachedTier, server: RealServer
) -> None:
    before = await tier.fullness()
    await tier.set_many(list(zip(KEYS, ENTRIES, strict=True)))
    full = await tier.fullness()
    assert (full.items - before.items, full.evictions) == (len(KEYS), 0)
    assert before.bytes < full.bytes < full.limit
    server.kill()
    with pytest.raises(TierUnavailableError):
        await tier.fullness()
    await asyncio.to_thread(server.restart)
    assert (await tier.fullness()).items == 0
