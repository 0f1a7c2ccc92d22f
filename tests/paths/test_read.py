"""The read path: who answers, what is kept where, when the origin is asked, and what staleness is allowed."""

import asyncio

import pytest
from msgspec.structs import replace

from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import OriginError
from cachesvc.model.fence import Fence
from cachesvc.model.problems import ProblemKind
from cachesvc.model.requests import Outcome, ReadOptions
from cachesvc.tiers.l3.contract import Fill, Read
from cachesvc.tiers.l3.leases import lease_as_of
from tests.doubles.loaders import absent, loaded, not_modified, unkept
from tests.paths.truth import Store
from tests.paths.world import SKEW_US, FarSide, Instance

pytestmark = [pytest.mark.looptime, pytest.mark.usefixtures("both_ways")]

SECOND = 1_000_000


async def test_a_cold_read_goes_to_the_origin_and_fills_every_tier() -> None:
    here = Instance()
    first = await here.get("a")
    assert (first.outcome, first.tier) == (Outcome.LOADED, "origin")
    assert [(step.tier, step.reason, step.stored) for step in first.trail] == [
        ("l3", "uri-miss", True),
        ("l2", "uri-miss", True),
        ("l1", "uri-miss", True),
    ]
    assert (await here.get("a")).tier == "l1"
    assert (await Instance(here.far).get("a")).tier == "l2"
    await asyncio.sleep(0.01)
    await here.far.l2.tier.delete_many([_key("a")])
    assert (await Instance(here.far).get("a")).tier == "l3"
    assert (await Instance(here.far).get("a")).tier == "l2", "an L3 hit is copied to L2"
    assert here.far.loader.loads("a") == 1


async def test_a_tier_that_is_down_is_a_miss_for_reads() -> None:
    here = Instance()
    here.far.l2.down = here.far.cell.down = True
    answer = await here.get("a")
    assert answer.outcome is Outcome.LOADED
    assert [(step.tier, step.detail) for step in answer.trail[:2]] == [
        ("l3", "unavailable"),
        ("l2", "unavailable"),
    ]
    assert (await here.get("a")).tier == "l1", "one load per instance while the home is out of reach"
    assert here.far.loader.loads("a") == 1


async def test_an_l2_outage_leaves_l3_to_answer() -> None:
    here = Instance()
    await here.get("a")
    here.far.l2.down = True
    assert (await Instance(here.far).get("a")).tier == "l3"


async def test_concurrent_reads_of_a_cold_key_over_four_instances_reach_the_origin_once() -> None:
    far = FarSide()
    instances = [Instance(far) for _ in range(4)]
    far.loader.hold()
    reads = [asyncio.create_task(instances[i % 4].get("a")) for i in range(10_000)]
    await far.loader.called()
    await asyncio.sleep(0.5)
    far.loader.release()
    answers = await asyncio.gather(*reads)
    assert {answer.entry.value for answer in answers if answer.entry} == {b"value of a"}
    assert far.loader.loads("a") == 1


async def test_a_collapsed_read_says_so() -> None:
    here = Instance()
    here.far.loader.hold()
    first, second = asyncio.create_task(here.get("a")), asyncio.create_task(here.get("a"))
    await here.far.loader.called()
    here.far.loader.release()
    assert [(await read).trail[0].collapsed for read in (first, second)] == [False, True]


@pytest.mark.parametrize("leaving", [1, 2, 3])
async def test_cancelled_callers_do_not_cancel_the_load(leaving: int) -> None:
    here = Instance()
    here.far.loader.hold()
    reads = [asyncio.create_task(here.get("a")) for _ in range(3)]
    await here.far.loader.called()
    for read in reads[:leaving]:
        read.cancel()
    await asyncio.sleep(0)
    here.far.loader.release()
    done = await asyncio.gather(*reads, return_exceptions=True)
    assert [isinstance(answer, asyncio.CancelledError) for answer in done] == [i < leaving for i in range(3)]
    await asyncio.sleep(0.1)
    assert (await here.get("a")).tier == "l1"
    assert here.far.loader.loads("a") == 1


