"""One fence over every tier, on the fake clock.

These tests prove what docs/coherence.md promises beside its traces, which have files of their own.
"""

import asyncio

import pytest

from cachesvc.model.change import Target
from cachesvc.model.entry import Key
from cachesvc.model.fence import Fence
from cachesvc.model.requests import Outcome, ReadOptions
from cachesvc.paths.flight import Flight, FoundCopy, Landing
from tests.doubles.loaders import absent, loaded
from tests.paths.truth import Store, tell
from tests.paths.world import SKEW_US, FarSide, Instance

pytestmark = pytest.mark.looptime


async def test_after_an_invalidation_nothing_loaded_before_it_is_answered_from_any_tier() -> None:
    far = FarSide()
    store = Store(far)
    here, there = Instance(far), Instance(far)
    assert await here.value("a") == await there.value("a") == b"0"
    store.commit()
    receipt = await here.invalidate("a")
    assert receipt.applied
    assert await here.value("a") == b"1"
    tell(there, receipt)
    assert await there.value("a") == b"1"
    assert (await there.get("a")).tier == "l1"
    assert (await here.get("a")).tier == "l1", "a load after a fence can be cached at once"


@pytest.mark.parametrize("what", ["tag", "namespace"])
async def test_tags_and_namespaces_reach_every_copy(what: str) -> None:
    far = FarSide()
    store = Store(far, tags=("t",))
    here = Instance(far)
    assert await here.value("a") == b"0"
    store.commit()
    await (here.invalidate(tags=["t"]) if what == "tag" else here.invalidate(whole=True))
    assert await here.value("a") == b"1"
    await asyncio.sleep(1)
    assert await here.value("a") == b"1"
    assert (await here.get("a")).tier == "l1"


@pytest.mark.parametrize("what", ["tag", "namespace"])
async def test_a_token_of_a_wide_invalidation_is_honoured_too(what: str) -> None:
    far = FarSide()
    store = Store(far, tags=("t",))
    here, behind = Instance(far), Instance(far)
    assert await behind.value("a") == b"0"
    store.commit()
    receipt = await (here.invalidate(tags=["t"]) if what == "tag" else here.invalidate(whole=True))
    answer = await behind.get("a", options=ReadOptions(token=receipt.token))
    assert answer.entry is not None
    assert answer.entry.value == b"1"


async def test_an_answer_that_returns_after_a_fence_is_not_given() -> None:
    far = FarSide()
    store = Store(far)
    await Instance(far).value("a")
    here = Instance(far)
    far.l2.hold_gets = asyncio.Event()
    read = asyncio.create_task(here.get("a"))
    await asyncio.sleep(0.01)  # L2 has answered 0; the answer is on its way
    store.commit()
    receipt = await Instance(far).invalidate("a")
    tell(here, receipt)
    far.l2.hold_gets.set()
    answer = await read
    assert answer.entry is not None
    assert answer.entry.value == b"1"


async def test_a_fence_between_the_landing_and_the_reader_is_seen_by_the_reader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    far = FarSide()
    store = Store(far)
    await Instance(far).value("a")
    here = Instance(far)
    land = Flight.land
    landings: list[str] = []

    def land_and_fence(flight: Flight, landing: Landing) -> None:
        land(flight, landing)
        landings.append(landing.tier if isinstance(landing, FoundCopy) else "")
        if len(landings) == 1:  # the reader has been woken, and has not run yet
            store.commit()
            here.merger.merge([Fence(Target.key("docs", "a").digest, far.clock.now_us() + 1, unapplied=True)])

    monkeypatch.setattr(Flight, "land", land_and_fence)
    assert await here.value("a") == b"1"
    assert landings[0] == "l2"


async def test_a_soft_fence_makes_stale_and_not_gone() -> None:
    far = FarSide()
    store = Store(far)
    here = Instance(far)
    await here.value("a")
    store.commit()
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
    store.commit()
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


