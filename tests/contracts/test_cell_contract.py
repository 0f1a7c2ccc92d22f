"""The contract of home cells, checked in memory and on all kinds of servers, also a guarded one."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from cachesvc.model.change import Target
from cachesvc.model.entry import Key
from cachesvc.model.errors import TierUnavailableError
from cachesvc.model.etag import etag
from cachesvc.tiers.l3.contract import Fill, FillReply, Put, Read
from tests.contracts.cell_benches import (
    KEY,
    NS,
    SKEW_US,
    CellBench,
    as_of_of,
    ats_of,
    memory_bench,
    redis_bench,
)
from tests.contracts.conftest import KINDS, server_of
from tests.doubles.servers import RealServer

OTHER = Key.of(NS, "b")

server = server_of(*KINDS)


@pytest.fixture
async def bench(server: RealServer | None) -> AsyncIterator[CellBench]:
    async with memory_bench() if server is None else redis_bench(server) as found:
        yield found


async def test_a_fill_is_read_back_whole_and_exact(bench: CellBench) -> None:
    entry, _ = await bench.fill(
        b"\x00\xffbytes",
        content_type="a/b",
        tags=("t", "ü"),
        load_ms=7,
        stale_for=5,
        error_for=9,
        origin_etag='"o"',
    )
    reply = await bench.read()
    assert (reply.entry, reply.exact, reply.lease, reply.held, reply.soft, reply.fenced) == (
        entry,
        True,
        None,
        False,
        False,
        False,
    )


async def test_a_negative_entry_is_an_entry(bench: CellBench) -> None:
    entry, _ = await bench.fill(b"", negative=True)
    assert (await bench.read()).entry == entry


async def test_a_miss_without_asking_grants_nothing(bench: CellBench) -> None:
    reply = await bench.read(lease=False)
    assert (reply.entry, reply.lease, reply.held) == (None, None, False)
    assert not (await bench.state()).lease_held


async def test_one_of_many_readers_gets_the_lease(bench: CellBench) -> None:
    """In one batch and in two: at most one valid lease per key."""
    replies = [
        *await bench.cell.read_many([Read(KEY, lease=True)] * 3),
        *await bench.cell.read_many([Read(KEY, lease=True)] * 2),
    ]
    assert [(bool(r.lease), r.held) for r in replies if not isinstance(r, Exception)] == [(True, False)] + [
        (False, True)
    ] * 4


async def test_leases_of_keys_in_one_batch_are_different(bench: CellBench) -> None:
    replies = await bench.cell.read_many([Read(KEY, lease=True), Read(OTHER, lease=True)])
    tokens = {reply.lease for reply in replies if not isinstance(reply, Exception)}
    assert len(tokens) == 2
    assert None not in tokens


async def test_a_fresh_hit_grants_nothing_unless_a_refresh_is_asked(bench: CellBench) -> None:
    entry, _ = await bench.fill()
    assert (await bench.read()).lease is None
    reply = await bench.read(refresh=True)
    assert reply.entry == entry
    assert reply.lease is not None
    assert (await bench.read(refresh=True)).held


async def test_a_stale_hit_grants_the_lease_to_one(bench: CellBench) -> None:
    entry, _ = await bench.fill(fresh_for=-1, stale_for=60_000_000)
    first, second = await bench.read(), await bench.read()
    assert (first.entry, second.entry) == (entry, entry)
    assert first.lease is not None
    assert (second.lease, second.held) == (None, True)


async def test_an_entry_past_its_last_use_is_gone(bench: CellBench) -> None:
    await bench.fill(fresh_for=0.01, error_for=10_000)
    await bench.pass_time(0.03)
    reply = await bench.read()
    assert (reply.entry, reply.fenced) == (None, False)


async def test_a_lease_expires(bench: CellBench) -> None:
    first = await bench.read(lease_us=10_000)
    await bench.pass_time(0.02)
    second = await bench.read()
    assert second.lease not in (None, first.lease)
    assert first.lease is not None
    assert not await bench.try_fill(first.lease, await bench.entry(as_of=as_of_of(first.lease)))
    assert second.lease is not None
    await bench.fill(b"1", lease=second.lease)


async def test_a_late_fill_under_an_expired_lease_does_not_replace_the_next_one(bench: CellBench) -> None:
    """Trace 21."""
    first = await bench.read(lease_us=10_000)
    await bench.pass_time(0.02)
    await bench.fill(b"1")
    assert first.lease is not None
    assert not await bench.try_fill(first.lease, await bench.entry(b"0", as_of=as_of_of(first.lease)))
    assert (await bench.read()).entry.value == b"1"  # type: ignore[union-attr]


async def test_a_fill_is_idempotent_by_its_lease(bench: CellBench) -> None:
    """Trace 23: the reply was lost and the client asks again."""
    entry, token = await bench.fill()
    assert await bench.try_fill(token, entry)
    assert (await bench.read()).entry == entry


async def test_a_repeated_fill_is_refused_once_a_fence_refuses_its_copy(bench: CellBench) -> None:
    entry, token = await bench.fill(tags=("t",))
    await bench.fence(Target.tag(NS, "t"))
    assert not await bench.try_fill(token, entry)


async def test_a_fill_ends_its_lease(bench: CellBench) -> None:
    await bench.fill()
    assert not (await bench.state()).lease_held


@pytest.mark.parametrize("soft", [False, True])
async def test_a_fence_voids_the_lease(bench: CellBench, soft: bool) -> None:
    lease = (await bench.read()).lease
    assert lease is not None
    await bench.fence(soft=soft)
    assert not await bench.try_fill(lease, await bench.entry(as_of=as_of_of(lease)))
    assert (await bench.read()).entry is None


async def test_renewal_prolongs_and_never_re_creates(bench: CellBench) -> None:
    """Trace 22."""
    lease = (await bench.read(lease_us=1_000_000)).lease
    assert lease is not None
    assert list(await bench.cell.renew_many([(KEY, lease, 60_000_000), (OTHER, lease, 60_000_000)])) == [
        True,
        False,
    ]
    await bench.pass_time(1.1)
    assert (await bench.read()).held
    await bench.fence()
    assert list(await bench.cell.renew_many([(KEY, lease, 60_000_000)])) == [False]
    assert not (await bench.state()).lease_held


async def test_a_released_lease_is_free_for_the_next_reader(bench: CellBench) -> None:
    lease = (await bench.read()).lease
    assert lease is not None
    assert list(await bench.cell.release_many([(KEY, "other:1")])) == [False]
    assert (await bench.read()).held
    assert list(await bench.cell.release_many([(KEY, lease)])) == [True]
    assert list(await bench.cell.release_many([(KEY, lease)])) == [False]
    assert (await bench.read()).lease is not None


async def test_a_later_lease_is_younger_even_while_the_keys_fence_leads_the_clock(bench: CellBench) -> None:
    """Two loads under leases of one age could take each other's place with a reader who has seen the younger one."""
    fence = await bench.fence()
    ages = []
    for _ in range(3):
        lease = (await bench.read()).lease
        assert lease is not None
        ages.append(as_of_of(lease))
        await bench.cell.release_many([(KEY, lease)])
        await bench.pass_time(0.01)
    assert fence < ages[0] < ages[1] < ages[2]
    assert ages[2] < await bench.fence(), "and the next fence refuses all of them"