@pytest.mark.parametrize("leaving", [1, 2, 3])
async def test_callers_cancelled_while_l2_is_asked_leave_the_flight_to_the_others(leaving: int) -> None:
    here = Instance()
    await here.get("a")
    here.l1.clear()
    here.far.l2.hold_gets = asyncio.Event()
    reads = [asyncio.create_task(here.get("a")) for _ in range(3)]
    await asyncio.sleep(0.01)
    for read in reads[:leaving]:
        read.cancel()
    await asyncio.sleep(0.01)
    here.far.l2.hold_gets.set()
    done = await asyncio.gather(*reads, return_exceptions=True)
    assert [getattr(answer, "tier", "cancelled") for answer in done] == ["cancelled"] * leaving + ["l2"] * (
        3 - leaving
    )
    await asyncio.sleep(0.01)
    assert (await here.get("a")).tier == "l1"
    assert len(here.flights) == 0


async def test_a_hung_origin_holds_nobody_beyond_the_hard_deadline_and_the_next_reader_takes_over() -> None:
    here = Instance()
    here.far.loader.hold()
    loop = asyncio.get_running_loop()
    began = loop.time()
    answer = await here.get("a")
    assert answer.error is not None
    assert (answer.error.kind, answer.error.status) == ("origin-timeout", 504)
    assert loop.time() - began == pytest.approx(3.0, abs=0.1)
    here.far.loader.release()
    assert (await here.get("a")).outcome is Outcome.LOADED


async def test_the_callers_deadline_ends_the_wait_and_not_the_load() -> None:
    here = Instance()
    here.far.loader.hold()
    answer = await here.get("a", options=ReadOptions(timeout_seconds=0.2))
    assert answer.error is not None
    assert answer.error.kind == "deadline"
    here.far.loader.release()
    await asyncio.sleep(0.1)
    assert (await here.get("a")).tier == "l1"


async def test_a_dead_lease_holder_costs_its_lease_and_no_more() -> None:
    far = FarSide()
    dead, alive = Instance(far), Instance(far)
    far.loader.hold()
    doomed = asyncio.create_task(dead.get("a", "slow"))
    await far.loader.called()
    far.cell.down = True  # for the dead one, as for a killed process: no release, no renewal, no fill
    await dead.tasks.stop()
    await asyncio.gather(doomed, return_exceptions=True)
    far.cell.down = False
    await far.cell.renew_many([])
    far.loader.release()
    began = asyncio.get_running_loop().time()
    answer = await alive.get("a", "slow")
    assert answer.outcome is Outcome.LOADED
    assert asyncio.get_running_loop().time() - began < 2.5


async def test_a_slow_load_keeps_its_lease_by_renewal() -> None:
    far = FarSide()
    one, other = Instance(far), Instance(far)
    far.loader.hold()
    first = asyncio.create_task(one.get("a", "slow"))
    await far.loader.called()
    second = asyncio.create_task(other.get("a", "slow"))
    await asyncio.sleep(6)  # three lives of the lease
    far.loader.release()
    assert (await first).outcome is Outcome.LOADED
    assert (await second).outcome is Outcome.HIT
    assert far.loader.loads("a") == 1


async def test_a_stale_copy_is_answered_while_one_refresh_runs_behind() -> None:
    here = Instance()
    here.far.loader.script("a", loaded(b"old", ttl_us=10 * SECOND), loaded(b"new", ttl_us=10 * SECOND))
    await here.get("a")
    await asyncio.sleep(11)
    answers = [await here.get("a") for _ in range(5)]
    assert {(answer.outcome, answer.entry.value) for answer in answers if answer.entry} == {
        (Outcome.STALE, b"old")
    }
    await asyncio.sleep(0.1)
    assert await here.value("a") == b"new"
    assert here.far.loader.loads("a") == 2
    assert sum(here.tally.stale_ages["docs"].buckets) == 5


