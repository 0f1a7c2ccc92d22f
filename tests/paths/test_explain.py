"""A read does what `:explain` said it would do, and explaining changes nothing."""

import asyncio

import pytest

from cachesvc.config.topology import Former, Topology
from cachesvc.explain.answer import Copy, Explanation, Question, Seen
from cachesvc.model.change import Target
from cachesvc.model.entry import Key
from cachesvc.model.errors import OriginError
from cachesvc.model.fence import Fence
from cachesvc.model.requests import Outcome, ReadOptions
from cachesvc.model.use import UNKEPT
from tests.doubles.loaders import loaded
from tests.paths.world import SKEW_US, TOPOLOGY, FarSide, Instance

pytestmark = pytest.mark.looptime

SECOND = 1_000_000


async def explained(
    here: Instance, text: str = "a", ns: str = "docs", options: ReadOptions | None = None
) -> Explanation:
    question = Question(options) if options else Question()
    return await here.explainer.explain(Key.of(ns, text), question)


def would(found: Explanation) -> str:
    assert found.now is not None
    return found.now.a_read_would


def standings(found: Explanation) -> dict[str, str]:
    return {tier: copy.standing for tier, copy in found.tiers.items()}


async def test_a_fresh_copy_in_l1_is_answered() -> None:
    here = Instance()
    await here.get("a")
    await asyncio.sleep(5)
    found = await explained(here)
    assert would(found) == "answer from l1"
    assert standings(found) == dict.fromkeys(("l1", "l2", "l3"), "fresh")
    assert found.tiers["l1"].age_seconds == 5
    assert found.verdict.startswith(
        "A read at here/i0 would answer from l1: fresh and later than every fence on it: answered."
    )
    assert (await here.get("a")).tier == "l1"


@pytest.mark.parametrize(("empty", "tier"), [((), "l2"), (("l2",), "l3")])
async def test_farther_tiers_are_asked_in_their_turn(empty: tuple[str, ...], tier: str) -> None:
    far = FarSide()
    await Instance(far).get("a")
    await asyncio.sleep(0.1)
    here = Instance(far)
    if "l2" in empty:
        await far.pool.delete_many([Key.of("docs", "a")])
    assert would(await explained(here)) == f"answer from {tier}"
    assert (await here.get("a")).tier == tier


async def test_past_its_freshness_it_is_answered_stale() -> None:
    here = Instance()
    await here.get("a")
    await asyncio.sleep(301)
    found = await explained(here)
    assert would(found) == "answer stale from l1"
    assert found.now is not None
    assert found.now.section == "A read"
    assert (await here.get("a")).outcome is Outcome.STALE


async def test_past_stale_while_revalidate_it_is_kept_for_a_failing_origin() -> None:
    here = Instance()
    await here.get("a")
    await asyncio.sleep(361)
    found = await explained(here)
    assert would(found) == "load from the origin"
    assert found.now is not None
    assert found.now.but == "if the origin fails, it would answer stale from l3"
    here.far.loader.script("a", OriginError("down"))
    failed = await here.get("a")
    assert (failed.outcome, failed.tier) == (Outcome.STALE, "l3")
    assert (await here.get("a")).outcome is Outcome.LOADED


async def test_a_fence_from_a_feed_refuses_and_it_is_told_when_it_came() -> None:
    here = Instance()
    await here.get("a")
    await asyncio.sleep(5)
    at = here.clock.now_us() + SKEW_US
    here.merger.merge([Fence(Key.of("docs", "a").digest, at, unapplied=True)], region="us")
    found = await explained(here)
    assert standings(found) == dict.fromkeys(("l1", "l2", "l3"), "refused")
    assert found.tiers["l1"].refused_by == ("a fence on the key",)
    assert found.tiers["l3"].refused_by == (
        "a fence that the home has not applied (perhaps another server of its name), or lost ones",
    )
    assert would(found) == "load from the origin"
    assert found.fences is not None
    assert [(merge.target, merge.kind, merge.at, merge.came) for merge in found.fences.merges] == [
        ("key", "hard", at, "us")
    ]
    assert found.fences.targets[0].unapplied == at
    assert (await here.get("a")).outcome is Outcome.LOADED


