"""One fence over every tier: the races of COHERENCE.md and its traces, on the fake clock. Each fails without its protection."""

import asyncio

import pytest

from cachesvc.dialogue import Outcome, ReadOptions
from cachesvc.flight import Flight, Landing
from cachesvc.model import Fence, Key, Target
from tests.doubles.clocks import LoopClock
from tests.doubles.loaders import absent, loaded
from tests.paths.world import SKEW_US, FarSide, Instance

pytestmark = pytest.mark.looptime


class Store:
    """The truth behind the origin: what a load that begins now returns."""

    def __init__(self, far: FarSide, tags: tuple[str, ...] = ()) -> None:
        self.value = b"0"
        far.loader.default = lambda key: loaded(self.value, tags=tags)


async def test_after_an_invalidation_nothing_loaded_before_it_is_answered_from_any_tier() -> None:
    far = FarSide()
    store = Store(far)
    here, there = Instance(far), Instance(far)
    assert await here.value("a") == await there.value("a") == b"0"
    store.value = b"1"
    receipt = await here.invalidate("a")
    assert receipt.applied
    assert await here.value("a") == b"1"
    there.merger.merge([Fence(digest, at) for digest, at in receipt.token])
    assert await there.value("a") == b"1"
    assert (await there.get("a")).tier == "l1"
    assert (await here.get("a")).tier == "l1", "a load after a fence can be cached at once"


@pytest.mark.parametrize("what", ["tag", "namespace"])
async def test_tags_and_namespaces_reach_every_copy(what: str) -> None:
    far = FarSide()
    store = Store(far, tags=("t",))
    here = Instance(far)
    assert await here.value("a") == b"0"
    store.value = b"1"
    await (here.invalidate(tags=["t"]) if what == "tag" else here.invalidate(whole=True))
    assert await here.value("a") == b"1"
    await asyncio.sleep(1)
    assert await here.value("a") == b"1"
    assert (await here.get("a")).tier == "l1"


async def test_trace_3_a_tag_fence_in_the_future_costs_one_load_per_read_and_not_endless_ones() -> None:
    far = FarSide()
    Store(far, tags=("t",))
    here = Instance(far)
    await here.invalidate(tags=["t"])  # its fence leads the clock by 2 S: what is loaded now is not admissible yet
    answer = await here.get("a")
    assert answer.outcome is Outcome.LOADED
    assert far.loader.loads("a") == 1
    assert here.l1.peek(Key.of("docs", "a")) is None


async def test_trace_4_a_reader_who_knows_a_tag_fence_is_not_answered_by_an_older_load() -> None:
    far = FarSide()
    store = Store(far, tags=("t",))
    here = Instance(far)
    far.loader.hold()
    far.loader.script("a", loaded(b"0", tags=("t",)))
    before = asyncio.create_task(here.get("a"))
    await far.loader.called()
    store.value = b"1"
    await here.invalidate(tags=["t"])
    after = asyncio.create_task(here.get("a"))
    await asyncio.sleep(0.01)
    assert here.tally.joined == 1, "it joins the flight: nobody knows the value's tags yet"
    far.loader.release()
    old, new = await before, await after
    assert old.entry is not None
    assert new.entry is not None
    assert (old.entry.value, new.entry.value) == (b"0", b"1")
    assert far.loader.loads("a") == 2


async def test_trace_5_merging_a_keys_fence_forgets_its_flight() -> None:
    far = FarSide()
    store = Store(far)
    here = Instance(far)
    far.loader.hold()
    far.loader.script("a", loaded(b"0"))
    before = asyncio.create_task(here.get("a"))
    await far.loader.called()
    store.value = b"1"
    await here.invalidate("a")
    after = asyncio.create_task(here.get("a"))
    await far.loader.called(2)
    far.loader.release()
    answers = await before, await after
    assert [answer.entry.value for answer in answers if answer.entry] == [b"0", b"1"]
    assert await here.value("a") == b"1", "and the late fill of the first load was refused by L3"


async def test_trace_7_a_token_reads_its_write_where_the_feed_is_behind() -> None:
    far = FarSide()
    store = Store(far)
    here, behind = Instance(far), Instance(far)
    assert await behind.value("a") == b"0"
    store.value = b"1"
    receipt = await here.invalidate("a")
    assert await behind.value("a") == b"0", "its feed has not told it yet"
    answer = await behind.get("a", options=ReadOptions(token=receipt.token))
    assert answer.entry is not None
    assert answer.entry.value == b"1"
    assert await behind.value("a") == b"1", "a token is a fence: later readers profit"


@pytest.mark.parametrize("what", ["tag", "namespace"])
async def test_a_token_of_a_wide_invalidation_is_honoured_too(what: str) -> None:
    far = FarSide()
    store = Store(far, tags=("t",))
    here, behind = Instance(far), Instance(far)
    assert await behind.value("a") == b"0"
    store.value = b"1"
    receipt = await (here.invalidate(tags=["t"]) if what == "tag" else here.invalidate(whole=True))
    answer = await behind.get("a", options=ReadOptions(token=receipt.token))
    assert answer.entry is not None
    assert answer.entry.value == b"1"


async def test_trace_8_a_token_is_checked_on_l3_copies_too() -> None:
    far = FarSide()
    store = Store(far)
    here = Instance(far)
    await here.value("a")
    store.value = b"1"
    at = far.clock.now_us() + SKEW_US  # a fence that the home has lost: nothing of it is stored there
    token = ((Target.key("docs", "a").digest, at),)
    await asyncio.sleep(0.2)
    other = Instance(far)
    far.l2.down = True
    answer = await other.get("a", options=ReadOptions(token=token))
    assert answer.entry is not None
    assert answer.entry.value == b"1"


