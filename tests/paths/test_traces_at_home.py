"""Traces that a home cell alone decides: leases, fills, the times it issues. In memory, and in the Lua of a real server."""

from msgspec.structs import replace

from cachesvc.model.change import Target
from cachesvc.model.entry import Key
from tests.contracts.cell_benches import KEY, NS, SKEW_US, CellBench, as_of_of

OTHER = Key.of(NS, "b")
A_DAY_US = 86_400_000_000


async def test_trace_01_a_promoted_replica_must_not_issue_at_once(bench: CellBench) -> None:
    """Its clock may be S behind that of the cell before it: what it granted now could be earlier than what that one issued."""
    await bench.fill(b"0")
    await bench.restart_with_data()
    assert (await bench.read(OTHER)).lease is None
    await bench.settle()
    assert (await bench.read(OTHER)).lease is not None


async def test_trace_12_a_promoted_replica_must_not_vouch_for_what_it_inherited(bench: CellBench) -> None:
    await bench.fill(b"0")
    assert (await bench.read()).exact
    await bench.restart_with_data()
    await bench.settle()
    inherited = await bench.read()
    assert inherited.entry is not None
    assert inherited.entry.value == b"0"
    assert not inherited.exact, (
        "the fence of it may be lost with the old primary: sketch and floor have to judge it"
    )
    await bench.fill(b"1")
    assert (await bench.read()).exact


async def test_trace_13_a_home_that_was_given_partitions_must_not_vouch_for_what_it_held_of_them_before(
    bench: CellBench,
) -> None:
    await bench.activate(7, 1)
    await bench.settle()
    await bench.fill(b"0")
    await bench.activate(
        9, 3
    )  # under version 2 the partition had another home, and there its fence was issued
    await bench.settle()
    assert not (await bench.read()).exact


async def test_trace_14_a_fence_must_not_be_behind_a_clock_that_is_ahead_by_s(bench: CellBench) -> None:
    before = (await bench.state()).now_us
    at = await bench.fence()
    assert at >= before + SKEW_US


async def test_trace_15_a_lease_in_the_tick_of_a_fence_must_not_be_behind_it(bench: CellBench) -> None:
    for _ in range(3):
        at = await bench.fence()
        lease = (await bench.read()).lease
        assert lease is not None
        assert as_of_of(lease) > at
        _, token = await bench.fill(b"1", lease=lease)
        assert token == lease, "a load after a fence can be kept at once"


async def test_trace_19_a_copy_that_the_reader_refuses_must_not_keep_it_from_the_lease(
    bench: CellBench,
) -> None:
    entry, _ = await bench.fill(b"0")
    reply = await bench.read(not_before=entry.as_of)
    assert reply.entry is None
    assert reply.lease is not None


async def test_trace_21_a_fill_must_not_land_when_its_lease_has_expired(bench: CellBench) -> None:
    first = (await bench.read(lease_us=10_000)).lease  # i0 loads 0; the commit comes, and i0 is slow
    assert first is not None
    await bench.pass_time(0.02)
    await bench.fill(b"1")  # i1 gets the lease, loads 1 and fills
    assert not await bench.try_fill(first, await bench.entry(b"0", as_of=as_of_of(first)))
    assert await _value(bench) == b"1"


async def test_trace_22_a_renewal_must_not_bring_back_a_lease_that_a_fence_deleted(bench: CellBench) -> None:
    lease = (await bench.read()).lease  # i0 loads 0
    assert lease is not None
    await bench.fence()  # the commit, and its fence
    assert list(await bench.cell.renew_many([(KEY, lease, 5_000_000)])) == [False]
    assert not await bench.try_fill(lease, await bench.entry(b"0", as_of=as_of_of(lease)))
    assert (await bench.read()).lease is not None, "nobody else can hold it up"


async def test_trace_33_a_release_must_not_end_the_lease_of_the_next_holder(bench: CellBench) -> None:
    first = (await bench.read(lease_us=100_000)).lease
    assert first is not None
    await bench.pass_time(0.2)
    second = (await bench.read()).lease
    assert second is not None
    assert list(await bench.cell.release_many([(KEY, first)])) == [False]
    assert (await bench.read()).held, "two loads at a time, against G3"
    assert await bench.try_fill(second, await bench.entry(b"1", as_of=as_of_of(second)))
    assert list(await bench.cell.release_many([(KEY, second)])) == [False]
    copy = (await bench.read()).entry
    assert copy is not None
    assert copy.value == b"1", "a release after the fill changes nothing"


async def test_trace_23_a_fill_must_not_be_lost_when_only_replies_were(bench: CellBench) -> None:
    lease = (await bench.read()).lease
    assert lease is not None
    assert list(await bench.cell.renew_many([(KEY, lease, 5_000_000)] * 2)) == [True, True]
    entry, _ = await bench.fill(b"1", lease=lease)
    assert await bench.try_fill(lease, entry), "the retry is told what the first try was"
    assert await _value(bench) == b"1"