async def test_a_failing_origin_leaves_the_stale_copy_as_last_resort() -> None:
    here = Instance()
    here.far.loader.script(
        "a", loaded(b"old", ttl_us=SECOND, stale_for_us=0, error_for_us=60 * SECOND), OriginError("down")
    )
    await here.get("a")
    await asyncio.sleep(5)
    answer = await here.get("a")
    assert (answer.outcome, answer.entry and answer.entry.value) == (Outcome.STALE, b"old")
    assert here.tally.stale_ages["docs"].total == pytest.approx(4, abs=0.2)
    await asyncio.sleep(61)
    here.far.loader.script("a", OriginError("down"))
    gone = await here.get("a")
    assert gone.error is not None
    assert (gone.error.kind, gone.error.status, gone.error.retryable) == ("origin-failed", 502, True)


async def test_a_slow_origin_is_covered_by_the_last_resort_after_the_soft_deadline() -> None:
    here = Instance()
    here.far.loader.script("a", loaded(b"old", ttl_us=SECOND, stale_for_us=0, error_for_us=60 * SECOND))
    await here.get("a")
    await asyncio.sleep(5)
    here.far.loader.hold()
    began = asyncio.get_running_loop().time()
    answer = await here.get("a")
    assert (answer.outcome, answer.entry and answer.entry.value) == (Outcome.STALE, b"old")
    assert asyncio.get_running_loop().time() - began == pytest.approx(0.5, abs=0.05)
    here.far.loader.release()
    await asyncio.sleep(0.1)
    assert await here.value("a") == b"value of a"


async def test_absence_is_remembered_for_its_own_short_time() -> None:
    here = Instance()
    here.far.loader.script("a", absent(), loaded(b"now here"))
    assert (await here.get("a")).outcome is Outcome.ABSENT
    assert (await here.get("a")).outcome is Outcome.ABSENT
    assert here.far.loader.loads("a") == 1
    await asyncio.sleep(11)
    assert (await here.get("a")).outcome is Outcome.LOADED


async def test_a_304_fills_the_bytes_that_it_validated() -> None:
    here = Instance()
    here.far.loader.script(
        "a", loaded(b"same", ttl_us=SECOND, etag='"v1"', stale_for_us=0), not_modified(ttl_us=60 * SECOND)
    )
    first = await here.get("a")
    await asyncio.sleep(2)
    again = await here.get("a")
    assert (again.outcome, again.entry and again.entry.value) == (Outcome.LOADED, b"same")
    assert again.entry is not None
    assert first.entry is not None
    assert again.entry.as_of > first.entry.as_of
    assert here.far.loader.calls[1].known is not None
    assert (await here.get("a")).tier == "l1"


async def test_what_may_not_be_stored_is_answered_and_not_kept() -> None:
    here = Instance()
    here.far.loader.script("a", unkept(b"private"), loaded(b"second"))
    assert await here.value("a") == b"private"
    assert await here.value("a") == b"second"


async def test_a_tag_of_another_partition_keeps_the_value_out_of_the_tiers() -> None:
    here = Instance()
    here.far.loader.script("{a}:1", loaded(b"x", tags=("{b}:t",)), loaded(b"y"))
    assert await here.value("{a}:1") == b"x"
    assert (await here.get("{a}:1")).outcome is Outcome.LOADED


@pytest.mark.parametrize(
    ("options", "outcome"),
    [
        (ReadOptions(max_age_us=60 * SECOND), Outcome.HIT),
        (ReadOptions(max_age_us=SECOND), Outcome.LOADED),
        (ReadOptions(min_fresh_us=1000 * SECOND), Outcome.LOADED),
        (ReadOptions(no_cache=True), Outcome.LOADED),
        (ReadOptions(only_if_cached=True), Outcome.HIT),
        (ReadOptions(only_if_cached=True, max_age_us=SECOND), Outcome.MISS),
    ],
)
async def test_a_reader_may_ask_for_more_than_the_rule(options: ReadOptions, outcome: Outcome) -> None:
    here = Instance()
    await here.get("a")
    await asyncio.sleep(10)
    assert (await here.get("a", options=options)).outcome is outcome