async def test_a_soft_fence_on_a_tag_makes_it_stale_everywhere() -> None:
    here = Instance()
    here.far.loader.script("a", loaded(b"1", tags=("t",)))
    await here.get("a")
    await here.invalidate(tags=["t"], soft=True)
    found = await explained(here)
    assert standings(found) == dict.fromkeys(("l1", "l2", "l3"), "stale")
    assert found.fences is not None
    tag = next(fences for fences in found.fences.targets if fences.target == "tag t")
    assert tag.soft_at_home == tag.soft_here
    assert (await here.get("a")).outcome is Outcome.STALE


async def test_a_fence_that_only_its_home_knows_is_why_a_copy_is_old() -> None:
    """The feed of this instance is late: it answers what its home has fenced."""
    far = FarSide()
    here = Instance(far)
    far.loader.script("a", loaded(b"1", tags=("t",)))
    await here.get("a")
    await asyncio.sleep(5)
    await far.cell.fence_many([Target.tag("docs", "t")], soft=False)
    found = await explained(here)
    assert would(found) == "answer from l1"
    assert standings(found)["l3"] == "refused"
    assert found.oldest is not None
    assert found.oldest.why.startswith("its home knows a later fence that here/i0 has not merged yet")


async def test_a_lease_whose_fill_will_not_come_is_not_waited_for() -> None:
    far = FarSide()
    here, there = Instance(far), Instance(far, name="i1")
    far.loader.default = loaded(b"large", use=UNKEPT)
    await here.get("a")
    far.loader.hold()
    loading = asyncio.create_task(there.get("a"))
    await far.loader.called(2)
    found = await explained(here)
    assert would(found) == "load from the origin without a lease"
    reading = asyncio.create_task(here.get("a"))
    await asyncio.wait_for(far.loader.called(3), 0.01)
    far.loader.release()
    assert (await reading).outcome is Outcome.LOADED
    await loading


async def test_a_lease_held_elsewhere_is_waited_for() -> None:
    far = FarSide()
    here, there = Instance(far), Instance(far, name="i1")
    far.loader.hold()
    loading = asyncio.create_task(there.get("a"))
    await far.loader.called()
    found = await explained(here)
    assert would(found) == "wait for another's load"
    assert found.home is not None
    assert found.home.lease is not None
    assert found.home.lease.since < found.home.lease.until <= here.clock.now_us() + 5 * SECOND
    far.loader.release()
    await loading


async def test_with_its_home_out_of_reach_it_loads_without_a_lease() -> None:
    here = Instance()
    here.far.cell.down = True
    found = await explained(here)
    assert found.tiers["l3"] == Copy(held=None, unavailable="c1: down")
    assert would(found) == "load from the origin without a lease"


async def test_a_home_that_another_instance_reaches_is_told_by_it() -> None:
    far = FarSide()
    here, there = Instance(far), Instance(far, name="i1")
    here.peers.answers = [await there.explainer.see(Key.of("docs", "a"), Question())]
    far.cell.down = True
    found = await explained(here)
    assert found.home is not None
    assert (found.home.unavailable, found.home.told_by) == ("", "here/i1")


async def test_a_floor_refuses_and_says_why_it_was_raised() -> None:
    here = Instance()
    await here.get("a")
    await asyncio.sleep(5)
    here.fences.raise_floor(here.clock.now_us(), lost=True)
    found = await explained(here)
    assert found.tiers["l1"].refused_by == ("the floor",)
    assert found.fences is not None
    assert found.fences.floor_why == "fences were lost before they were read"
    assert would(found) == "load from the origin"
    beyond = "a fence that the home has not applied (perhaps another server of its name), or lost ones"
    assert f"(l1: the floor; l2: the floor; l3: {beyond})" in found.verdict