async def test_an_entry_younger_than_its_lease_is_refused(bench: CellBench) -> None:
    lease = (await bench.read()).lease
    assert lease is not None
    assert not await bench.try_fill(lease, await bench.entry(as_of=as_of_of(lease) + 1))


async def test_an_entry_older_than_its_keys_fence_is_refused_even_with_a_good_lease(bench: CellBench) -> None:
    """An origin's Age makes the entry older than its lease."""
    fence = await bench.fence()
    lease = (await bench.read()).lease
    assert lease is not None
    assert not await bench.try_fill(lease, await bench.entry(as_of=fence))
    assert (await bench.read()).lease is not None  # the refused fill gave its lease up


@pytest.mark.parametrize("token", ["", "x", "x:", "x:1y", "x:99999999999999999999"])
async def test_a_made_up_lease_stores_nothing(bench: CellBench, token: str) -> None:
    assert not await bench.try_fill(token, await bench.entry())
    assert (await bench.read()).entry is None


async def test_a_hard_fence_drops_the_copy_and_the_next_load_can_be_kept_at_once(bench: CellBench) -> None:
    await bench.fill(b"0")
    at = await bench.fence()
    assert at >= (await bench.state()).now_us  # leads by S
    reply = await bench.read()
    assert reply.entry is None
    assert reply.lease is not None
    assert as_of_of(reply.lease) > at
    await bench.fill(b"1", lease=reply.lease)
    assert (await bench.read()).entry.value == b"1"  # type: ignore[union-attr]


