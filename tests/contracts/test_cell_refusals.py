"""A server that refuses some commands, and large values: each key has its own outcome."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from cachesvc.model.change import Target
from cachesvc.model.entry import Key
from cachesvc.model.errors import TierError, TierUnavailableError
from cachesvc.tiers.l3.contract import FenceReply, Fill, FillReply, Put, PutReply, Read, Reply
from tests.contracts.cell_benches import NS, RedisBench, redis_bench
from tests.doubles.servers import RealServer, redis_server

HITS = [Key.of(NS, f"hit-{i}") for i in range(20)]
MISS = Key.of(NS, "miss")


@pytest.fixture(scope="module")
def server() -> Iterator[RealServer]:
    with redis_server("--enable-protected-configs", "yes", tcp=True) as running:
        yield running


@pytest.fixture
async def bench(server: RealServer) -> AsyncIterator[RedisBench]:
    async with redis_bench(server) as found:
        yield found


async def refusing(bench: RedisBench, why: str) -> None:
    """Brings the server into a state in which it answers reads and refuses writes."""
    if why == "NOREPLICAS":
        await bench.admin.config_set("min-replicas-to-write", 1)
    elif why == "OOM":
        await bench.admin.config_set("maxmemory", 1)
    else:
        await bench.admin.config_set("save", "3600 1")
        await bench.admin.config_set("dir", "/proc")  # nobody can write there
        await bench.admin.bgsave()
        while (await bench.admin.info("persistence"))["rdb_last_bgsave_status"] == "ok":  # noqa: ASYNC110  another process
            await asyncio.sleep(0.01)


async def mended(bench: RedisBench) -> None:
    await bench.admin.config_set("min-replicas-to-write", 0)
    await bench.admin.config_set("maxmemory", 0)
    await bench.admin.config_set("save", "")


@pytest.fixture(params=["NOREPLICAS", "OOM", "MISCONF"])
async def why(request: pytest.FixtureRequest, bench: RedisBench) -> AsyncIterator[str]:
    for key in HITS:
        await bench.put(await bench.entry(b"kept"), key=key)
    await refusing(bench, request.param)
    yield request.param
    await mended(bench)


async def test_hits_are_answered_beside_a_key_that_no_lease_can_be_granted_for(
    bench: RedisBench, why: str
) -> None:
    *hits, miss = await bench.redis.read_many([Read(key, lease=True) for key in [*HITS, MISS]])
    assert [reply.entry.value for reply in hits if isinstance(reply, Reply) and reply.entry] == [b"kept"] * 20
    assert type(miss) is TierError
    assert why in miss.why
    assert await bench.redis.read_many([Read(MISS)]) == [Reply(None, exact=False)], "without a lease"


async def test_a_refresh_that_gets_no_lease_is_refused_alone(bench: RedisBench, why: str) -> None:
    refresh, hit = await bench.redis.read_many([Read(HITS[0], lease=True, refresh=True), Read(HITS[1])])
    assert isinstance(refresh, TierError)
    assert isinstance(hit, Reply)
    assert hit.entry is not None
    assert why in refresh.why


async def test_writes_that_are_refused_say_so(bench: RedisBench, why: str) -> None:
    entry = await bench.entry(b"new")
    (put,) = await bench.redis.put_many([Put(HITS[0], entry)])
    (fill,) = await bench.redis.fill_many([Fill(HITS[0], entry, "nonce:1")])
    (fence,) = await bench.redis.fence_many([Target.key(NS, "hit-0")], soft=False)
    assert isinstance(put, TierError)
    assert why in put.why
    assert isinstance(fence, TierError)
    assert isinstance(fill, (TierError, FillReply)), "a lease that is not in force is refused without a write"
    (reply,) = await bench.redis.read_many([Read(HITS[0])])
    assert isinstance(reply, Reply)
    assert reply.entry is not None
    assert reply.entry.value == b"kept"


async def test_an_item_whose_own_data_is_damaged_fails_alone(bench: RedisBench) -> None:
    """Its record has another type, as if somebody else had written under the name."""
    good, bad = HITS[:2]
    entry = await bench.entry(b"kept")
    await bench.put(entry, key=good)
    await bench.admin.delete("v:" + bad.id.decode())
    await bench.admin.lpush("v:" + bad.id.decode(), "x")
    refused, hit = await bench.redis.read_many([Read(bad, lease=True), Read(good, lease=True)])
    assert isinstance(refused, TierError)
    assert "WRONGTYPE" in refused.why
    assert isinstance(hit, Reply)
    assert hit.entry is not None
    unmatched, stored = await bench.redis.put_many([Put(bad, entry, if_absent=True), Put(good, entry)])
    assert isinstance(unmatched, TierError)
    assert isinstance(stored, PutReply)
    assert stored.stored
    (at,) = await bench.redis.fence_many([Target.key(NS, bad.text)], soft=False)
    assert isinstance(at, FenceReply), "an invalidation drops whatever is there"


async def test_a_demoted_server_concerns_the_connection_and_not_a_key(bench: RedisBench) -> None:
    for key in HITS[:2]:
        await bench.put(await bench.entry(b"kept"), key=key)
    await bench.admin.execute_command("REPLICAOF", "127.0.0.1", "1")  # type: ignore[no-untyped-call]  # redis-py
    try:
        replies = await bench.redis.read_many([Read(HITS[0], lease=True), Read(MISS, lease=True)])
        assert [type(reply) for reply in replies] == [TierUnavailableError] * 2
        assert bench.redis.statistics().idle == 0, "the next connection may find the promoted server"
    finally:
        await bench.admin.execute_command("REPLICAOF", "NO", "ONE")  # type: ignore[no-untyped-call]  # redis-py


async def test_large_values_make_no_neighbour_miss(bench: RedisBench) -> None:
    large = [Key.of(NS, f"large-{i}") for i in range(20)]
    for key in large:
        await bench.put(await bench.entry(b"x" * 1_000_000), key=key)
    await bench.put(await bench.entry(b"small"), key=HITS[0])
    before = (await bench.admin.info("commandstats"))["cmdstat_evalsha"]["calls"]
    replies = await bench.redis.read_many([Read(key, lease=True) for key in [*large, HITS[0], MISS]])
    calls = (await bench.admin.info("commandstats"))["cmdstat_evalsha"]["calls"] - before
    *found, last = replies
    assert [len(reply.entry.value) for reply in found if isinstance(reply, Reply) and reply.entry] == [
        *[1_000_000] * 20,
        5,
    ]
    assert isinstance(last, Reply)
    assert last.lease, "the miss has its lease"
    assert 10 <= calls <= 21


async def test_large_fills_and_puts_go_in_parts(bench: RedisBench) -> None:
    keys = [Key.of(NS, f"filled-{i}") for i in range(20)]
    entry = await bench.entry(b"x" * 1_000_000)
    stored = await bench.redis.put_many([Put(key, entry) for key in keys])
    assert all(isinstance(reply, PutReply) and reply.stored for reply in stored)
    assert bench.redis.batchers["puts"].statistics().batches >= 20


async def test_an_order_of_more_targets_than_may_wait_is_applied_whole(bench: RedisBench) -> None:
    targets = [Target.key(NS, f"k{i}") for i in range(70_000)]
    ats = await bench.redis.fence_many(targets, soft=False)
    assert len(ats) == 70_000
    assert all(isinstance(at, FenceReply) for at in ats)


async def test_a_copy_whose_tags_are_damaged_is_a_miss_that_is_loaded_anew(bench: RedisBench) -> None:
    """Nobody can say which fences are on it; it must not be refused until its TTL ends."""
    damaged, whole = HITS[:2]
    for key in (damaged, whole):
        await bench.put(await bench.entry(b"kept", tags=("tag",)), key=key)
    await bench.cell.fence_many([Target.tag(NS, "another")], soft=False)
    header_bytes = 46
    await bench.admin.setrange(f"v:{damaged.id.decode()}", header_bytes, b"\xc1")  # no msgpack begins so
    miss, hit = await bench.cell.read_many([Read(damaged, lease=True), Read(whole, lease=True)])
    assert isinstance(miss, Reply)
    assert (miss.entry, miss.fenced) == (None, True)
    assert miss.lease
    assert isinstance(hit, Reply)
    assert hit.entry is not None
