"""Failures that only a cell on a real server can have.

They concern connections, batches, processes that die or hang, and clocks in two places.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator

import pytest
from msgspec.structs import replace

from cachesvc.config.service import L3
from cachesvc.model.change import Target
from cachesvc.model.clock import SECONDS, SystemClock
from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import TierError, TierTimeoutError, TierUnavailableError
from cachesvc.model.units import Duration
from cachesvc.tiers.envelope import MAGIC
from cachesvc.tiers.l3.contract import Fill, Put, Read, Reply
from cachesvc.tiers.l3.redis_cell import READS_IN_FLIGHT, RedisCell
from cachesvc.tiers.l3.script import READ
from tests.contracts.cell_benches import KEY, NS, SETTINGS, SKEW_US, RedisBench, as_of_of, good, redis_bench
from tests.doubles.clocks import ManualClock
from tests.doubles.memory_cell import MemoryCell
from tests.doubles.servers import RealServer, redis_server, valkey_server
from tests.doubles.waiting import until


@pytest.fixture(scope="module")
def server() -> Iterator[RealServer]:
    with redis_server(tcp=True) as running:
        yield running


@pytest.fixture
async def bench(server: RealServer) -> AsyncIterator[RedisBench]:
    async with redis_bench(server) as found:
        yield found


async def ask(cell: RedisCell, key: Key = KEY) -> Reply | TierError:
    (reply,) = await cell.read_many([Read(key)])
    return reply


async def calls(bench: RedisBench) -> int:
    stats = await bench.admin.info("commandstats")
    return int(stats.get("cmdstat_evalsha", {}).get("calls", 0))


async def test_what_many_callers_ask_in_one_tick_is_one_call_to_the_server(bench: RedisBench) -> None:
    before = await calls(bench)
    await asyncio.gather(*[bench.read(Key.of(NS, str(i))) for i in range(100)])
    assert await calls(bench) == before + 1


async def test_a_dead_server_is_an_error_value_and_its_return_is_noticed(bench: RedisBench) -> None:
    await bench.fill()
    bench.server.kill()
    assert isinstance(await ask(bench.redis), TierUnavailableError)
    assert isinstance(await ask(bench.redis), TierUnavailableError)
    (at,) = await bench.cell.fence_many([Target.key(NS, "a")], soft=False)
    assert isinstance(at, TierUnavailableError)
    await bench.restart()
    while isinstance(reply := await ask(bench.redis), TierError):  # noqa: ASYNC110  another process sets no event of ours
        await asyncio.sleep(0.01)
    assert reply == Reply(None, exact=False)
    (at,) = await bench.cell.fence_many([Target.key(NS, "a")], soft=False)
    assert "new issuer waits" in str(at)
    await bench.settle()
    await bench.fill()


async def test_connecting_is_not_tried_again_at_once(bench: RedisBench) -> None:
    bench.server.kill()
    first, second = await ask(bench.redis), await ask(bench.redis)
    await asyncio.to_thread(bench.server.restart)
    assert [isinstance(reply, TierUnavailableError) for reply in (first, second)] == [True, True]
    assert "not tried" in str(second)


async def test_a_hanging_server_costs_the_time_limit_and_its_late_answer_goes_nowhere(
    bench: RedisBench,
) -> None:
    """The connection is closed: a later exchange never takes the late answer for its own."""
    hasty = L3(connect_timeout=Duration.parse("2s"), timeout=Duration.parse("50ms"))
    cell = RedisCell("hasty", bench.server.redis_url, hasty, SKEW_US, SystemClock())
    try:
        for i in range(4):
            await bench.put(await bench.entry(b"%d" % i), key=Key.of(NS, f"k{i}"))
        assert good(await ask(cell, Key.of(NS, "k0"))).entry is not None
        bench.server.pause()
        try:
            assert isinstance(await ask(cell, Key.of(NS, "k1")), TierTimeoutError)
        finally:
            bench.server.resume()
        for i in (2, 3):
            entry = good(await ask(cell, Key.of(NS, f"k{i}"))).entry
            assert entry is not None
            assert entry.value == b"%d" % i
    finally:
        await cell.stop()


@pytest.mark.parametrize("leaving", [1, 2, 3])
async def test_cancelled_callers_leave_connections_in_step(bench: RedisBench, leaving: int) -> None:
    """Cancelled before their batch is sent, while it is on the wire, and after: the others get their own answers."""
    for i in range(3):
        await bench.put(await bench.entry(b"%d" % i), key=Key.of(NS, f"k{i}"))
    connects = bench.redis.statistics().connects
    for turns in range(6):
        tasks = [asyncio.create_task(bench.read(Key.of(NS, f"k{i}"))) for i in range(3)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks[:leaving]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        values = [reply.entry.value for reply in done if isinstance(reply, Reply) and reply.entry]
        assert values == [b"0", b"1", b"2"][3 - len(values) :]
        assert len(values) >= 3 - leaving
    opened = bench.redis.statistics().connects - connects
    assert opened < READS_IN_FLIGHT, (
        "at most the other connections of reads that may be under way at once; none was closed"
    )
    assert bench.redis.statistics().failures == 0


async def test_a_connection_cancelled_in_the_middle_is_closed(bench: RedisBench) -> None:
    connection = await bench.redis._connections.borrow()
    bench.server.pause()
    try:
        exchange = asyncio.create_task(connection.run(READ, [b"nonce"]))
        for _ in range(5):
            await asyncio.sleep(0)
        exchange.cancel()
        with pytest.raises(asyncio.CancelledError):
            await exchange
        assert not connection.is_open
    finally:
        bench.server.resume()


async def test_a_server_that_forgot_the_scripts_is_told_again(bench: RedisBench) -> None:
    await bench.fill()
    await bench.admin.script_flush()
    assert (await bench.read()).entry is not None


async def test_a_read_only_replica_is_unavailable_and_left(bench: RedisBench) -> None:
    await bench.admin.execute_command("REPLICAOF", "127.0.0.1", "1")  # type: ignore[no-untyped-call]  # redis-py
    try:
        (at,) = await bench.cell.fence_many([Target.key(NS, "a")], soft=False)
        assert isinstance(at, TierUnavailableError)
        assert bench.redis.statistics().idle == 0
    finally:
        await bench.admin.execute_command("REPLICAOF", "NO", "ONE")  # type: ignore[no-untyped-call]  # redis-py


async def test_a_full_server_says_so_and_the_connection_stays(bench: RedisBench) -> None:
    await bench.admin.config_set("maxmemory", "1")
    try:
        (at,) = await bench.cell.fence_many([Target.key(NS, "a")], soft=False)
        assert isinstance(at, TierError)
        assert "maxmemory" in str(at)
    finally:
        await bench.admin.config_set("maxmemory", "0")
    connects = bench.redis.statistics().connects
    await bench.fill()
    assert bench.redis.statistics().connects == connects


async def test_a_cell_is_attached_by_starting_so_that_the_new_issuers_wait_is_over_sooner(
    bench: RedisBench,
) -> None:
    await bench.lose_all()
    cell = RedisCell("c1", bench.server.redis_url, L3(), SKEW_US, SystemClock())
    await cell.start()
    while not await bench.admin.exists("meta"):  # noqa: ASYNC110  another process sets no event of ours
        await asyncio.sleep(0.001)
    await cell.stop()


async def test_starting_without_a_server_does_not_fail() -> None:
    cell = RedisCell("c1", "unix:///nowhere/at/all", L3(), SKEW_US, SystemClock())
    await cell.start()
    assert isinstance(await ask(cell), TierUnavailableError)
    await cell.stop()


async def test_two_instances_that_attach_at_once_are_one_new_issuer(
    server: RealServer, bench: RedisBench
) -> None:
    await bench.lose_all()
    other = RedisCell("c1", server.redis_url, L3(), SKEW_US, SystemClock())
    try:
        await asyncio.gather(ask(other), ask(bench.redis))
        broken_at = (await bench.state()).broken_at
        await other.read_many([Read(Key.of(NS, str(i))) for i in range(300)])
        assert (await bench.state()).broken_at == broken_at
    finally:
        await other.stop()


async def test_two_instances_that_bring_a_new_placement_at_once_are_one_new_issuer(
    server: RealServer, bench: RedisBench
) -> None:
    both = [
        RedisCell("c1", server.redis_url, L3(), SKEW_US, SystemClock(), placement=(7, 1)) for _ in range(2)
    ]
    try:
        await asyncio.gather(*map(ask, both))
        broken_at = (await bench.state()).broken_at
        await both[0].read_many([Read(Key.of(NS, str(i))) for i in range(300)])
        assert (await bench.state()).broken_at == broken_at
        assert await bench.admin.hmget("meta", "placement", "version") == [b"7", b"1"]
    finally:
        for cell in both:
            await cell.stop()


async def test_the_meta_record_of_a_release_that_knew_no_placement_makes_a_new_issuer(
    bench: RedisBench,
) -> None:
    await bench.admin.hdel("meta", "placement", "version")
    broken_at = (await bench.state()).broken_at
    await bench.activate(7, 1)
    assert (await bench.state()).broken_at > broken_at


async def test_a_restart_keeps_the_newest_placement_seen(bench: RedisBench) -> None:
    """Or the older instance that attaches first would make the newer one a new issuer once more."""
    await bench.activate(8, 2)
    await bench.restart_with_data()
    await bench.activate(7, 1)
    assert await bench.admin.hmget("meta", "placement", "version") == [b"8", b"2"]


async def test_an_absurd_entry_does_not_spoil_the_batch_it_travels_in(bench: RedisBench) -> None:
    other = Key.of(NS, "b")
    tokens = [str((await bench.read(key)).lease) for key in (KEY, other)]
    entry = await bench.entry(as_of=as_of_of(tokens[1]))
    absurd = Entry(b"", -(1 << 60), 1 << 62)
    replies = await bench.cell.fill_many(
        [Fill(KEY, absurd, tokens[0]), Fill(other, entry, tokens[1]), Fill(KEY, entry, "x" * 999)]
    )
    assert [good(reply).stored for reply in replies] == [True, True, False]
    assert (await bench.read(other)).entry == entry
    (reply,) = await bench.cell.read_many([Read(other, not_before=(1 << 64) - 1)])
    assert good(reply).fenced


async def test_fences_are_not_evicted_or_expired_and_old_ones_are_trimmed(bench: RedisBench) -> None:
    await bench.fence(Target.tag(NS, "t"), Target.key(NS, "a"))
    await bench.fence(Target.tag(NS, "s"), soft=True)
    assert [await bench.admin.ttl(name) for name in ("fences", "soft", "meta")] == [-1, -1, -1]
    now = (await bench.state()).now_us
    await bench.admin.zadd("fences", {"docs#old": now - 3_700_000_000, "docs#kept": now - 3_500_000_000})
    await bench.admin.hdel("meta", "trimmed")
    await bench.fence(Target.key(NS, "b"))
    assert await bench.admin.zscore("fences", "docs#old") is None
    assert await bench.admin.zscore("fences", "docs#kept") is not None


async def test_copies_expire_and_never_outlive_the_fences(bench: RedisBench) -> None:
    await bench.put(
        replace(await bench.entry(), fresh_until=(await bench.state()).now_us + 10 * 86_400_000_000)
    )
    assert 0 < await bench.admin.pttl(b"v:" + KEY.id) <= 3_600_000


async def test_the_clock_offset_of_the_cell_is_measured(bench: RedisBench) -> None:
    await bench.read()
    assert abs(bench.redis.statistics().clock_offset_us) < 1_000_000
    behind = ManualClock(start_us=0)
    cell = RedisCell("c1", bench.server.redis_url, L3(), SKEW_US, behind)
    await ask(cell)
    await cell.stop()
    assert cell.statistics().clock_offset_us > 1_000_000_000


async def test_a_put_by_a_clock_that_is_an_hour_ahead_is_fresh_for_its_own_time(bench: RedisBench) -> None:
    hour = 3600 * SECONDS
    ahead = ManualClock(start_us=SystemClock().now_us() + hour)
    cell = RedisCell("c1", bench.server.redis_url, SETTINGS, SKEW_US, ahead)
    await ask(cell)
    (put,) = await cell.put_many([Put(KEY, Entry(b"v", ahead.now_us(), ahead.now_us() + 5 * SECONDS))])
    await cell.stop()
    assert not isinstance(put, TierError)
    assert put.entry is not None
    found = (await bench.read()).entry
    assert found is not None
    for entry in (put.entry, found):
        assert 3 * SECONDS < entry.fresh_until - (await bench.state()).now_us <= 6 * SECONDS


async def test_a_stopped_cell_answers_unavailable_and_leaves_no_connection(bench: RedisBench) -> None:
    cell = RedisCell("c1", bench.server.redis_url, L3(), SKEW_US, SystemClock())
    await ask(cell)
    await cell.stop()
    assert isinstance(await ask(cell), TierUnavailableError)
    assert cell.statistics().idle == 0


async def test_fence_and_lease_in_one_tick_of_a_frozen_clock() -> None:
    """Trace 15: only a clock in this process can stand still. The lease is younger than the fence, so its fill is kept."""
    numbers = itertools.count()
    cell = MemoryCell("c1", ManualClock(), 0, nonce=lambda: str(next(numbers)))
    key, target = KEY, Target.key(NS, KEY.text)
    ats = [good((await cell.fence_many([target], soft=False))[0]).at for _ in range(2)]
    assert ats[1] == ats[0] + 1
    (reply,) = await cell.read_many([Read(key, lease=True)])
    lease = good(reply).lease
    assert lease == f"0:{ats[1] + 1}"
    entry = Entry(b"1", as_of_of(lease), as_of_of(lease) + 60_000_000)
    assert good((await cell.fill_many([Fill(key, entry, lease)]))[0]).stored
    (put,) = await cell.put_many([Put(key, entry)])
    assert good(put).at == ats[1] + 1


async def test_a_record_of_another_version_is_a_miss_that_can_be_loaded_again(bench: RedisBench) -> None:
    await bench.fill()
    record = await bench.admin.get(b"v:" + KEY.id)
    assert isinstance(record, bytes)
    at = record.rindex(MAGIC)
    await bench.admin.set(b"v:" + KEY.id, record[:at] + b"\xff\xff" + record[at + 2 :], keepttl=True)
    plain, asking = await bench.redis.read_many([Read(KEY), Read(KEY, lease=True)])
    assert isinstance(plain, Reply)
    assert isinstance(asking, Reply)
    assert (plain.entry, plain.lease) == (None, None)
    assert asking.entry is None
    assert asking.lease is not None


async def test_a_damaged_record_is_a_miss_that_is_counted_and_can_be_loaded_again(bench: RedisBench) -> None:
    await bench.fill()
    record = await bench.admin.get(b"v:" + KEY.id)
    assert isinstance(record, bytes)
    flipped = bytearray(record)
    flipped[-20] ^= 1
    await bench.admin.set(b"v:" + KEY.id, bytes(flipped), keepttl=True)
    assert bench.redis.statistics().damaged == 0
    plain, asking = await bench.redis.read_many([Read(KEY), Read(KEY, lease=True)])
    assert isinstance(plain, Reply)
    assert isinstance(asking, Reply)
    assert (plain.entry, asking.entry) == (None, None)
    assert asking.lease is not None
    assert bench.redis.statistics().damaged == 2


async def test_a_cell_says_what_it_holds_and_what_bounds_that(bench: RedisBench) -> None:
    unbounded = await bench.redis.report()
    assert (unbounded.memory_used_bytes or 0) > 0
    assert unbounded.memory_limit_bytes is None
    await bench.admin.config_set("maxmemory", 1 << 28)
    assert (await bench.redis.report()).memory_limit_bytes == 1 << 28
    await bench.admin.config_set("maxmemory", 0)


async def test_an_exchange_is_measured_by_its_operation(bench: RedisBench) -> None:
    before = sum(bench.redis.durations["reads"].buckets)
    await bench.read(KEY)
    assert sum(bench.redis.durations["reads"].buckets) == before + 1


@pytest.fixture(scope="module")
def valkey() -> Iterator[RealServer]:
    """The machine's Redis may be too old to know CLIENT NO-TOUCH."""
    with valkey_server("--maxmemory-policy", "allkeys-lfu") as running:
        yield running