async def test_fences_of_a_key_grow(bench: CellBench) -> None:
    target = Target.key(NS, KEY.text)
    ats = [*ats_of(await bench.cell.fence_many([target, target], soft=False)), await bench.fence(target)]
    assert ats == sorted(set(ats))
    far = (await bench.state()).now_us + 3 * SKEW_US
    assert await bench.fence(target, least=far) >= far
    assert (await bench.state()).fence_at >= far


async def test_a_soft_fence_keeps_the_copy_as_stale(bench: CellBench) -> None:
    entry, _ = await bench.fill()
    at = await bench.fence(soft=True)
    reply = await bench.read()
    assert (reply.entry, reply.soft, reply.fenced) == (entry, True, False)
    assert reply.lease is not None
    assert as_of_of(reply.lease) > at
    await bench.fill(b"1", lease=reply.lease)
    assert not (await bench.read()).soft


@pytest.mark.parametrize("target", [Target.tag(NS, "t"), Target.whole(NS)])
async def test_a_soft_tag_or_namespace_fence_makes_copies_stale(bench: CellBench, target: Target) -> None:
    entry, _ = await bench.fill(tags=("t",))
    await bench.fill(key=(untouched := Key.of("docs2", "a")), tags=("u",))
    await bench.fence(target, soft=True, least=(await bench.state()).now_us)
    reply = await bench.read()
    assert (reply.entry, reply.soft) == (entry, True)
    assert reply.lease is not None
    assert not (await bench.read(untouched)).soft


@pytest.mark.parametrize("target", [Target.tag(NS, "t"), Target.whole(NS)])
async def test_a_tag_or_namespace_fence_refuses_what_is_not_younger(bench: CellBench, target: Target) -> None:
    entry, _ = await bench.fill(tags=("s", "t"))
    await bench.fill(key=(untouched := Key.of("docs2", "a")), tags=("t",))
    assert await bench.fence(target, least=entry.as_of - 1) == entry.as_of - 1
    assert (await bench.read()).entry == entry
    assert await bench.fence(target, least=entry.as_of) == entry.as_of
    reply = await bench.read()
    assert (reply.entry, reply.fenced) == (None, True)
    assert reply.lease is not None
    assert (await bench.read(untouched)).entry is not None


async def test_tags_and_namespaces_keep_the_newest_fence(bench: CellBench) -> None:
    now = (await bench.state()).now_us
    tag, whole = Target.tag(NS, "t"), Target.whole(NS)
    assert ats_of(await bench.cell.fence_many([tag, whole], soft=False, least=now)) == [now, now]
    assert ats_of(await bench.cell.fence_many([tag, whole], soft=False, least=now - 5)) == [now, now]
    state = await bench.state(tags=("t", "u"))
    assert (state.tag_fences, state.namespace_fence) == ({"t": now, "u": 0}, now)