async def test_trace_23_a_fill_must_not_be_done_twice_when_another_came_between(bench: CellBench) -> None:
    entry, first = await bench.fill(b"0")
    await bench.fill(b"1")
    assert not await bench.try_fill(first, entry)
    assert await _value(bench) == b"1"


async def test_trace_24_an_at_from_a_clock_a_day_ahead_must_not_stop_caching_for_a_day(
    bench: CellBench,
) -> None:
    ahead = (await bench.state()).now_us + A_DAY_US
    await bench.fence(Target.tag(NS, "t"), least=ahead)
    await bench.pass_time(5 * SKEW_US / 1e6)
    entry = await bench.entry(b"1", tags=("t",))
    lease = (await bench.read()).lease
    assert lease is not None
    assert await bench.try_fill(lease, replace(entry, as_of=as_of_of(lease)))


async def test_trace_39_a_home_must_not_vouch_for_copies_whose_fences_were_deleted(bench: CellBench) -> None:
    await bench.fill(b"0", tags=("t",))
    await bench.fence(Target.tag(NS, "t"))
    await bench.lose_fences()
    await bench.settle()
    copy = await bench.read()
    assert copy.entry is None or not copy.exact
    await bench.fill(b"1", tags=("t",))
    assert (await bench.read()).exact


async def _value(bench: CellBench) -> bytes | None:
    entry = (await bench.read(lease=False)).entry
    return entry.value if entry is not None else None


async def test_trace_45_a_put_must_not_be_stored_with_a_time_that_fences_of_now_do_not_reach(
    bench: CellBench,
) -> None:
    await bench.fence(Target.whole(NS), least=(await bench.state()).now_us + 4 * SKEW_US)
    put = await bench.put(await bench.entry(b"0"))
    latest = (await bench.state()).now_us + SKEW_US + 1000
    assert put.entry is None or put.entry.as_of <= latest


async def test_trace_45_nor_must_a_fence_of_a_slower_clock_be_behind_a_put_that_waits(
    bench: CellBench,
) -> None:
    now = (await bench.state()).now_us
    await bench.fence(Target.whole(NS), least=now + 4 * SKEW_US)
    put = await bench.put(await bench.entry(b"0"))
    at = await bench.fence(Target.tag(NS, "t"), least=now + 3 * SKEW_US)
    assert put.entry is not None or at >= as_of_of(put.lease)


async def test_trace_46_a_put_that_waits_must_not_outlive_the_fence_of_the_tick_of_its_fill(
    bench: CellBench,
) -> None:
    await bench.fence(Target.whole(NS), least=(await bench.state()).now_us + 4 * SKEW_US)
    put = await bench.put(await bench.entry(b"0"))
    assert put.lease
    assert (await bench.state()).fence_at >= as_of_of(put.lease) - 1


async def test_trace_51_a_put_that_was_given_up_must_not_replace_a_newer_one_when_it_arrives(
    bench: CellBench,
) -> None:
    arrive = await bench.put_late(await bench.entry(b"0"))  # i0 says that nothing was stored
    await bench.put(await bench.entry(b"1"))  # so the writer puts 1 through i1
    await arrive()
    found = (await bench.read()).entry
    assert found is not None
    assert found.value == b"1"


async def test_trace_52_a_lease_must_not_have_a_time_that_fences_of_now_do_not_reach(
    bench: CellBench,
) -> None:
    now = (await bench.state()).now_us
    await bench.fence(Target.whole(NS), least=now + 4 * SKEW_US)
    await bench.put(await bench.entry(b"v"))  # it waits
    await bench.fence()  # and is over
    lease = (await bench.read()).lease
    assert lease is not None
    latest = (await bench.state()).now_us + SKEW_US + 1000
    stored = await bench.try_fill(lease, await bench.entry(b"0", as_of=as_of_of(lease), tags=("t",)))
    assert not stored or as_of_of(lease) <= latest, (
        "a fence of a slower clock is earlier: 0 would be answered"
    )


async def test_trace_53_nor_must_a_lease_behind_the_retry_of_a_parked_key(bench: CellBench) -> None:
    now = (await bench.state()).now_us
    await bench.fence(least=now + 3 * SKEW_US + 1000)  # the fallback of a clock that is S ahead
    lease = (await bench.read()).lease
    assert lease is not None
    latest = (await bench.state()).now_us + SKEW_US + 1000
    stored = await bench.try_fill(lease, await bench.entry(b"0", as_of=as_of_of(lease)))
    assert not stored or as_of_of(lease) <= latest, "the next fallback may be earlier: 0 would be answered"