@pytest.mark.parametrize("what", ["key", "tag", "namespace"])
@pytest.mark.parametrize("joins", [False, True])
async def test_a_copy_from_l3_is_not_answered_after_a_fence_that_came_while_it_was_read(
    what: str, joins: bool
) -> None:
    """The home judged it before it applied the fence. A reader that joins after the merge must not get it (G1)."""
    far = FarSide()
    store = Store(far, tags=("t",))
    await Instance(far).value("a")
    await asyncio.sleep(1)
    await far.pool.delete_many([Key.of("docs", "a")])
    here, there = Instance(far), Instance(far)
    far.cell.hold["read_many"] = asyncio.Event()
    read = asyncio.create_task(here.value("a"))
    await asyncio.sleep(0.01)  # the home has answered 0; the answer is on its way
    store.commit()
    keys = ["a"] if what == "key" else []
    tags = ["t"] if what == "tag" else []
    receipt = await there.invalidate(*keys, tags=tags, whole=what == "namespace")
    namespace = "docs" if what == "namespace" else ""
    here.merger.merge([Fence(digest, at, namespace=namespace) for digest, at in receipt.token])
    if joins:
        read = asyncio.create_task(here.value("a"))
        await asyncio.sleep(0.01)
    far.cell.hold["read_many"].set()
    assert await read == b"1"
    assert here.tally.joined == (joins and what != "key"), "the fence of a key forgets its flight"


async def test_a_copy_from_l3_that_is_later_than_the_fence_that_came_while_it_was_read_is_answered() -> None:
    """The home had applied the fence long ago, and only its announcement was late: the value is not loaded again."""
    far = FarSide()
    store = Store(far, tags=("t",))
    here, there = Instance(far), Instance(far)
    store.commit()
    receipt = await there.invalidate(tags=["t"])
    await asyncio.sleep(1)
    await there.value("a")
    await asyncio.sleep(0.1)
    await far.pool.delete_many([Key.of("docs", "a")])
    far.cell.hold["read_many"] = asyncio.Event()
    read = asyncio.create_task(here.get("a"))
    await asyncio.sleep(0.01)
    tell(here, receipt)
    far.cell.hold["read_many"].set()
    assert (await read).tier == "l3"
    assert far.loader.loads("a") == 1


async def stale_at_home_behind_a_floor(far: FarSide, *, stale_for_us: int = 60_000_000) -> Instance:
    far.loader.script(
        "a", loaded(b"old", ttl_us=1_000_000, stale_for_us=stale_for_us, error_for_us=60_000_000)
    )
    await Instance(far).value("a")
    await asyncio.sleep(5)
    here = Instance(far)
    here.fences.raise_floor(far.clock.now_us())
    return here


async def test_after_a_gap_a_stale_copy_in_l3_is_still_good_too() -> None:
    far = FarSide()
    here = await stale_at_home_behind_a_floor(far)
    answer = await here.get("a")
    assert (answer.outcome, answer.tier) == (Outcome.STALE, "l3")
    await asyncio.sleep(1)
    assert far.loader.loads("a") == 2, "and it is refreshed"
    assert here.tally.flights == 1


async def test_a_stale_copy_in_l3_is_not_answered_after_a_fence_that_came_while_it_was_read() -> None:
    far = FarSide()
    here = await stale_at_home_behind_a_floor(far)
    far.cell.hold["read_many"] = asyncio.Event()
    read = asyncio.create_task(here.value("a"))
    await asyncio.sleep(0.01)  # the home has answered; the answer is on its way
    receipt = await Instance(far).invalidate("a")
    tell(here, receipt)
    far.cell.hold["read_many"].set()
    assert await read == b"value of a"
    assert here.tally.flights == 1, "the flight sees it before its reader does"


async def test_a_copy_of_l3_is_no_last_resort_once_a_fence_has_come() -> None:
    far = FarSide()
    here = await stale_at_home_behind_a_floor(far, stale_for_us=0)
    far.loader.hold()
    read = asyncio.create_task(here.get("a"))
    await asyncio.sleep(0.01)
    tell(here, await Instance(far).invalidate("a"))
    await asyncio.sleep(2)  # past the origin's soft deadline
    far.loader.release()
    assert (await read).outcome is Outcome.LOADED
    assert here.tally.stale_on_error == 0