async def test_a_load_that_a_tag_fence_of_the_future_refuses_is_not_kept(bench: CellBench) -> None:
    """Trace 3: and the lease is free, so that the next reader loads again."""
    lease = (await bench.read()).lease
    assert lease is not None
    await bench.fence(Target.tag(NS, "t"), least=(await bench.state()).now_us + 2 * SKEW_US)
    assert not await bench.try_fill(lease, await bench.entry(as_of=as_of_of(lease), tags=("t",)))
    assert (await bench.read()).lease is not None


async def test_an_at_far_ahead_is_taken_as_a_little_ahead(bench: CellBench) -> None:
    """Trace 24: one clock a day ahead."""
    ahead = (await bench.state()).now_us + 86_400_000_000
    key, tag = Target.key(NS, KEY.text), Target.tag(NS, "t")
    ats = ats_of(await bench.cell.fence_many([key, tag], soft=False, least=ahead))
    latest = (await bench.state()).now_us + 4 * SKEW_US
    assert all(at <= latest for at in ats)


async def test_not_before_refuses_and_grants_even_over_a_fresh_copy(bench: CellBench) -> None:
    """Trace 19."""
    entry, _ = await bench.fill()
    assert (await bench.read(not_before=entry.as_of - 1)).entry == entry
    reply = await bench.read(not_before=entry.as_of)
    assert (reply.entry, reply.fenced) == (None, True)
    assert reply.lease is not None
    again = await bench.read(not_before=entry.as_of)
    assert (again.entry, again.fenced, again.held) == (None, True, True)


async def test_a_put_is_a_fence_and_a_fill(bench: CellBench) -> None:
    await bench.fill(b"0")
    lease = (await bench.read(refresh=True)).lease
    assert lease is not None
    reply = await bench.put(await bench.entry(b"1", tags=("t",)))
    assert reply.stored
    assert reply.entry is not None
    assert reply.entry.as_of == reply.at + 1
    assert (await bench.read()).entry == reply.entry
    assert ((await bench.state()).fence_at, (await bench.state()).lease_held) == (reply.at, False)
    assert not await bench.try_fill(lease, await bench.entry(b"0", as_of=as_of_of(lease)))
    assert (await bench.read()).entry == reply.entry


async def test_put_if_absent(bench: CellBench) -> None:
    entry = await bench.entry(b"1")
    assert (await bench.put(entry, if_absent=True)).stored
    before = await bench.state()
    assert not (await bench.put(replace(entry, value=b"2"), if_absent=True)).stored
    after = await bench.state()
    assert (after.entry, after.fence_at) == (before.entry, before.fence_at)
    await bench.fence()
    assert (await bench.put(replace(entry, value=b"3"), if_absent=True)).stored


async def test_known_absent_is_absent_for_a_condition(bench: CellBench) -> None:
    await bench.fill(b"", negative=True)
    entry = await bench.entry(b"1")
    assert not (await bench.put(entry, if_match=("*",))).stored
    assert (await bench.put(entry, if_absent=True)).stored


async def test_a_copy_that_a_fence_refuses_is_absent_for_a_condition(bench: CellBench) -> None:
    entry, _ = await bench.fill(tags=("t",))
    await bench.fence(Target.tag(NS, "t"), least=entry.as_of)
    assert not (await bench.put(entry, if_match=(etag(entry),))).stored
    assert (await bench.put(entry, if_absent=True)).stored


async def test_put_if_match(bench: CellBench) -> None:
    entry = await bench.entry(b"1")
    assert not (await bench.put(entry, if_match=("*",))).stored
    assert (await bench.put(entry)).stored
    assert not (await bench.put(entry, if_match=('"0123456789abcdef"', 'W/"x"'))).stored
    assert not (await bench.put(entry, if_match=(f"W/{etag(entry)}",))).stored
    assert (await bench.put(replace(entry, value=b"2"), if_match=('"0123456789abcdef"', etag(entry)))).stored
    assert not (await bench.put(entry, if_match=(etag(entry),))).stored
    assert (await bench.put(entry, if_match=("*",))).stored


