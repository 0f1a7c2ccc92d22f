"""Servers without memory left: old fences make room for a write, and nothing else does.

A real server reaches its `maxmemory` here, with nothing that it may evict.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from cachesvc.changes.contract import Done, Parked
from cachesvc.changes.redis.changes import RedisChanges
from cachesvc.changes.redis.fences import RedisFenceStream
from cachesvc.config.service import L3
from cachesvc.model.change import Change, Target
from cachesvc.model.clock import SECONDS
from cachesvc.model.entry import Key
from cachesvc.model.errors import TierError
from cachesvc.model.fence import Fence
from cachesvc.model.units import Duration
from cachesvc.tiers.l3.contract import FenceReply, Put, Read
from tests.contracts.cell_benches import KEY, NS, SKEW_US, RedisBench, redis_bench
from tests.doubles.servers import RealServer, redis_server, valkey_server

RETENTION = L3().retention
ROOM_BYTES = 4 << 20
"""Beyond what the server uses when it is empty."""
DAY_US = 86_400 * SECONDS


@pytest.fixture(params=[redis_server, valkey_server])
def server(request: pytest.FixtureRequest) -> Iterator[RealServer]:
    with request.param() as running:
        yield running


@pytest.fixture
async def admin(server: RealServer) -> AsyncIterator[Redis]:
    async with Redis.from_url(server.redis_url) as admin:
        yield admin


async def limit(admin: Redis, policy: str) -> None:
    used = (await admin.info("memory"))["used_memory"]
    await admin.config_set("maxmemory-policy", policy)
    await admin.config_set("maxmemory", used + ROOM_BYTES)


async def fill_up(admin: Redis, *command: str) -> None:
    """Does the command, with a new number for #, until the server goes on refusing it.

    The server frees buffers of connections for a while after a large pipeline.
    """
    numbers, refusals, size = itertools.count(), 0, 500
    while refusals < 10:
        pipe = admin.pipeline(transaction=False)
        for number in itertools.islice(numbers, size):
            pipe.execute_command(*(word.replace("#", str(number)) for word in command))
        answer = (await pipe.execute(raise_on_error=False))[-1]
        if isinstance(answer, ResponseError):
            assert "used memory" in str(answer), answer
            refusals, size = refusals + 1, 1
            await asyncio.sleep(0.03)
        else:
            refusals = 0


# a cell --------------------------------------------------------------------------------


@pytest.fixture
async def cell(server: RealServer) -> AsyncIterator[RedisBench]:
    async with redis_bench(server) as bench:
        await limit(bench.admin, "volatile-lru")
        yield bench


def past(us: int) -> str:
    return str(time.time_ns() // 1000 - us)


OLD = RETENTION + 61 * SECONDS
IN_FORCE = RETENTION // 2


@pytest.mark.parametrize("zset", ["fences", "soft"])
async def test_a_cell_full_of_old_fences_takes_every_write(cell: RedisBench, zset: str) -> None:
    await fill_up(cell.admin, "ZADD", zset, past(OLD), "docs/a-long-enough-name-of-a-key-#")
    for number in range(20):
        key = Key.of(NS, f"k{number}")
        assert (await cell.read(key)).lease is not None
        (put,) = await cell.cell.put_many([Put(key, await cell.entry())])
        assert not isinstance(put, TierError), put
        (at,) = await cell.cell.fence_many([Target.tag(NS, f"t{number}")], soft=False)
        assert isinstance(at, FenceReply), at
    await cell.fill()


async def test_a_cell_that_was_restarted_full_of_old_fences_is_attached_to(cell: RedisBench) -> None:
    await cell.restart_with_data()
    await fill_up(cell.admin, "ZADD", "fences", past(OLD), "docs/a-long-enough-name-of-a-key-#")
    await cell.settle()
    assert (await cell.read()).lease is not None
    (at,) = await cell.cell.fence_many([Target.key(NS, "a")], soft=False)
    assert isinstance(at, FenceReply), at


async def test_a_cell_full_of_fences_in_force_refuses_and_drops_none(cell: RedisBench) -> None:
    await fill_up(cell.admin, "ZADD", "fences", past(IN_FORCE), "docs/a-long-enough-name-of-a-key-#")
    count = await cell.admin.zcard("fences")
    (at,) = await cell.cell.fence_many([Target.key(NS, "a")], soft=False)
    assert isinstance(at, TierError)
    assert "used memory" in at.why
    assert await cell.admin.zcard("fences") == count


async def test_a_step_of_the_trim_is_bounded_and_keeps_up(cell: RedisBench) -> None:
    """A trim of millions in one script stalled a quiet cell's next write for 1.6 s."""
    old, young = past(OLD), past(IN_FORCE)
    await cell.admin.zadd("fences", {f"docs/old-{i}": old for i in range(5000)})
    await cell.admin.zadd("fences", {f"docs/young-{i}": young for i in range(10)})
    counts = [await cell.admin.zcard("fences")]
    for number in range(80):
        await cell.cell.fence_many([Target.key(NS, f"k{number}")], soft=False)
        counts.append(await cell.admin.zcard("fences"))
    assert max(before - after for before, after in itertools.pairwise(counts)) <= 100
    assert counts[-1] == 80 + 10 + 1, "and the marker"
    assert await cell.admin.zcount("fences", "(-inf", f"({young}") == 0
    assert await cell.redis.read_many([Read(KEY)])


