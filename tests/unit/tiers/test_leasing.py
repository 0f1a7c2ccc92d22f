"""When an instance asks for its shares, and what it uses while nobody answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cachesvc.tiers.shares.contract import Ask, Grant
from cachesvc.tiers.shares.leasing import Leasing
from cachesvc.tiers.shares.share import FLOOR_SHARE, KEEP_SECONDS, Limit, Share
from tests.doubles.lessors import ScriptedLessor

pytestmark = pytest.mark.looptime


class Stand:
    """An instance with a budget and a rate, at a lessor that answers as the test says."""

    def __init__(self) -> None:
        self.lessor = ScriptedLessor(share=32, floor=2)
        self.budget = Share(
            Limit("namespace", "pages", "loads-at-once"), 64, instances=8, floor_share=FLOOR_SHARE, least=1.0
        )
        self.rate = Share(Limit("namespace", "pages", "reads"), 80, instances=8)
        self.leasing = Leasing(self.lessor, [self.budget, self.rate])
        self.task = asyncio.create_task(self.leasing.run())

    @property
    def in_force(self) -> tuple[float, float]:
        return self.budget.in_force, self.rate.in_force


@asynccontextmanager
async def running() -> AsyncIterator[Stand]:
    made = Stand()
    yield made
    made.task.cancel()
    await made.leasing.stop()


async def test_an_instance_asks_twice_a_second() -> None:
    async with running() as stand:
        assert stand.in_force == (0, 10)
        await asyncio.sleep(10)
        assert stand.in_force == (32, 32)
        assert 18 <= len(stand.lessor.asked) <= 22


async def test_who_wants_more_asks_at_once_and_at_most_ten_times_a_second() -> None:
    async with running() as stand:
        await asyncio.sleep(0.2)
        before = len(stand.lessor.asked)
        for _ in range(100):
            stand.leasing.want()
            await asyncio.sleep(0.01)
        assert 8 <= len(stand.lessor.asked) - before <= 11


async def test_a_server_that_grants_more_than_there_is_grants_all_of_it() -> None:
    async with running() as stand:
        stand.lessor.share = stand.lessor.floor = 1e18
        await asyncio.sleep(1)
        assert stand.in_force == (64, 80)
        stand.lessor.is_away = True
        await asyncio.sleep(2 * KEEP_SECONDS)
        assert stand.in_force == (64, 80)


async def test_a_share_that_shrinks_is_said_at_once() -> None:
    async with running() as stand:
        await asyncio.sleep(0.2)
        stand.lessor.share = 8
        await asyncio.sleep(0.5)
        assert [asks[0].using for asks in stand.lessor.asked[-2:]] == [32, 8]


async def test_an_instance_that_is_cut_off_keeps_its_shares_for_a_term() -> None:
    async with running() as stand:
        await asyncio.sleep(1)
        stand.lessor.is_away = True
        await asyncio.sleep(KEEP_SECONDS - 1)
        assert stand.in_force == (32, 32)
        assert not stand.budget.is_cut_off
        await asyncio.sleep(1)
        assert stand.in_force == (2, 32), "the floor of a budget; a rate is kept"
        assert stand.budget.is_cut_off
        stand.lessor.is_away = False
        await asyncio.sleep(1)
        assert stand.in_force == (32, 32)
        assert not stand.rate.is_cut_off


async def test_a_lessor_that_never_answered_leaves_the_floor_after_a_term() -> None:
    async with running() as stand:
        stand.lessor.is_away = True
        await asyncio.sleep(KEEP_SECONDS - 1)
        assert stand.in_force == (0, 10)
        await asyncio.sleep(2)
        assert stand.in_force == (2, 10)


async def test_an_instance_without_limits_asks_nobody() -> None:
    lessor = ScriptedLessor()
    leasing = Leasing(lessor, [])
    running = asyncio.create_task(leasing.run())
    await asyncio.sleep(60)
    assert not lessor.asked
    assert not leasing.loop.trouble
    leasing.shares = [Share(Limit("namespace", "pages", "reads"), 80, instances=8)]
    leasing.want()
    await asyncio.sleep(1)
    assert lessor.asked
    running.cancel()


def test_a_share_asks_for_a_little_less_after_each_lull() -> None:
    share = Share(Limit("namespace", "pages", "reads"), 80, instances=8, outlast_us=3)
    share.demand_now = lambda: 10.0
    assert share.ask(10) == Ask("reads of namespace pages", 80, 10_000_003, 0.0, 0.0, 10, 10)
    share.demand_now = lambda: 0.0
    assert share.ask(10).demand == pytest.approx(7)
    assert share.grant(Grant(5, 0))
    assert not share.grant(Grant(6, 0))