async def test_only_if_cached_never_loads() -> None:
    here = Instance()
    assert (await here.get("a", options=ReadOptions(only_if_cached=True))).outcome is Outcome.MISS
    assert here.far.loader.calls == []


async def test_no_store_answers_and_keeps_nothing() -> None:
    here = Instance()
    assert (await here.get("a", options=ReadOptions(no_store=True))).outcome is Outcome.LOADED
    assert (await here.get("a")).outcome is Outcome.LOADED
    assert here.far.loader.loads("a") == 2


async def test_a_batch_reads_each_key_by_the_same_rules() -> None:
    here = Instance()
    await here.get("a")
    here.far.loader.script("bad", OriginError("no", kind=ProblemKind.ORIGIN_REFUSED))
    answers = await here.reader.get_many([_key(text) for text in ("a", "b", "b", "bad")])
    assert [answer.outcome for answer in answers] == [
        Outcome.HIT,
        Outcome.LOADED,
        Outcome.LOADED,
        Outcome.ERROR,
    ]
    assert here.far.loader.loads("b") == 1


async def test_a_batch_asks_l2_and_each_home_once() -> None:
    far = FarSide()
    await Instance(far).reader.get_many([_key(f"k{i}") for i in range(50)])
    before = far.cell.count("read_many")
    await far.l2.tier.delete_many([_key(f"k{i}") for i in range(50)])
    answers = await Instance(far).reader.get_many([_key(f"k{i}") for i in range(50)])
    assert {answer.tier for answer in answers} == {"l3"}
    assert far.cell.count("read_many") == before + 1


async def test_a_hot_entry_is_refreshed_before_it_expires() -> None:
    here = Instance()
    here.far.loader.hold()
    slow = asyncio.create_task(here.get("a", "hot"))
    await here.far.loader.called()
    await asyncio.sleep(1)
    here.far.loader.release()
    await slow
    for _ in range(900):
        await asyncio.sleep(0.01)
        assert (await here.get("a", "hot")).outcome is Outcome.HIT
    assert here.far.loader.loads("a") >= 2
    assert here.tally.early_refreshes >= 1


def _key(text: str) -> Key:
    return Key.of("docs", text)


async def test_a_holder_that_is_slower_than_the_readers_patience_costs_a_load_of_their_own_that_is_not_kept() -> (
    None
):
    """A hot key under a slow origin: its leases are voided faster than anyone can load. Readers get what they load themselves."""
    far = FarSide()
    here = Instance(far)
    key = Key.of("docs", "a")
    (held,) = await far.cell.read_many([Read(key, lease=True, lease_us=60_000_000)])
    assert held.lease is not None
    began = asyncio.get_running_loop().time()
    answer = await here.get("a")
    assert answer.outcome is Outcome.LOADED
    assert 3.0 <= asyncio.get_running_loop().time() - began < 3.5, "lease_wait"
    assert here.l1.peek(key) is None
    assert far.l2.sets == []
    assert (await far.cell.fill_many([Fill(key, entry_as_of(held.lease), held.lease)]))[0].stored, (
        "the holder's fill still counts"
    )


def entry_as_of(lease: str) -> Entry:
    as_of = lease_as_of(lease)
    return Entry(b"held", as_of, as_of + 10**9)


async def test_at_the_deadline_every_key_that_is_there_is_answered_wherever_it_stood_in_the_batch() -> None:
    here = Instance()
    await here.value("warm")
    here.l1.clear()
    here.far.loader.hold()
    keys = [Key.of("docs", text) for text in ("slow", "warm", "slow too")]
    answers = await here.reader.get_many(keys, ReadOptions(timeout_seconds=0.2))
    assert [answer.outcome for answer in answers] == [Outcome.ERROR, Outcome.HIT, Outcome.ERROR]
    here.far.loader.release()


