"""A thousand callers at once, on a real server: each is answered, over few connections."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from cachesvc.changes.contract import Done, position_of
from cachesvc.changes.redis.changes import RedisChanges
from cachesvc.model.change import Change
from cachesvc.model.errors import TierError
from cachesvc.model.fence import Fence
from tests.contracts.queue_benches import RedisBench, redis_bench
from tests.doubles.servers import RealServer, redis_server

MANY = 1000
MOST_CONNECTIONS = 10
"""Of one process to one queue. redis-py's pool refuses the hundred-and-first."""


@pytest.fixture(scope="module")
def server() -> Iterator[RealServer]:
    with redis_server(tcp=True) as running:
        yield running


@pytest.fixture
async def bench(server: RealServer) -> AsyncIterator[RedisBench]:
    async with redis_bench(server) as found:
        yield found


async def calls(bench: RedisBench) -> int:
    stats = await bench.admin.info("commandstats")
    return sum(
        int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("evalsha", "eval", "script|load")
    )


async def connections(bench: RedisBench) -> int:
    return int((await bench.admin.info("clients"))["connected_clients"])


async def test_a_thousand_appends_at_once_are_all_taken_in_few_calls(bench: RedisBench) -> None:
    before = await calls(bench)
    ids = await asyncio.gather(*(bench.changes.append(Change("docs", keys=(f"k{i}",))) for i in range(MANY)))
    assert len(set(ids)) == MANY
    assert await calls(bench) - before <= 10
    assert await connections(bench) <= MOST_CONNECTIONS
    taken = await bench.changes.take("c", count=MANY, wait_seconds=0)
    assert [item.id for item in taken] == sorted(ids, key=position_of)
    assert {item.changes[0].keys[0] for item in taken} == {f"k{i}" for i in range(MANY)}


async def test_appends_are_sent_in_parts_of_a_mebibyte(bench: RedisBench) -> None:
    """1000 keys of 1000 letters, the largest change there is, from 20 callers at once."""
    change = Change("docs", keys=tuple(f"{i:01000}" for i in range(1000)))
    ids = await asyncio.gather(*(bench.changes.append(change) for _ in range(20)))
    assert len(set(ids)) == 20


async def test_of_many_appends_only_those_beyond_the_bound_are_refused(bench: RedisBench) -> None:
    changes = RedisChanges(bench.server.redis_url, "here", max_open=150)
    try:
        answers = await asyncio.gather(
            *(changes.append(Change("docs", keys=("a",))) for _ in range(200)), return_exceptions=True
        )
    finally:
        await changes.stop()
    assert [isinstance(answer, TierError) for answer in answers] == [False] * 150 + [True] * 50
    refusals = [answer for answer in answers if isinstance(answer, TierError)]
    assert len({id(refusal) for refusal in refusals}) == 50, "an error of its own for every caller"


async def test_a_thousand_publications_at_once_share_items_and_close_their_changes(bench: RedisBench) -> None:
    stream = bench.stream()
    await stream.open()
    while (await stream.read(wait_seconds=0.01)).fences:
        pass
    ids = await asyncio.gather(*(bench.changes.append(Change("docs", keys=(f"k{i}",))) for i in range(MANY)))
    items_before = await bench.admin.xlen("fences")
    positions = await asyncio.gather(
        *(stream.publish([Fence(i, 1000 + i)], done=[Done(id_, cells=("c1",))]) for i, id_ in enumerate(ids))
    )
    assert await bench.admin.xlen("fences") - items_before <= 10
    assert await bench.admin.xlen("changes") == 0
    seen: dict[int, str] = {}
    while len(seen) < MANY:
        batch = await stream.read(wait_seconds=0.1)
        seen |= {fence.digest: batch.position for fence in batch.fences}
    assert all(position_of(positions[i]) <= position_of(seen[i]) for i in range(MANY)), "not before its own"
    receipts = await asyncio.gather(*(stream.receipt(id_) for id_ in ids))
    assert {(receipt.state, receipt.cells) for receipt in receipts if receipt} == {("done", ("c1",))}
    assert len(receipts) == MANY
    assert await connections(bench) <= MOST_CONNECTIONS


async def test_a_thousand_questions_at_once_are_few_calls(bench: RedisBench) -> None:
    stream = bench.stream(follower=("here", "i1"))
    await stream.open()
    id_ = await bench.changes.append(Change("docs", keys=("a",)))
    before = await calls(bench)
    followers = await asyncio.gather(*(stream.followers() for _ in range(MANY)))
    receipts = await asyncio.gather(*(stream.receipt(id_) for _ in range(MANY)))
    await asyncio.gather(*(bench.changes.acknowledge([id_]) for _ in range(MANY)))
    assert {len(found) for found in followers} == {1}
    assert {receipt.state for receipt in receipts if receipt} == {"open"}
    assert await calls(bench) - before <= 20
    assert await stream.receipt("no id") is None
    assert await stream.receipt("1-1") is None
