"""The turns of an origin budget: as many as the shares allow, and in order."""

import asyncio

import pytest

from cachesvc.config.limits import OriginBudget
from cachesvc.model.errors import OriginError
from cachesvc.model.problems import ProblemKind
from cachesvc.tiers.origin.budget import Turns
from cachesvc.tiers.shares.contract import Grant

pytestmark = pytest.mark.looptime


def turns_of(concurrency: int = 0, per_second: float = 0, burst: float = 0) -> Turns:
    """The turns of an instance that has the whole budget."""
    turns = Turns(
        "pages", OriginBudget(concurrency, per_second, burst), instances=1, longest_load_us=1_000_000
    )
    for share in turns.shares:
        share.grant(Grant(share.amount, 0))
    return turns


async def test_no_more_loads_run_at_once_than_the_share() -> None:
    turns = turns_of(concurrency=2)
    await turns.take(0)
    await turns.take(0)
    with pytest.raises(OriginError) as refused:
        await turns.take(0)
    assert refused.value.kind is ProblemKind.ORIGIN_BUDGET
    assert refused.value.retry_after == 1
    turns.give_back()
    await turns.take(0)
    assert (turns.running, turns.refused) == (2, 1)


async def test_a_load_waits_for_its_turn_as_long_as_its_patience() -> None:
    turns = turns_of(concurrency=1)
    await turns.take(0)
    waiting = asyncio.create_task(turns.take(5))
    await asyncio.sleep(3)
    turns.give_back()
    await waiting
    late = asyncio.create_task(turns.take(5))
    await asyncio.sleep(6)
    with pytest.raises(OriginError):
        await late
    assert (turns.running, turns.waiting) == (1, 0)


async def test_a_share_that_grows_lets_in_who_waits_in_order() -> None:
    turns = turns_of(concurrency=8)
    (share,) = turns.shares
    share.grant(Grant(0, 0))
    order: list[int] = []

    async def load(number: int) -> None:
        await turns.take(10)
        order.append(number)

    tasks = [asyncio.create_task(load(number)) for number in range(4)]
    await asyncio.sleep(0.1)
    share.grant(Grant(2, 0))
    await asyncio.sleep(0.1)
    assert order == [0, 1]
    share.grant(Grant(4, 0))
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3]


async def test_a_cancelled_load_has_no_turn_whenever_it_was_cancelled() -> None:
    turns = turns_of(concurrency=1)
    await turns.take(0)
    waiting = [asyncio.create_task(turns.take(10)) for _ in range(3)]
    await asyncio.sleep(0.1)
    waiting[0].cancel()
    turns.give_back()  # the first one's turn, in the tick of its cancellation
    waiting[1].cancel()
    await waiting[2]
    assert (turns.running, turns.waiting) == (1, 0)


async def test_loads_begin_at_the_rate_and_in_bursts() -> None:
    turns = turns_of(per_second=10, burst=5)
    began: list[float] = []
    loop = asyncio.get_running_loop()
    start = loop.time()

    async def load() -> None:
        await turns.take(60)
        began.append(loop.time() - start)
        turns.give_back()

    await asyncio.gather(*(load() for _ in range(25)))
    assert sum(at < 0.01 for at in began) == 5
    assert 1.99 <= max(began) <= 2.1


async def test_under_a_flood_loads_still_begin_at_the_rate() -> None:
    """Many come in the moment in which a turn is due: none of them may keep it from being given."""
    turns = turns_of(per_second=40, burst=1)
    begun = 0

    async def load() -> None:
        nonlocal begun
        try:
            await turns.take(0.5)
        except OriginError:
            return
        begun += 1
        turns.give_back()

    async with asyncio.TaskGroup() as flood:
        for _ in range(5000):
            flood.create_task(load())
            await asyncio.sleep(0.0004)
    assert begun >= 80


async def test_a_refusal_says_when_the_next_load_may_begin() -> None:
    turns = turns_of(per_second=0.1, burst=1)
    await turns.take(0)
    with pytest.raises(OriginError) as refused:
        await turns.take(0)
    assert refused.value.retry_after == 10


async def test_a_part_of_a_load_per_second_is_a_load_now_and_then() -> None:
    turns = turns_of(per_second=8, burst=8)
    (share,) = turns.shares
    share.grant(Grant(0.5, 0))
    loop = asyncio.get_running_loop()
    start = loop.time()
    for _ in range(4):
        await turns.take(60)
    assert loop.time() - start >= 6


async def test_the_lessor_is_told_of_those_who_wait_and_of_those_refused() -> None:
    turns = turns_of(concurrency=2, per_second=100)
    at_once, per_second = turns.shares
    for share in turns.shares:
        share.ask(10)
    waiting = [asyncio.create_task(turns.take(1)) for _ in range(6)]
    await asyncio.sleep(0.5)
    asked = at_once.ask(10)
    assert (asked.using, asked.demand) == (2, 6)
    assert per_second.ask(10).demand == pytest.approx(12)
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_budget_changes_while_loads_wait_for_it() -> None:
    turns = turns_of(concurrency=1)
    await turns.take(0)
    waiting = asyncio.create_task(turns.take(10))
    await asyncio.sleep(1)
    assert not waiting.done()
    turns.change(OriginBudget(concurrency=2))
    await waiting
    assert turns.running == 2
    turns.change(OriginBudget(loads_per_second=5))
    assert [share.amount for share in turns.shares] == [2], "another kind of limit is taken at the next start"
