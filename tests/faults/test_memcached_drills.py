"""L2 goes away, and comes back empty, late, or with what it held before."""

import pytest

from tests.faults import breaking
from tests.faults.arena import Arena
from tests.faults.contents import on_memcached
from tests.faults.drill import Drill, drill
from tests.faults.proxy import Mode

pytestmark = pytest.mark.faults

NAME = "eu-m1"
LINK = f"eu:memcached-{NAME}"


async def test_memcached_killed_and_restarted_empty(field: Arena) -> None:
    async with drill(field, "memcached killed, restarted empty", seconds=6) as running:
        await running.warm()
        await breaking.kill(running, f"memcached-{NAME}")
        await answers_again(running)


async def test_memcached_stopped_for_longer_than_max_lag(field: Arena) -> None:
    async with drill(field, "memcached stopped, continued", seconds=7) as running:
        await running.warm()
        await breaking.stop(running, f"memcached-{NAME}")
        await answers_again(running)


@pytest.mark.parametrize("mode", ["cut", "lose", "hold"])
async def test_memcached_cut_off_and_back_with_what_it_held(field: Arena, mode: Mode) -> None:
    async with drill(field, f"memcached cut off ({mode}), back with old content", seconds=7) as running:
        await running.warm()
        await breaking.cut_off_memcached(running, NAME, LINK, mode)
        await answers_again(running)


async def test_another_memcached_on_the_same_port_with_a_copy_of_old_items(field: Arena) -> None:
    async with drill(field, "memcached replaced by one with old items", seconds=7) as running:
        await running.warm()
        await breaking.replace_memcached_by_an_old_copy(running, NAME, LINK)
        await answers_again(running)


async def answers_again(running: Drill) -> None:
    """Waits until keys of this memcached are answered from it again."""
    own = {key.text for key in on_memcached(running.arena.fleet.topology, NAME, running.keys())}
    await running.recovers(
        f"keys of {NAME} are answered from it again",
        lambda: any(
            read.key in own and read.instance.startswith("eu/")
            for read in running.reads(since=running.mended, tier="l2")
        ),
    )