async def test_a_batch_is_judged_key_by_key(bench: CellBench) -> None:
    await bench.fill(b"0")
    keys = [Key.of(NS, f"many-{i}") for i in range(300)]
    for key in keys[::3]:
        await bench.put(await bench.entry(key.id), key=key)
    replies = await bench.cell.read_many([Read(key) for key in (KEY, *keys)])
    values = [
        reply.entry.value if reply.entry else None for reply in replies if not isinstance(reply, Exception)
    ]
    assert values == [b"0"] + [key.id if i % 3 == 0 else None for i, key in enumerate(keys)]


async def test_a_new_issuer_waits_s_and_what_it_held_is_not_exact(bench: CellBench) -> None:
    """Traces 1, 2, 12: after a promotion or restart nothing is granted or applied for S, and older copies are not vouched for."""
    before = await bench.entry(b"0")
    await bench.put(before)
    lease = (await bench.read(OTHER)).lease
    assert lease is not None
    await bench.restart_with_data()
    reply = await bench.read()
    assert (reply.entry, reply.lease, reply.held) == (None, None, False)
    (at,) = await bench.cell.fence_many([Target.key(NS, KEY.text)], soft=False)
    assert isinstance(at, TierUnavailableError)
    (put,) = await bench.cell.put_many([Put(KEY, before)])
    assert isinstance(put, TierUnavailableError)
    assert not await bench.try_fill(lease, await bench.entry(as_of=as_of_of(lease)), key=OTHER)
    assert list(await bench.cell.renew_many([(OTHER, lease, 1_000_000)])) == [False]
    assert list(await bench.cell.release_many([(OTHER, lease)])) == [False]
    await bench.settle()
    reply = await bench.read()
    assert reply.entry is not None
    assert not reply.exact
    await bench.fill(b"1")
    assert (await bench.read()).exact


async def test_a_cell_that_lost_everything_is_a_new_issuer(bench: CellBench) -> None:
    await bench.fill()
    broken_at = (await bench.state()).broken_at
    await bench.lose_all()
    reply = await bench.read()
    assert (reply.entry, reply.lease) == (None, None)
    assert (await bench.state()).broken_at > broken_at
    await bench.settle()
    await bench.fill(b"1")
    assert (await bench.read()).exact


async def test_a_cell_that_a_topology_gave_partitions_is_a_new_issuer(bench: CellBench) -> None:
    """Traces 2, 13: the home that they had issued fences and leases that this cell knows nothing of."""
    await bench.activate(7, 1)
    await bench.settle()
    await bench.fill(b"0")
    lease = (await bench.read(OTHER)).lease
    assert lease is not None
    await bench.activate(8, 2)
    assert (await bench.read(Key.of(NS, "c"))).lease is None
    (at,) = await bench.cell.fence_many([Target.key(NS, KEY.text)], soft=False)
    assert isinstance(at, TierUnavailableError)
    assert not await bench.try_fill(lease, await bench.entry(as_of=as_of_of(lease)), key=OTHER)
    await bench.settle()
    reply = await bench.read()
    assert reply.entry is not None
    assert not reply.exact
    await bench.fill(b"1")
    assert (await bench.read()).exact


@pytest.mark.parametrize(
    ("placement", "version", "what"),
    [
        (7, 5, "the same document again"),
        (7, 6, "a newer document that moves nothing"),
        (8, 4, "an older one, that an instance still has"),
        (8, 5, "the same version of another placement: somebody forgot to count"),
        (0, 0, "an instance that says nothing of its placement"),
    ],
)
async def test_who_attaches_with_no_newer_placement_disturbs_nobody(
    bench: CellBench, placement: int, version: int, what: str
) -> None:
    await bench.activate(7, 5)
    await bench.settle()
    entry, _ = await bench.fill()
    await bench.activate(placement, version)
    reply = await bench.read(refresh=True)
    assert (reply.entry, reply.exact) == (entry, True), what
    assert reply.lease is not None, what