async def test_a_staleness_bound_above_max_lag_refuses_what_is_older() -> None:
    here = Instance()
    await here.get("a")
    await asyncio.sleep(5)
    here.fences.watermark = here.clock.now_us() - 4 * SECOND
    found = await explained(here)
    assert found.tiers["l2"].refused_by == ("the staleness bound, 4.0 s, above max_lag, 2 s",)
    assert (await here.get("a")).outcome is Outcome.LOADED


async def test_a_token_of_the_request_is_honoured_and_not_merged() -> None:
    here = Instance()
    await here.get("a")
    token = ((Key.of("docs", "a").digest, here.clock.now_us() + SECOND),)
    found = await explained(here, options=ReadOptions(token=token))
    assert standings(found) == dict.fromkeys(("l1", "l2", "l3"), "refused")
    assert would(found) == "load from the origin"
    assert would(await explained(here)) == "answer from l1"


async def test_what_the_read_asks_for_beyond_the_rule_passes_copies() -> None:
    here = Instance()
    await here.get("a")
    await asyncio.sleep(5)
    found = await explained(here, options=ReadOptions(max_age_us=SECOND))
    assert not found.tiers["l1"].suits
    assert would(found) == "load from the origin"


async def test_look_aside_is_a_miss_for_the_caller_to_fill() -> None:
    found = await explained(Instance(), ns="aside")
    assert would(found) == "miss"
    assert found.tiers["l1"] == Copy(held=False)


async def test_a_breaker_that_is_open_and_overload_are_said() -> None:
    far = FarSide()
    await Instance(far).get("a")
    here = Instance(far)
    here.pool.breaker, here.is_overloaded = "open", True
    found = await explained(here)
    assert would(found) == "answer from l3"
    assert found.now is not None
    assert "503" in found.now.but


async def test_where_it_lives_and_where_it_was() -> None:
    moving = Topology(
        version=2,
        regions=TOPOLOGY.regions,
        cells=TOPOLOGY.cells,
        namespaces=TOPOLOGY.namespaces,
        pins={"elsewhere": "c2"},
        former=Former(cells={"c1": 1.0}),
    )
    found = await explained(Instance(topology=moving), "{elsewhere}:a")
    assert found.home_cell is not None
    assert (found.partition, found.home_cell.name, found.home_cell.why) == ("elsewhere", "c2", "pinned")
    assert (found.home_cell.former, list(found.home_cell.scores)) == ("c1", ["c1"])
    assert found.memcached_server == "m1"


async def test_an_older_version_elsewhere_is_marked_and_named() -> None:
    far = FarSide()
    here, there = Instance(far), Instance(far, name="i1")
    here.peers.explainers = [there.explainer]
    here.peers.answers = [Seen("us", "i9", unavailable="no answer within 50 ms")]
    await there.put("a", b"old")
    assert await there.value("a", "aside") == b"old"
    await asyncio.sleep(5)
    await here.put("a", b"new")
    found = await explained(here, ns="aside")
    assert found.elsewhere[0].tiers["l1"].differs == "newer at l1 of here/i0"
    assert found.oldest is not None
    assert found.oldest.where == "l1 of here/i1"
    assert "has not merged yet" in found.oldest.why
    assert found.verdict.endswith("No answer from us/i9 (no answer within 50 ms).")


async def test_explaining_changes_nothing() -> None:
    far = FarSide()
    here = Instance(far)
    for text in "abc":
        await here.get(text)
    await asyncio.sleep(1)

    def state() -> object:
        order = [[key_id for key_id, _ in shard] for shard in here.l1.copies()]
        return (
            order,
            repr(here.tally),
            far.l2.gets.copy(),
            far.cell.calls.copy(),
            here.fences.statistics(),
            repr(far.cell.cell),
        )

    before, pool = state(), list(far.pool._entries)
    for text in "abd":
        await explained(here, text)
    assert state() == before
    assert list(far.pool._entries) == pool, "nor is a copy in the pool used the later for it"
