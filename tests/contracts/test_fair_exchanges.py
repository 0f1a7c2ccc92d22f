"""A value's size makes no other key's read a miss: real servers behind a narrow way.

One value alone takes longer on that way than the time limit of an exchange. Without the time of its
bytes each large read is a miss, and so are the small ones of another namespace in its exchange.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest

from cachesvc.config.service import L2, L3
from cachesvc.model.clock import SECONDS, SystemClock
from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import TierError
from cachesvc.model.units import Duration
from cachesvc.tiers.breaker import Breaker
from cachesvc.tiers.l2.batched import Batched
from cachesvc.tiers.l2.deadline import Deadline
from cachesvc.tiers.l2.guarded import Guarded
from cachesvc.tiers.l2.memcached import MemcachedTier
from cachesvc.tiers.l3.contract import Fill, Put, PutReply, Read, Reply
from cachesvc.tiers.l3.redis_cell import RedisCell
from tests.contracts.cell_benches import SETTINGS, SKEW_US, as_of_of
from tests.doubles.narrow_way import narrow_way
from tests.doubles.servers import RealServer, memcached_server, redis_server

CLOCK = SystemClock()
BYTES_PER_SECOND = 24 << 20
LIMIT = Duration.parse("250ms")
LARGE_BYTES = 8 << 20
"""They take longer than the limit."""
SMALL = [Key.of("small", f"k{number}") for number in range(40)]


def keys(namespace: str, count: int) -> list[Key]:
    return [Key.of(namespace, f"k{number}") for number in range(count)]


def entry(size: int, as_of: int | None = None) -> Entry:
    now = CLOCK.now_us() if as_of is None else as_of
    return Entry(b"x" * size, now, now + 600 * SECONDS)


@pytest.fixture(scope="module")
def redis() -> Iterator[RealServer]:
    with redis_server(tcp=True) as server:
        yield server


@pytest.fixture(scope="module")
def memcached() -> Iterator[RealServer]:
    with memcached_server(tcp=True) as server:
        yield server


@pytest.fixture
async def cell(redis: RealServer) -> AsyncIterator[RedisCell]:
    """A cell with a time limit that one large value does not meet on its way."""
    async with narrow_way(redis.port, BYTES_PER_SECOND) as port:
        settings = L3(connect_timeout=Duration.parse("5s"), timeout=LIMIT)
        made = RedisCell("c1", f"redis://127.0.0.1:{port}/0", settings, SKEW_US, CLOCK)
        await made.start()
        yield made
        await made.stop()


async def fill(redis: RealServer, large: list[Key], size: int) -> None:
    near = RedisCell("c1", redis.redis_url, SETTINGS, SKEW_US, CLOCK)
    for wanted, one in ((large, entry(size)), (SMALL, entry(10))):

        async def is_put(wanted: list[Key] = wanted, one: Entry = one) -> bool:
            replies = await near.put_many([Put(key, one) for key in wanted])
            return all(isinstance(reply, PutReply) and reply.stored for reply in replies)

        async with asyncio.timeout(10):
            while not await is_put():  # noqa: ASYNC110  a new issuer waits, and no event tells its end
                await asyncio.sleep(0.02)
    await near.stop()


async def test_reads_of_large_values_in_l3_are_hits_and_so_are_the_small_ones_beside_them(
    redis: RealServer, cell: RedisCell
) -> None:
    large = keys("large", 4)
    await fill(redis, large, LARGE_BYTES)
    answered: list[str] = []

    async def read(namespace: str, wanted: list[Key]) -> list[int]:
        if len(wanted) == 1:
            replies: Sequence[Reply | TierError] = [await cell.ask(Read(wanted[0]))]
        else:
            replies = await cell.read_many([Read(key) for key in wanted])
        answered.append(namespace)
        return [
            len(reply.entry.value) if isinstance(reply, Reply) and reply.entry else -1 for reply in replies
        ]

    reads = [read("large", large[:1]), read("large", large[1:2]), read("large", large[2:])]
    assert await asyncio.gather(*reads, read("small", SMALL)) == [
        [LARGE_BYTES],
        [LARGE_BYTES],
        [LARGE_BYTES] * 2,
        [10] * 40,
    ]
    assert answered.index("small") <= 1, "they come with the first large one"
    answered.clear()
    found = await asyncio.gather(*(read("large", [key]) for key in large), read("small", SMALL))
    assert found == [*[[LARGE_BYTES]] * 4, [10] * 40]
    assert answered.index("small") <= 2, "the sizes are known: the namespaces take turns"


async def test_a_fill_that_takes_longer_than_the_time_limit_has_the_time_of_its_bytes(
    redis: RealServer, cell: RedisCell
) -> None:
    await fill(redis, [], 0)
    key = Key.of("large", "filled")
    (granted,) = await cell.read_many([Read(key, lease=True)])
    assert isinstance(granted, Reply)
    assert granted.lease is not None
    loaded = entry(LARGE_BYTES, as_of_of(granted.lease))
    (reply,) = await cell.fill_many([Fill(key, loaded, granted.lease)])
    assert getattr(reply, "stored", reply) is True
    (put,) = await cell.put_many([Put(key, entry(LARGE_BYTES))])
    assert getattr(put, "stored", put) is True


async def test_reads_of_large_values_in_memcached_are_hits_and_so_are_the_small_ones_beside_them(
    memcached: RealServer,
) -> None:
    async with narrow_way(memcached.port, BYTES_PER_SECOND) as port:
        leaf = MemcachedTier("mc-0", f"127.0.0.1:{port}", L2(timeout=LIMIT), CLOCK)
        breaker = Breaker()
        deadline = Deadline(leaf, LIMIT.seconds, bytes_moved=leaf.bytes_moved)
        tier = Batched(Guarded(deadline, breaker), 512)
        await tier.start()
        large, one, small = keys("large", 16), entry(1_000_000), entry(10)
        await until_connected(tier)
        assert not await tier.set_many([(key, one) for key in large])
        assert not await tier.set_many([(key, small) for key in SMALL])
        anew = Batched(Guarded(deadline, breaker), 512)  # it has met none of these values
        for _ in range(2):
            found = await asyncio.gather(*(anew.get_many([key]) for key in large), anew.get_many(SMALL))
            assert [list(part) for part in found] == [*[[one]] * 16, [small] * 40]
        assert breaker.failures_in_a_row == 0
        await tier.stop()


async def until_connected(tier: Batched) -> None:
    """Waits for the first exchange, which has more time than the deadline."""
    while await tier.get_many(SMALL[:1]) != (None,):  # noqa: ASYNC110  no event tells of a thread
        await asyncio.sleep(0.01)


async def test_a_server_that_says_nothing_has_no_more_time(redis: RealServer) -> None:
    await fill(redis, [], 0)
    async with narrow_way(redis.port, BYTES_PER_SECOND) as port:
        settings = L3(connect_timeout=Duration.parse("5s"), timeout=LIMIT)
        made = RedisCell("c1", f"redis://127.0.0.1:{port}/0", settings, SKEW_US, CLOCK)
        await made.read_many([Read(SMALL[0])])
        redis.pause()
        try:
            (reply,) = await made.read_many([Read(SMALL[0])])
            assert not isinstance(reply, Reply)
        finally:
            redis.resume()
        await made.stop()
