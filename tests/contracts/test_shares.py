"""Shares of a region's limits, from real servers: their sum is never above the limit."""

import asyncio
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from redis.asyncio import Redis

from cachesvc.model.errors import TierError
from tests.contracts.conftest import server_of
from tests.doubles.lessors import LIMIT, Member
from tests.doubles.servers import RealServer

KEEP_SECONDS = 0.6
"""The term of the shares whose end a test waits for."""


server = server_of("redis", "valkey", "guarded")


class Region:
    """The instances of a region, on one server that is empty at first."""

    def __init__(self, server: RealServer, stack: AsyncExitStack) -> None:
        self.server = server
        self.admin = Redis.from_url(server.redis_url)
        self.members: list[Member] = []
        self._stack = stack

    def join(self, *, amount: float = 64, keep_seconds: float = 10.0, instances: int = 8) -> Member:
        url, access = self.server.entrance("queue")
        member = Member(
            url,
            f"i{len(self.members)}",
            amount=amount,
            keep_seconds=keep_seconds,
            instances=instances,
            access=access,
        )
        self._stack.push_async_callback(member.leasing.stop)
        self.members.append(member)
        return member

    async def settle(self) -> list[float]:
        """The shares after everybody has asked a few times."""
        for _ in range(4):
            for member in self.members:
                await member.renew()
        return [member.share.in_force for member in self.members]

    @property
    def in_force(self) -> float:
        return sum(max(member.share.in_force, member.running) for member in self.members)


@pytest.fixture
async def region(server: RealServer) -> AsyncIterator[Region]:
    async with AsyncExitStack() as stack:
        made = Region(server, stack)
        await made.admin.flushall()
        yield made
        await made.admin.aclose()


async def test_the_only_instance_has_the_whole_limit(region: Region) -> None:
    assert await region.join().renew() == 64


async def test_a_limit_goes_to_those_who_have_use_for_it(region: Region) -> None:
    busy, *idle = [region.join() for _ in range(8)]
    busy.wants = 100
    shares = await region.settle()
    assert shares[0] >= 56
    assert all(share >= 1 for share in shares[1:])
    assert sum(shares) <= 64
    idle[0].wants = 100
    shares = await region.settle()
    assert abs(shares[0] - shares[1]) <= 2
    assert sum(shares) <= 64


async def test_eight_instances_with_skewed_demand_stay_within_the_budget(region: Region) -> None:
    rng = random.Random(12)
    members = [region.join() for _ in range(8)]
    contested = 0
    for _ in range(60):
        for i, member in enumerate(members):
            member.wants = rng.random() ** 4 * 200 / (i + 1)
        contested += sum(member.wants for member in members) > 64
        for member in rng.sample(members, 5):
            await member.renew()
            # Loads that run cannot be taken back, however small the share becomes.
            member.running = max(min(member.wants, member.share.in_force), member.running * 0.8)
            assert region.in_force <= 64.001
    assert contested > 30


async def test_what_shrinks_is_free_only_once_its_instance_has_said_so(region: Region) -> None:
    first, second = region.join(), region.join()
    first.wants = second.wants = 100
    assert await first.renew() == 64
    assert await second.renew() == 0
    assert await first.renew() == 32
    assert await second.renew() == 0
    await first.renew()
    assert await second.renew() == 32


async def test_loads_that_run_are_not_given_to_others(region: Region) -> None:
    first, second = region.join(), region.join()
    first.wants = second.wants = 100
    await first.renew()
    first.running = 60
    await second.renew()
    await first.renew()
    for _ in range(3):
        assert await first.renew() == 32
        assert await second.renew() == 4
    first.running = 20
    await first.renew()
    assert await second.renew() == 32


async def test_the_share_of_an_instance_that_fell_silent_is_free_after_its_term(region: Region) -> None:
    silent, other = region.join(keep_seconds=KEEP_SECONDS), region.join(keep_seconds=KEEP_SECONDS)
    silent.wants = 100
    await other.lessor.lease([], heard="", age_us=0)  # connects, which may take as long as the term
    await silent.renew()
    other.wants = 100
    assert await other.renew() == 0
    assert silent.share.in_force == 64
    await asyncio.sleep(KEEP_SECONDS * 1.2)
    assert silent.share.is_cut_off
    assert silent.share.in_force == 2, "its part of a quarter"
    assert await other.renew() == 62
    assert region.in_force == 64


async def test_an_instance_that_leaves_gives_its_share_back_at_once(region: Region) -> None:
    first, second = region.join(), region.join()
    first.wants = second.wants = 100
    await first.renew()
    await first.leasing.stop()
    assert await second.renew() == 64


async def test_a_server_without_its_state_grants_no_more_than_is_used(region: Region) -> None:
    first, second = (region.join(keep_seconds=KEEP_SECONDS) for _ in range(2))
    first.wants = 100
    await region.settle()
    held = [first.share.in_force, second.share.in_force]
    await region.admin.flushall()
    second.wants = 1000
    assert await second.renew() <= held[1]
    assert region.in_force <= 64.001
    await asyncio.sleep(KEEP_SECONDS * 1.2)
    await first.renew()
    assert region.in_force <= 64.001
    shares = await region.settle()
    assert shares[1] > held[1]
    assert sum(shares) <= 64


async def test_a_server_that_is_full_still_hands_out_shares(region: Region) -> None:
    member = region.join()
    await region.admin.config_set("maxmemory", "1")
    try:
        assert await member.renew() == 64
    finally:
        await region.admin.config_set("maxmemory", "0")


async def test_a_clock_that_was_set_back_keeps_no_share_for_hours(region: Region) -> None:
    region.join()
    hour_us = 3_600_000_000
    time = await region.admin.time()
    ahead = time[0] * 1_000_000 + hour_us
    record = f"{ahead} {ahead + 600_000_000} 64.0 2.0 100.0"
    other = region.join(keep_seconds=KEEP_SECONDS)
    await region.admin.hset(f"shares:of:{LIMIT}", "i9", record)
    other.wants = 100
    assert await other.renew() == 0
    await asyncio.sleep(KEEP_SECONDS * 1.2)
    assert await other.renew() == 62


async def test_a_queue_that_is_away_leaves_the_shares_as_they_are(region: Region) -> None:
    member = region.join(keep_seconds=KEEP_SECONDS)
    await member.renew()
    await asyncio.to_thread(region.server.kill)
    try:
        with pytest.raises(TierError):
            await member.renew()
        assert member.share.in_force == 64
        await asyncio.sleep(KEEP_SECONDS * 1.2)
        assert member.share.in_force == 2
    finally:
        await asyncio.to_thread(region.server.restart)


async def test_others_get_the_share_of_a_process_that_was_killed_within_its_term(region: Region) -> None:
    url = region.server.redis_url
    command = [sys.executable, "-m", "tests.doubles.lessors", url, "killed", "1000", "1"]
    holder = await asyncio.to_thread(subprocess.Popen, command, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert float(await asyncio.to_thread(holder.stdout.readline)) == 64
        other = region.join(keep_seconds=1)
        other.wants = 1
        for _ in range(3):
            await other.renew()
            await asyncio.sleep(0.06)
        assert other.share.in_force <= 7, "the holder has most of it"
        other.wants = 1000
    finally:
        holder.kill()
        await asyncio.to_thread(holder.wait)
        holder.stdout.close() if holder.stdout else None
    await asyncio.sleep(1.1)
    assert await other.renew() == 62, "all but what is kept back for one that may be cut off"
