"""A cell and a queue under real sentinels: a planned failover, then a hung master, then a killed one."""

import asyncio
import time
from collections.abc import Iterator

import aiohttp
import pytest

from tests.doubles.sentinels import Watched
from tests.faults.arena import LOOK_ASIDE
from tests.faults.drill import Drill, drill
from tests.faults.watched_arena import CELL, WatchedArena, watched_arena

pytestmark = pytest.mark.faults

BACK_WITHIN_SECONDS = 5.0
"""From the decision of the sentinels on."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedArena]:
    with watched_arena(tmp_path_factory.mktemp("watched")) as running:
        yield running


async def test_cell_under_sentinels(shared: WatchedArena) -> None:
    await fails_over_three_times(shared, shared.cell, f"cell {CELL}")


async def test_queue_under_sentinels(shared: WatchedArena) -> None:
    await fails_over_three_times(shared, shared.queue, "queue eu")


async def fails_over_three_times(arena: WatchedArena, group: Watched, server: str) -> None:
    """Replaces the server's master by each of its replicas, in three ways."""
    await arena.healthy()
    processes = {name: one.pid for name, one in arena.fleet.instances.items()}
    async with drill(arena, f"{server} under sentinels", seconds=20) as running:
        await running.warm()
        with running.fault(f"{server}: planned failover"):
            await asyncio.to_thread(group.fail_over)
            await writes_are_back(running)
        old = await asyncio.to_thread(group.master)
        with running.fault(f"{server}: its master hangs, and goes on"):
            old.pause()
            try:
                await asyncio.to_thread(group.wait_replaced, old)
                await writes_are_back(running)
                await running.written(seconds=1.0)
            finally:
                old.resume()
            await running.written(seconds=1.0)
        old = await asyncio.to_thread(group.master)
        with running.fault(f"{server}: its master is killed, and started again"):
            old.kill()
            await asyncio.to_thread(group.wait_replaced, old)
            await writes_are_back(running)
            await asyncio.to_thread(old.restart)
        await running.recovers("reads are answered", lambda: bool(running.reads(since=running.mended)))
        await running.written(seconds=1.0)
    assert processes == {name: one.pid for name, one in arena.fleet.instances.items()}


async def writes_are_back(running: Drill) -> None:
    """Returns when every instance takes writes of several keys, of which each is in time."""
    began = time.monotonic()
    fleet = running.arena.fleet
    async with aiohttp.ClientSession() as http:
        await asyncio.gather(
            *(
                taken(http, f"{fleet.url(name)}/v1/{LOOK_ASIDE}/written-{number}")
                for name in fleet.instances
                for number in range(8)
            )
        )
    assert time.monotonic() - began < BACK_WITHIN_SECONDS


async def taken(http: aiohttp.ClientSession, url: str) -> None:
    """Puts a value, and puts it again until it is stored."""
    until = time.monotonic() + 2 * BACK_WITHIN_SECONDS
    while time.monotonic() < until:
        async with http.put(url, data=b"1") as answer:
            if answer.status < 300:
                return
        await asyncio.sleep(0.05)
