"""Loads beyond the origin budget: a stale answer, else 503; leases of callers count."""

import asyncio

import pytest

from cachesvc.config.limits import OriginBudget
from cachesvc.explain.answer import Question
from cachesvc.model.entry import Key
from cachesvc.model.problems import ProblemKind
from cachesvc.model.requests import Answer, Draft, Outcome, ReadOptions, Release
from cachesvc.tiers.origin.budget import Turns
from cachesvc.tiers.shares.contract import Grant
from tests.paths.world import Instance

pytestmark = pytest.mark.looptime

LEASE = ReadOptions(lease=True)


def instance(concurrency: int) -> tuple[Instance, Turns]:
    """An instance that has the whole budget of `docs` and `aside`: so many loads at once each."""
    turns = {
        name: Turns(name, OriginBudget(concurrency), instances=1, longest_load_us=3_000_000)
        for name in ("docs", "aside")
    }
    for one in turns.values():
        for share in one.shares:
            share.grant(Grant(share.amount, 0))
    return Instance(turns=turns), turns["docs"]


def kind_of(answer: Answer) -> ProblemKind | None:
    return answer.error.kind if answer.error is not None else None


async def test_loads_beyond_the_budget_wait_and_are_then_refused() -> None:
    here, turns = instance(2)
    here.far.loader.hold()
    running = [asyncio.create_task(here.get(key)) for key in "ab"]
    await here.far.loader.called(2)
    refused = await here.get("c")
    assert kind_of(refused) is ProblemKind.ORIGIN_BUDGET
    assert refused.error is not None
    assert refused.error.retry_after_seconds == 1
    assert here.far.loader.loads("c") == 0
    waiting = asyncio.create_task(here.get("d"))
    await asyncio.sleep(0.2)
    here.far.loader.release()
    assert [(await task).outcome for task in (*running, waiting)] == [Outcome.LOADED] * 3
    assert (turns.running, here.tally.loads_over_budget) == (0, 1)
    assert here.tally.loads == here.tally.loads_ok + here.tally.loads_over_budget


async def test_an_explanation_says_that_the_budget_is_used_up() -> None:
    here, _ = instance(1)
    key = Key.of("docs", "b")
    before = (await here.explainer.explain(key, Question())).now
    here.far.loader.hold()
    running = asyncio.create_task(here.get("a"))
    await here.far.loader.called()
    now = (await here.explainer.explain(key, Question())).now
    assert before is not None
    assert not before.but
    assert now is not None
    assert now.a_read_would == "load from the origin"
    assert "origin budget is used up" in now.but
    here.far.loader.release()
    await running


async def test_a_refused_load_gives_its_lease_back() -> None:
    here, _ = instance(1)
    here.far.loader.hold()
    running = asyncio.create_task(here.get("a"))
    await here.far.loader.called()
    assert kind_of(await here.get("b")) is ProblemKind.ORIGIN_BUDGET
    other = Instance(here.far)
    here.far.loader.release()
    await running
    assert (await other.get("b")).outcome is Outcome.LOADED


async def test_a_copy_that_may_stand_in_is_answered_at_once() -> None:
    here, turns = instance(1)
    await here.get("old")
    contract = here.topology.namespaces["docs"]
    await asyncio.sleep((contract.ttl + contract.stale_while_revalidate) / 1e6 + 1)
    here.far.loader.hold()
    running = asyncio.create_task(here.get("a"))
    await here.far.loader.called(2)
    began = asyncio.get_running_loop().time()
    answer = await here.get("old")
    assert answer.outcome is Outcome.STALE
    assert asyncio.get_running_loop().time() - began < 0.01
    assert turns.refused == 1
    here.far.loader.release()
    await running


async def test_a_refresh_behind_a_stale_answer_leaves_the_turns_to_others() -> None:
    here, turns = instance(1)
    await here.get("old")
    await asyncio.sleep(here.topology.namespaces["docs"].ttl / 1e6 + 1)
    here.far.loader.hold()
    running = asyncio.create_task(here.get("a"))
    await here.far.loader.called(2)
    assert (await here.get("old")).outcome is Outcome.STALE
    await asyncio.sleep(0.1)
    assert (turns.waiting, turns.refused) == (0, 1)
    flights = here.tally.flights
    assert (await here.get("old")).outcome is Outcome.STALE
    assert here.tally.flights == flights, "no flight that would be refused"
    here.far.loader.release()
    await running
    assert (await here.get("old")).outcome is Outcome.STALE
    await asyncio.sleep(0.1)
    assert (await here.get("old")).outcome is Outcome.HIT


async def test_a_lease_of_a_caller_is_a_load_until_its_fill() -> None:
    here, _ = instance(1)
    first = await here.get("a", "aside", LEASE)
    assert first.lease
    assert kind_of(await here.get("b", "aside", LEASE)) is ProblemKind.ORIGIN_BUDGET
    await here.put("a", b"loaded", lease=first.lease)
    assert (await here.get("b", "aside", LEASE)).lease
    assert here.tally.leases_over_budget == 1


async def test_a_lease_that_is_given_back_ends_its_load() -> None:
    here, _ = instance(1)
    first = await here.get("a", "aside", LEASE)
    key = Key.of("aside", "a")
    await here.writer.put(key, Draft(b"", lease=first.lease, release=Release.FAILED))
    assert (await here.get("b", "aside", LEASE)).lease


async def test_a_lease_that_does_not_reach_its_caller_ends_its_load() -> None:
    here, _ = instance(1)
    first = await here.get("a", "aside", LEASE)
    here.reader.give_back(Key.of("aside", "a"), first)
    assert (await here.get("b", "aside", LEASE)).lease


async def test_a_lease_that_nobody_gives_back_ends_its_load_at_its_own_end() -> None:
    here, _ = instance(1)
    assert (await here.get("a", "aside", LEASE)).lease
    await asyncio.sleep(here.topology.namespaces["aside"].lease / 1e6 - 1)
    assert kind_of(await here.get("b", "aside", LEASE)) is ProblemKind.ORIGIN_BUDGET
    await asyncio.sleep(1)
    assert (await here.get("b", "aside", LEASE)).lease


async def test_keys_of_a_batch_that_get_no_lease_do_not_take_it_from_the_others() -> None:
    here, _ = instance(2)
    keys = [Key.of("aside", key) for key in "abcd"]
    answers = await here.reader.get_many(keys, LEASE)
    assert sum(bool(answer.lease) for answer in answers) == 2
    assert sum(kind_of(answer) is ProblemKind.ORIGIN_BUDGET for answer in answers) == 2


async def test_a_stale_copy_is_answered_to_a_caller_that_may_not_load() -> None:
    here, _ = instance(1)
    await here.put("old", b"old")
    await asyncio.sleep(here.topology.namespaces["aside"].ttl / 1e6 + 1)
    assert (await here.get("a", "aside", LEASE)).lease
    answer = await here.get("old", "aside", LEASE)
    assert (answer.outcome, answer.lease) == (Outcome.STALE, None)