async def test_instances_of_two_topologies_work_beside_each_other(bench: CellBench) -> None:
    """The older one goes on once the new issuer's wait is over, and attaching it again does not flip the cell back."""
    await bench.activate(7, 1)
    await bench.activate(8, 2)
    await bench.settle()
    broken_at = (await bench.state()).broken_at
    await bench.activate(7, 1)
    await bench.activate(8, 2)
    await bench.fence()
    await bench.fill()
    assert (await bench.read()).exact
    assert (await bench.state()).broken_at == broken_at


async def test_a_version_that_never_came_here_may_have_moved_partitions_away_and_back(
    bench: CellBench,
) -> None:
    await bench.activate(7, 1)
    await bench.settle()
    await bench.fill()
    await bench.activate(7, 3)  # 2 was another placement, and this cell out of its instances' reach
    await bench.settle()
    assert not (await bench.read()).exact


async def test_a_former_home_takes_the_new_homes_time_as_the_least(bench: CellBench) -> None:
    """Traces 2, 13: it drops copy and lease, and what it answers is later than every lease that it has granted."""
    target = Target.key(NS, KEY.text)
    await bench.fill(b"0")
    lease = (await bench.read(refresh=True)).lease
    assert lease is not None
    least = (await bench.state()).now_us + 3 * SKEW_US
    at = await bench.fence(target, least=least)
    assert at >= least
    assert (await bench.state()).entry is None
    assert not (await bench.state()).lease_held
    assert not await bench.try_fill(lease, await bench.entry(as_of=as_of_of(lease)))
    assert await bench.fence(target, least=least) > at, "later than its own last one"
    await bench.pass_time(5 * SKEW_US / 1e6)
    assert await bench.fence(target, least=least) > least + 2 * SKEW_US, "and than its own clock"


async def test_a_former_home_takes_a_soft_fence_with_a_least_too(bench: CellBench) -> None:
    entry, _ = await bench.fill()
    least = (await bench.state()).now_us + 3 * SKEW_US
    at = await bench.fence(soft=True, least=least)
    assert at >= least
    reply = await bench.read()
    assert (reply.entry, reply.soft) == (entry, True)
    assert reply.lease is not None
    early = await bench.entry(b"w", as_of=as_of_of(reply.lease))
    assert not await bench.try_fill(reply.lease, early), "no fence of now would reach it (trace 52)"
    await bench.pass_time(3 * SKEW_US / 1e6)
    _, token = await bench.fill(b"w")
    assert as_of_of(token) > at


async def test_inspecting_changes_nothing(bench: CellBench) -> None:
    entry, _ = await bench.fill(tags=("t",))
    lease = (await bench.read(refresh=True, lease_us=60_000_000)).lease
    first, second = await bench.state(tags=("t",)), await bench.state(tags=("t",))
    assert lease is not None
    assert (first.entry, first.lease_held, first.lease, first.lease_as_of) == (
        entry,
        True,
        lease,
        as_of_of(lease),
    )
    assert first.lease_until - first.now_us == pytest.approx(60_000_000, abs=2_000_000)
    assert replace(first, now_us=0, lease_until=0) == replace(second, now_us=0, lease_until=0)


async def test_inspecting_tells_every_fence_on_the_key_and_on_the_tags_it_has(bench: CellBench) -> None:
    await bench.fill(tags=("own",))
    key_at = await bench.fence(Target.key(NS, KEY.text), soft=True)
    own_at = await bench.fence(Target.tag(NS, "own"), soft=True)
    asked_at = await bench.fence(Target.tag(NS, "asked"))
    whole_at = await bench.fence(Target.whole(NS), soft=True)
    state = await bench.state(tags=("asked",))
    assert (state.fence_at, state.soft_fence) == (key_at, key_at)
    assert (state.tag_fences, state.soft_tag_fences) == (
        {"asked": asked_at, "own": 0},
        {"asked": 0, "own": own_at},
    )
    assert (state.namespace_fence, state.soft_namespace_fence) == (0, whole_at)
    assert (state.refused_until, state.stale_until) == (0, max(key_at, own_at, whole_at))