# a queue --------------------------------------------------------------------------------

KEPT = Duration.parse("10m")


class Queue:
    def __init__(self, server: RealServer) -> None:
        self.changes = RedisChanges(server.redis_url, "eu")
        self.stream = RedisFenceStream(
            server.redis_url, "eu", skew=Duration(SKEW_US), retention=KEPT, follower=("eu", "a")
        )


@pytest.fixture
async def queue(server: RealServer, admin: Redis) -> AsyncIterator[Queue]:
    queue = Queue(server)
    await queue.changes.take("a", count=1, wait_seconds=0.001)  # makes the group
    await limit(admin, "noeviction")
    yield queue
    await queue.changes.stop()
    await queue.stream.stop()


def item(age_us: int) -> str:
    """The id of an item of `fences` of this age; # is its number."""
    return f"{(time.time_ns() // 1000 - age_us) // 1000}-#"


async def beat(queue: Queue) -> None:
    """A consumer does this every half second."""
    completion = await queue.changes.completion()
    await queue.stream.heartbeat(completion.complete_to, completion.epoch)


async def test_a_queue_full_of_old_fences_takes_changes_after_a_heartbeat(queue: Queue, admin: Redis) -> None:
    await admin.xadd("fences", {"o": "1"}, id=item(DAY_US + 2_000_000).replace("#", "0"))
    await fill_up(admin, "XADD", "fences", item(DAY_US).replace("#", "1#"), "p", "x" * 200)
    with pytest.raises(TierError, match="used memory"):
        await queue.changes.append(Change(NS, keys=("a",)))
    for _ in range(3):
        await beat(queue)
    id_ = await queue.changes.append(Change(NS, keys=("a",)))
    (taken,) = await queue.changes.take("a", count=10, wait_seconds=0.01)
    assert taken.id == id_
    await queue.stream.publish([Fence(1, 2)], done=[Done(id_)])
    start = await queue.stream.open()
    assert start.position != ""


async def test_a_queue_full_of_paced_fences_that_are_over_takes_changes_after_a_heartbeat(
    queue: Queue, admin: Redis
) -> None:
    await fill_up(admin, "ZADD", "fences:paced", past(SECONDS), '[1,2,false,"a-long-enough-name",#]')
    with pytest.raises(TierError, match="used memory"):
        await queue.changes.append(Change(NS, keys=("a",)))
    for _ in range(5):  # the first one brings its script and a connection
        await beat(queue)
    await queue.changes.append(Change(NS, keys=("a",)))


async def test_a_full_queue_finishes_the_changes_that_it_has_accepted(queue: Queue, admin: Redis) -> None:
    """Closing, parking and burying free the change before they note what became of it."""
    ids = [await queue.changes.append(Change(NS, keys=(key,))) for key in "abc"]
    taken = await queue.changes.take("a", count=10, wait_seconds=0.01)
    await fill_up(admin, "SET", "filler:#", "x" * 200)
    with pytest.raises(TierError, match="used memory"):
        await queue.changes.append(Change(NS, keys=("d",)))
    await queue.changes.acknowledge(ids[:1])
    await queue.stream.publish([], done=[Done(ids[1], (Parked("c1", 1, 0, Target.key(NS, "b")),))])
    await queue.changes.bury(taken[2])
    count = (await queue.changes.completion()).count
    assert (count.backlog, count.parked, count.dead) == (0, 1, 1)


async def test_the_newest_item_stays_however_old_it_is(queue: Queue, admin: Redis) -> None:
    """Or every follower would meet a gap at the first fence after a long silence."""
    newest = ""
    for number in range(300):
        newest = item(DAY_US).replace("#", str(number))
        await admin.xadd("fences", {"o": "1"}, id=newest)
    await admin.set("fences:epoch", "of this stream")
    start = await queue.stream.open()
    await queue.stream.read(wait_seconds=0)
    await beat(queue)
    assert await admin.xrange("fences", newest, newest)
    batch = await queue.stream.read(wait_seconds=0)
    assert not batch.gap
    assert start.position != ""
