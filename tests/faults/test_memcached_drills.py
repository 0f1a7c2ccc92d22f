"""L2 goes away, and comes back empty, late, or with what it held before."""

import asyncio

import pytest

from tests.faults.arena import MAX_LAG_SECONDS, Arena
from tests.faults.contents import Memcached, on_memcached
from tests.faults.drill import Drill, drill, until
from tests.faults.proxy import Mode

pytestmark = pytest.mark.faults

NAME = "eu-m1"
SERVER = f"memcached-{NAME}"
LINK = f"eu:{SERVER}"


async def test_memcached_killed_and_restarted_empty(field: Arena) -> None:
    async with drill(field, "memcached killed, restarted empty", seconds=6) as running:
        await running.warm()
        with running.fault("memcached killed"):
            field.kill(SERVER)
            await running.written()
            await field.start(SERVER)
        await answers_again(running)


async def test_memcached_stopped_for_longer_than_max_lag(field: Arena) -> None:
    async with drill(field, "memcached stopped, continued", seconds=8) as running:
        await running.warm()
        with running.fault("memcached stopped"):
            field.pause(SERVER)
            await asyncio.sleep(2 * MAX_LAG_SECONDS)
            field.resume(SERVER)
        await answers_again(running)


@pytest.mark.parametrize("mode", ["cut", "lose", "hold"])
async def test_memcached_cut_off_and_back_with_what_it_held(field: Arena, mode: Mode) -> None:
    """`hold`: what was sent to it meanwhile arrives late, when it is back."""
    async with drill(field, f"memcached cut off ({mode}), back with old content", seconds=8) as running:
        await running.warm()
        with running.fault("memcached cut off"), field.links.broken(LINK, mode=mode):
            await running.written(times=2)
            await asyncio.sleep(MAX_LAG_SECONDS)
            await old_content_is_there(running)
        await answers_again(running)


async def test_another_memcached_on_the_same_port_with_a_copy_of_old_items(field: Arena) -> None:
    async with drill(field, "memcached replaced by one with old items", seconds=8) as running:
        await running.warm()
        memcached = held_by(field)
        old = await memcached.items(on_memcached(field.fleet.topology, NAME, running.keys()))
        with running.fault("memcached replaced"), field.links.broken(LINK):
            field.kill(SERVER)
            await running.written(times=2)
            await field.start(SERVER)
            await memcached.put(old)
            await old_content_is_there(running)
        await answers_again(running)


def held_by(field: Arena) -> Memcached:
    return Memcached(field.fleet.port(SERVER))


async def old_content_is_there(running: Drill) -> None:
    """Asked of the server itself: whoever believes it reads values that were written over."""
    keys = on_memcached(running.arena.fleet.topology, NAME, running.keys())
    outdated = running.outdated(await held_by(running.arena).entries(keys))
    assert len(outdated) >= 2, f"nothing to fall for: {outdated}"


async def answers_again(running: Drill) -> None:
    """Recovery without a hand: the server's own keys are answered from L2 again."""
    own = {key.text for key in on_memcached(running.arena.fleet.topology, NAME, running.keys())}
    await until(
        f"keys of {NAME} are answered from it again",
        lambda: any(
            read.key in own and read.instance.startswith("eu/") for read in running.reads(since=running.mended, tier="l2")
        ),
    )