async def test_inspecting_does_not_make_a_key_look_used(valkey: RealServer) -> None:
    """By the counter of LFU, which grows with a key's first use."""
    async with redis_bench(valkey) as bench:
        await bench.fill()
        record = b"v:" + KEY.id
        before = await bench.admin.object("FREQ", record)
        for _ in range(5):
            assert (await bench.state()).entry is not None
        assert await bench.admin.object("FREQ", record) == before
        for _ in range(5):
            await bench.read()
        assert await bench.admin.object("FREQ", record) > before


@pytest.mark.parametrize("is_single", [True, False])
async def test_the_lease_of_a_reply_whose_reader_has_gone_goes_back(
    bench: RedisBench, is_single: bool
) -> None:
    """The batch of a cancelled reader is sent all the same, and its lease granted to nobody."""
    await bench.read()
    read = Read(Key.of(NS, "b"), lease=True)
    asking = bench.redis.ask(read) if is_single else bench.redis.read_many([read])
    reader = asyncio.ensure_future(asking)
    await asyncio.sleep(0)
    reader.cancel()
    await asyncio.wait([reader])
    await until("given back", lambda: bench.redis.batchers["leases"].statistics().items == 1)
    assert (await bench.read(Key.of(NS, "b"))).lease is not None


async def test_a_release_that_nobody_waits_for_arrives_or_is_dropped_in_silence(bench: RedisBench) -> None:
    lease = (await bench.read()).lease
    assert lease is not None
    bench.redis.release(KEY, "f00d:1")
    bench.redis.release(KEY, lease)

    async def is_free() -> bool:
        return not (await bench.state()).lease_held

    await until("given back", is_free)
    await bench.redis.stop()
    bench.redis.release(KEY, lease)


