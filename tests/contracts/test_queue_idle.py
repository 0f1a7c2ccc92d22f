"""The cost of a queue that nobody writes to grows with the instances, not with their square.

Commands are counted, as the server counts them, and rounds take the place of time: in each round
every instance does once what it does in a heartbeat's interval, and reads what there is to read.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from cachesvc.app.feeds import Feeds, build
from cachesvc.changes.redis.changes import RedisChanges
from cachesvc.changes.redis.fences import RedisFenceStream
from cachesvc.model.clock import SystemClock
from tests.contracts.queue_benches import RETENTION, SKEW
from tests.doubles.servers import RealServer, redis_server
from tests.paths.world import FarSide, Instance

ROUNDS = 10


@pytest.fixture(scope="module")
def server() -> Iterator[RealServer]:
    with redis_server() as running:
        yield running


@pytest.fixture
async def admin(server: RealServer) -> AsyncIterator["Redis"]:
    admin = Redis.from_url(server.redis_url)
    await admin.flushall()
    yield admin
    await admin.aclose()


@asynccontextmanager
async def instance(server: RealServer, far: FarSide, number: int) -> AsyncIterator[Feeds]:
    """The loops of an instance on the server, whose steps the test does."""
    made, name = Instance(far, name=f"i{number}"), f"i{number}"
    changes = RedisChanges(server.redis_url, "here")
    stream = RedisFenceStream(
        server.redis_url, "here", skew=SKEW, retention=RETENTION, follower=("here", name)
    )
    remote = replace(made.remote, changes=changes, streams={"here": stream})
    try:
        yield build(made.service, made.topology, remote, made.paths, clock=SystemClock())
    finally:
        await changes.stop()
        await stream.stop()


async def heartbeats(admin: Redis) -> int:
    items: Any = await admin.xrange("fences")
    return sum(b"h" in fields for _, fields in items)


async def an_interval(admin: Redis, all_: list[Feeds]) -> None:
    """One interval of every instance: who has news on the stream reads before the next one beats."""
    seconds, us = await admin.time()
    await admin.set("fences:beat", seconds * 1_000_000 + us - 500_000)
    for one in all_:
        _age(one)
    for one in all_:
        before = await admin.xlen("fences")
        one.consumer.has_tried = False  # a first call does not wait
        await one.consumer._take()
        await one.consumer._reclaim()
        await one.consumer._beat()
        if await admin.xlen("fences") > before:
            for each in all_:
                await each.feeds[0]._read()


def _age(one: Feeds) -> None:
    """Lets half a second pass for what an instance remembers."""
    one.consumer._looked_at -= 0.5
    for feed in one.feeds:
        feed.heard_at -= 0.5
        feed._reported_at -= 0.5


async def commands(server: RealServer, admin: Redis, instances: int) -> tuple[float, float]:
    """The commands of one interval, those of scripts included; and the scripts."""
    await admin.flushall()
    async with AsyncExitStack() as stack:
        far = FarSide()
        all_ = [await stack.enter_async_context(instance(server, far, number)) for number in range(instances)]
        for one in all_:
            await one.feeds[0]._open()
        for _ in range(3):
            await an_interval(admin, all_)
        beats = await heartbeats(admin)
        await admin.config_resetstat()
        for _ in range(ROUNDS):
            await an_interval(admin, all_)
        stats: Any = await admin.info("commandstats")
        assert await heartbeats(admin) - beats == ROUNDS, "one in an interval, however many consumers"
        own = ROUNDS * (2 + 2 * instances) + 2  # of this test
        counted: int = sum(one["calls"] for one in stats.values())
        return (counted - own) / ROUNDS, stats["cmdstat_evalsha"]["calls"] / ROUNDS


async def test_the_commands_of_an_idle_queue_grow_with_the_instances(
    server: RealServer, admin: Redis
) -> None:
    found = [await commands(server, admin, instances) for instances in (1, 4, 12)]
    (one, alone), (four, _), (twelve, scripts) = found
    each, of_all = (four - one) / 3, one - (four - one) / 3
    assert twelve == pytest.approx(of_all + 12 * each, rel=0.05), "linear"
    assert each <= 25, "and small: about 50 in a second of each instance"
    assert alone <= 1.6, "a look in each interval, with its heartbeat, and a report in each second one"
    assert scripts <= 12 * 1.25, "3 in a second, with the waits for changes"


async def test_followers_that_know_each_other_are_not_listed_at_every_report(
    server: RealServer, admin: Redis
) -> None:
    """With n followers, each list would be work for n, and there would be n of them in an interval."""
    async with AsyncExitStack() as stack:
        far = FarSide()
        all_ = [await stack.enter_async_context(instance(server, far, number)) for number in range(3)]
        for one in all_:
            await one.feeds[0]._open()
        for _ in range(2):
            await an_interval(admin, all_)
        before = await listings(admin, all_)
        newcomer = await stack.enter_async_context(instance(server, far, 3))
        await newcomer.feeds[0]._open()
        assert await listings(admin, all_) == before + 3, "each of them lists the newcomer"
        assert await listings(admin, all_) == before


async def listings(admin: Redis, all_: list[Feeds]) -> int:
    """The whole hashes that were read in two intervals."""
    await admin.config_resetstat()
    for _ in range(2):
        await an_interval(admin, all_)
    stats: Any = await admin.info("commandstats")
    calls: int = stats.get("cmdstat_hgetall", {"calls": 0})["calls"]
    return calls


async def test_another_consumer_goes_on_when_the_one_that_sends_heartbeats_dies(
    server: RealServer, admin: Redis
) -> None:
    far = FarSide()
    async with instance(server, far, 1) as one, instance(server, far, 2) as two:
        await two.feeds[0]._open()
        await one.consumer._beat()
        await two.consumer._beat()
        assert await heartbeats(admin) == 1, "it is recent"
        seconds, us = await admin.time()
        await admin.set("fences:beat", seconds * 1_000_000 + us - 401_000)
        _age(two)
        await two.consumer._beat()
        assert await heartbeats(admin) == 2
        _age(two)
        await admin.set("fences:beat", seconds * 1_000_000 + us + 7200 * 1_000_000)
        await two.consumer._beat()
        assert await heartbeats(admin) == 3, "a clock that was set back bars nobody"
