"""A home cell goes away, and comes back empty, late, or as a replica that lags."""

import pytest

from tests.faults import breaking
from tests.faults.arena import Arena
from tests.faults.contents import at_home_in
from tests.faults.drill import Drill, drill

pytestmark = pytest.mark.faults

NAME = "eu-1"
CELL = f"cell-{NAME}"


async def test_cell_killed_and_restarted_empty(field: Arena) -> None:
    async with drill(field, "cell killed, restarted empty", seconds=7) as running:
        await running.warm()
        await breaking.kill(running, CELL)
        await answers_again(running)


async def test_cell_stopped_for_longer_than_max_lag(field: Arena) -> None:
    async with drill(field, "cell stopped, continued", seconds=8) as running:
        await running.warm()
        await breaking.stop(running, CELL)
        await answers_again(running)


async def test_cell_flushed(field: Arena) -> None:
    async with drill(field, "cell flushed (FLUSHALL)", seconds=6) as running:
        await running.warm()
        await breaking.flush(running, NAME)
        await answers_again(running)


async def test_region_cut_off_from_a_home_cell_of_the_other_region_for_longer_than_max_lag(
    field: Arena,
) -> None:
    async with drill(field, "region cut off from a home cell elsewhere", seconds=8) as running:
        await running.warm()
        await breaking.cut_off(running, f"us:{CELL}", "lose")
        await answers_again(running)


async def test_cell_replaced_by_a_replica_that_lags(field: Arena) -> None:
    async with drill(field, "cell replaced by a lagging replica", seconds=8) as running:
        await running.warm()
        await breaking.promote_a_lagging_replica(running, NAME)
        await answers_again(running)


async def test_cell_split_between_two_servers_that_both_live(field: Arena) -> None:
    async with drill(field, "cell split: two masters of one name", seconds=9) as running:
        await running.warm()
        await breaking.split(running, NAME, "us")
        await answers_again(running)


async def test_cell_whose_name_moves_while_connections_to_the_old_primary_live(field: Arena) -> None:
    async with drill(field, "cell's name moves, old connections stay", seconds=9) as running:
        await running.warm()
        await breaking.split(running, NAME, "us", resets=False)
        await answers_again(running)


async def test_cell_that_flaps_to_an_empty_standby_and_back(field: Arena) -> None:
    async with drill(field, "cell flaps to an empty standby", seconds=10) as running:
        await running.warm()
        await breaking.flap(running, NAME, "us")
        await answers_again(running)


async def answers_again(running: Drill) -> None:
    """Waits until the cell grants leases and takes fills again; only hits in L3 show that."""
    own = {key.text for key in at_home_in(running.arena.fleet.topology, NAME, running.keys())}
    await running.recovers(
        f"keys at home in {NAME} are answered from L3 again",
        lambda: any(read.key in own for read in running.reads(since=running.mended, tier="l3")),
    )