async def test_a_put_whose_connection_breaks_fails_only_when_it_can_run_no_more(bench: RedisBench) -> None:
    """The server may have its bytes already, and run it after the writer's next put."""
    settings = L3(connect_timeout=Duration.parse("2s"), timeout=Duration.parse("300ms"))
    cell = RedisCell("c1", bench.server.redis_url, settings, SKEW_US, SystemClock())
    loop = asyncio.get_running_loop()
    try:
        good(await ask(cell))
        bench.server.pause()
        began = loop.time()
        putting = asyncio.create_task(cell.put_many([Put(KEY, Entry(b"0", 0, 1 << 60))]))
        await until("the put is on its way", lambda: cell.statistics().exchanges > 1)
        await asyncio.sleep(0.01)
        bench.server.kill()
        (reply,) = await putting
        assert isinstance(reply, TierUnavailableError)
        assert loop.time() - began >= 0.6
    finally:
        bench.server.restart()
        await cell.stop()


@pytest.mark.parametrize("off_seconds", [-3600, -1, 3600])
async def test_a_server_whose_clock_was_set_takes_puts(bench: RedisBench, off_seconds: int) -> None:
    """Its time as the connection knows it is off. A put that it calls late is sent again, with its new time."""
    (connection,) = bench.redis._connections._idle
    connection._ahead_us += off_seconds * SECONDS
    assert (await bench.put(await bench.entry(b"1"))).stored
    entry = (await bench.read()).entry
    assert entry is not None
    assert entry.value == b"1"


async def test_the_time_of_a_server_is_asked_for_again_after_a_minute(
    bench: RedisBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    (connection,) = bench.redis._connections._idle
    connection._ahead_us += 3600 * SECONDS
    monkeypatch.setattr(connection, "_attached_at", connection._attached_at - 61)
    assert (await bench.put(await bench.entry(b"1"))).stored
    assert (
        connection._ahead_us <= SystemClock().now_us() - asyncio.get_running_loop().time() * SECONDS + SECONDS
    )