async def test_trace_14_and_20_a_server_that_returns_with_old_content_is_refused() -> None:
    far = FarSide()
    store = Store(far)
    here = Instance(far)
    await here.value("a")
    await asyncio.sleep(0.01)
    far.l2.down = True  # memcached is cut off: the delete that follows the fence does not reach it
    store.value = b"1"
    await here.invalidate("a")
    far.l2.down = False
    held = (await far.l2.tier.get_many([Key.of("docs", "a")]))[0]
    assert getattr(held, "value", None) == b"0", "the old copy is really there"
    assert await here.value("a") == b"1"


async def test_trace_14_without_a_home_a_fence_leads_by_two_skews_over_fast_clocks() -> None:
    far = FarSide()
    store = Store(far)
    ahead = Instance(far, clock=LoopClock(skew_us=SKEW_US))
    slow = Instance(far)
    far.cell.down = True
    assert await ahead.value("a") == b"0"
    store.value = b"1"
    receipt = await slow.invalidate("a")
    assert not receipt.applied
    ahead.merger.merge([Fence(digest, at, unapplied=True) for digest, at in receipt.token])
    assert await ahead.value("a") == b"1"


async def test_trace_15_a_load_in_the_same_tick_as_its_fence_can_be_cached() -> None:
    far = FarSide()
    here = Instance(far)
    await here.invalidate("a")
    await here.get("a")
    assert (await here.get("a")).tier == "l1"


async def test_trace_19_a_copy_that_only_the_reader_can_refuse_ends_in_one_load_under_a_lease() -> None:
    far = FarSide()
    store = Store(far)
    here = Instance(far)
    await here.value("a")
    store.value = b"1"
    here.fences.raise_floor(far.clock.now_us())
    here.merger.merge([Fence(Target.key("docs", "a").digest, far.clock.now_us(), unapplied=True)])
    assert await here.value("a") == b"1"
    assert far.loader.loads("a") == 2
    assert here.tally.leases_granted == 2


async def test_trace_21_a_fill_whose_lease_is_gone_goes_nowhere() -> None:
    far = FarSide()
    here = Instance(far)
    lease = (await here.get("k", "aside", ReadOptions(lease=True))).lease
    assert lease is not None
    await here.invalidate("k", ns="aside")
    written = await here.put("k", b"late", lease=lease)
    assert (written.stored, written.reason) == (False, "fenced")
    assert (await here.get("k", "aside")).outcome is Outcome.MISS


async def test_an_answer_that_returns_after_a_fence_is_not_given() -> None:
    far = FarSide()
    store = Store(far)
    await Instance(far).value("a")
    here = Instance(far)
    far.l2.hold_gets = asyncio.Event()
    read = asyncio.create_task(here.get("a"))
    await asyncio.sleep(0.01)  # L2 has answered 0; the answer is on its way
    store.value = b"1"
    receipt = await Instance(far).invalidate("a")
    here.merger.merge([Fence(digest, at) for digest, at in receipt.token])
    far.l2.hold_gets.set()
    answer = await read
    assert answer.entry is not None
    assert answer.entry.value == b"1"


async def test_a_fence_between_the_landing_and_the_reader_is_seen_by_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    far = FarSide()
    store = Store(far)
    await Instance(far).value("a")
    here = Instance(far)
    land = Flight.land
    landings: list[str] = []

    def land_and_fence(flight: Flight, landing: Landing) -> None:
        land(flight, landing)
        landings.append(landing.tier)
        if len(landings) == 1:  # the reader has been woken, and has not run yet
            store.value = b"1"
            here.merger.merge([Fence(Target.key("docs", "a").digest, far.clock.now_us() + 1, unapplied=True)])

    monkeypatch.setattr(Flight, "land", land_and_fence)
    assert await here.value("a") == b"1"
    assert landings[0] == "l2"


async def test_a_soft_fence_makes_stale_and_not_gone() -> None:
    far = FarSide()
    store = Store(far)
    here = Instance(far)
    await here.value("a")
    store.value = b"1"
    await here.invalidate("a", soft=True)
    first = await here.get("a")
    assert (first.outcome, first.entry and first.entry.value) == (Outcome.STALE, b"0")
    await asyncio.sleep(0.3)
    assert await here.value("a") == b"1"


async def test_negative_entries_obey_the_fence_of_their_key() -> None:
    far = FarSide()
    here = Instance(far)
    far.loader.script("a", absent(), loaded(b"born"))
    assert (await here.get("a")).outcome is Outcome.ABSENT
    await here.invalidate("a")
    assert await here.value("a") == b"born"


async def test_while_the_feed_is_silent_copies_older_than_max_lag_are_not_answered() -> None:
    far = FarSide()
    store = Store(far)
    here = Instance(far)
    here.fences.watermark = far.clock.now_us()
    await here.value("a")
    await asyncio.sleep(1.5)
    assert (await here.get("a")).tier == "l1"
    store.value = b"1"
    await asyncio.sleep(1.5)  # the bound is 3 s now, above the namespace's 2 s, and the copy is 3 s old
    assert await here.value("a") == b"1"
    await asyncio.sleep(1.5)
    assert (await here.get("a")).tier == "l1", "the tiers go on shielding the origin as a micro-cache"


async def test_after_a_gap_everything_cached_before_is_refused_by_l1_and_l2_and_l3_is_still_good() -> None:
    far = FarSide()
    Store(far)
    here = Instance(far)
    await here.value("a")
    here.fences.raise_floor(far.clock.now_us() + 2 * SKEW_US + 1000)
    await asyncio.sleep(0.5)
    answer = await here.get("a")
    assert (answer.outcome, answer.tier) == (Outcome.HIT, "l3")
    assert far.loader.loads("a") == 1