async def test_concurrent_callers_get_their_own_answers(bench: CellBench) -> None:
    for i in range(20):
        await bench.put(await bench.entry(b"%d" % i), key=Key.of(NS, f"own-{i}"))
    replies = await asyncio.gather(*[bench.read(Key.of(NS, f"own-{i % 20}")) for i in range(200)])
    assert [reply.entry and reply.entry.value for reply in replies] == [b"%d" % (i % 20) for i in range(200)]


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("target", [Target.tag(NS, "t"), Target.whole(NS)])
async def test_a_put_that_a_fence_refuses_for_now_is_filled_when_its_time_has_come(
    bench: CellBench, target: Target, soft: bool
) -> None:
    await bench.fill(b"0", tags=("t",))
    fence = await bench.fence(target, soft=soft, least=(await bench.state()).now_us + 4 * SKEW_US)
    entry = await bench.entry(b"1", tags=("t",))
    put = await bench.put(entry)
    assert (put.stored, put.entry, put.at) == (False, None, fence)
    assert 0 < put.wait_us <= 3 * SKEW_US
    assert as_of_of(put.lease) == fence + 1
    held = await bench.read()
    assert (held.entry, held.held) == (None, True)
    await bench.pass_time(put.wait_us / 1e6)
    assert await bench.try_fill(put.lease, replace(entry, as_of=fence + 1))
    reply = await bench.read()
    assert (reply.entry, reply.soft, reply.lease) == (replace(entry, as_of=fence + 1), False, None)


async def test_a_put_waits_for_the_newest_fence_that_its_caller_knows(bench: CellBench) -> None:
    known = (await bench.state()).now_us + 4 * SKEW_US
    put = await bench.put(await bench.entry(b"1"), known=known)
    assert (put.stored, put.at, as_of_of(put.lease)) == (False, known, known + 1)


async def test_a_put_does_not_wait_for_a_time_that_only_a_wrong_clock_of_its_caller_can_give(
    bench: CellBench,
) -> None:
    known = (await bench.state()).now_us + 20 * SKEW_US
    assert (await bench.put(await bench.entry(b"1"), known=known)).stored


async def test_a_put_that_waits_is_overtaken_by_what_comes_next(bench: CellBench) -> None:
    known = (await bench.state()).now_us + 4 * SKEW_US
    entry = await bench.entry(b"1")
    first = await bench.put(entry, known=known)
    second = await bench.put(entry, known=known)
    assert second.at > first.at
    (refused,) = await bench.cell.fill_many([Fill(KEY, replace(entry, as_of=first.at + 1), first.lease)])
    assert refused == FillReply(stored=False, fenced=True)
    at = await bench.fence()
    assert at > second.at
    (refused,) = await bench.cell.fill_many([Fill(KEY, replace(entry, as_of=second.at + 1), second.lease)])
    assert refused == FillReply(stored=False, fenced=True)


async def test_a_fill_whose_lease_has_ended_without_a_fence_is_told_so(bench: CellBench) -> None:
    put = await bench.put(entry := await bench.entry(b"1"), known=(await bench.state()).now_us + 4 * SKEW_US)
    assert list(await bench.cell.release_many([(KEY, put.lease)])) == [True]
    (refused,) = await bench.cell.fill_many([Fill(KEY, replace(entry, as_of=put.at + 1), put.lease)])
    assert refused == FillReply(stored=False, fenced=False)


async def test_a_put_that_waits_is_there_for_one_that_stores_if_nothing_is(bench: CellBench) -> None:
    entry, known = await bench.entry(b"1"), (await bench.state()).now_us + 4 * SKEW_US
    waiting = await bench.put(entry, if_absent=True, known=known)
    assert waiting.lease
    refused = await bench.put(entry, if_absent=True, known=known)
    assert (refused.stored, refused.at) == (False, 0)
    assert (await bench.put(replace(entry, negative=True), known=known)).lease
    assert (await bench.put(entry, if_absent=True, known=known)).lease