async def test_a_slow_load_that_a_fence_voids_is_not_waited_for_twice() -> None:
    far = FarSide()
    here = Instance(far)
    key = Key.of("docs", "a")
    await far.cell.read_many([Read(key, lease=True, lease_us=60_000_000)])
    began = asyncio.get_running_loop().time()
    reading = asyncio.create_task(here.get("a"))
    await asyncio.sleep(0.7)
    here.merger.merge(
        [Fence(key.digest, far.clock.now_us() + SKEW_US)]
    )  # its home has granted the next lease already
    answer = await reading
    assert answer.outcome is Outcome.LOADED
    assert 0.7 <= asyncio.get_running_loop().time() - began < 1.1, (
        "soft_deadline is over, and waiting has become hopeless"
    )


async def test_a_load_that_a_fence_overtook_says_what_a_session_must_remember() -> None:
    far = FarSide()
    Store(far)
    here = Instance(far)
    far.loader.hold()
    reading = asyncio.create_task(here.get("a"))
    await far.loader.called()
    await here.invalidate("a")
    far.loader.release()
    answer = await reading
    assert answer.entry is not None
    assert not answer.entry.confirmed, "its fill was refused"
    assert here.fences.seen_until(answer.entry) == far.clock.now_us() + 2 * SKEW_US
    kept = await here.get("a")
    assert kept.entry is not None
    assert kept.entry.confirmed
    assert here.fences.seen_until(kept.entry) == 0


async def test_a_copy_that_no_home_has_confirmed_is_not_peeked_at_but_answered() -> None:
    far = FarSide()
    Store(far)
    here = Instance(far)
    far.cell.down = True
    assert await here.value("a") == b"0"
    key = Key.of("docs", "a")
    assert here.l1.peek(key) is not None
    assert here.reader.peek("docs", key) is None
    assert here.reader.peek_many("docs", [key]) == [None]
    assert here.reader.peek_small("docs", key, 100) is None
    answer = await here.get("a")
    assert (answer.outcome, answer.tier) == (Outcome.HIT, "l1")


async def test_a_small_value_is_judged_and_counted_as_any_other_and_what_is_not_small_is_not_counted() -> (
    None
):
    here = Instance()
    key, now = Key.of("docs", "a"), here.far.clock.now_us()
    await here.get("a")
    entry, hits = here.reader.peek("docs", key), here.reader.tally.l1.hits
    assert entry is not None
    assert here.reader.peek_small("docs", key, len(entry.value)) is entry
    assert here.reader.tally.l1.hits == hits + 1
    assert here.reader.peek_small("docs", key, len(entry.value) - 1) is None
    here.l1.put(key, replace(entry, tags=tuple(map(str, range(17)))))
    assert here.reader.peek_small("docs", key, 100) is None
    here.l1.put(key, replace(entry, negative=True))
    assert here.reader.peek_small("docs", key, 100) is None
    here.l1.put(key, replace(entry, fresh_until=now))
    assert here.reader.peek_small("docs", key, 100) is None
    assert here.reader.peek_small("docs", Key.of("docs", "b"), 100) is None
    assert here.reader.tally.l1.hits == hits + 1
    here.l1.put(key, entry)
    await here.invalidate("a")
    assert here.reader.peek_small("docs", key, 100) is None


@pytest.mark.parametrize(("lag_us", "unmet"), [(0, False), (SKEW_US * 5, True)])
async def test_a_value_of_an_origin_that_may_be_behind_says_that_it_may_be_older_than_the_token(
    lag_us: int, unmet: bool
) -> None:
    far = FarSide()
    far.loader.default = lambda _: loaded(b"0", age_us=lag_us)
    here = Instance(far)
    pair = (Key.of("docs", "a").digest, far.clock.now_us() - 1)
    answer = await here.get("a", options=ReadOptions(token=(pair,)))
    assert (answer.outcome, answer.unmet) == (Outcome.LOADED, unmet)
    assert not (await here.get("b", options=ReadOptions(token=(pair,)))).unmet
