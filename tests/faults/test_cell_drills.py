"""A home cell goes away, and comes back empty, late, or as a replica that missed the last writes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from cachesvc.embedded.server_process import stop_all
from loadtests.fleet_servers import cell_server
from loadtests.fleet_topology import free_ports
from tests.faults.arena import MAX_LAG_SECONDS, Arena
from tests.faults.contents import at_home_in, records
from tests.faults.drill import Drill, drill, until
from tests.faults.links import Links

pytestmark = pytest.mark.faults

NAME = "eu-1"
CELL = f"cell-{NAME}"


async def test_cell_killed_and_restarted_empty(field: Arena) -> None:
    async with drill(field, "cell killed, restarted empty", seconds=8) as running:
        await running.warm()
        with running.fault("cell killed"):
            field.kill(CELL)
            await running.written()
            await field.start(CELL)
        await answers_again(running)


async def test_cell_stopped_for_longer_than_max_lag(field: Arena) -> None:
    async with drill(field, "cell stopped, continued", seconds=8) as running:
        await running.warm()
        with running.fault("cell stopped"):
            field.pause(CELL)
            await asyncio.sleep(2 * MAX_LAG_SECONDS)
            field.resume(CELL)
        await answers_again(running)


async def test_cell_flushed(field: Arena) -> None:
    async with drill(field, "cell flushed (FLUSHALL)", seconds=6) as running, field.redis(CELL) as redis:
        await running.warm()
        with running.fault("cell flushed"):
            assert await redis.exists("meta")
            await redis.flushall()
        await answers_again(running)


async def test_region_cut_off_from_a_home_cell_of_the_other_region_for_longer_than_max_lag(field: Arena) -> None:
    async with drill(field, "region cut off from a home cell elsewhere", seconds=8) as running:
        await running.warm()
        with running.fault("cut off from a home cell"), field.links.broken(f"us:{CELL}", mode="lose"):
            await running.written()
            await asyncio.sleep(2 * MAX_LAG_SECONDS)
        await answers_again(running)


async def test_cell_replaced_by_a_replica_that_lags(field: Arena, tmp_path: Path) -> None:
    """Replication is cut, keys are written, the primary is killed, and the replica takes its place at its port."""
    async with (
        replica_of(field.fleet.port(CELL), tmp_path) as (replica, link),
        drill(field, "cell replaced by a lagging replica", seconds=8) as running,
    ):
        await running.warm()
        await until("the replica is in step", lambda: is_in_step(replica))
        with running.fault("cell replaced"):
            with link.broken("replication", mode="lose"):
                await running.written(times=2)
                field.kill(CELL)
            await replica.replicaof("NO", "ONE")
            held = await records(replica, at_home_in(field.fleet.topology, NAME, running.keys()))
            assert running.outdated(held), "nothing to fall for"
            await replica.config_set("port", field.fleet.port(CELL))
        await answers_again(running)


@asynccontextmanager
async def replica_of(primary: int, run_dir: Path) -> AsyncIterator[tuple[Redis, Links]]:
    """A replica, and the link (`replication`) that it follows the primary over."""
    port, through = free_ports(2)
    server = cell_server("replica", port, run_dir)
    link = Links({"replication": (through, primary)}, run_dir)
    try:
        server.start()
        link.process.start()
        async with Redis(port=port, protocol=3, socket_timeout=5) as redis:
            await redis.replicaof("127.0.0.1", through)
            yield redis, link
    finally:
        stop_all([server, link.process])


async def is_in_step(replica: Redis) -> bool:
    told = await replica.info("replication")
    return bool(told["master_link_status"] == "up")


async def answers_again(running: Drill) -> None:
    """Recovery without a hand: the cell grants leases and takes fills again, which only L3 hits show."""
    await until(
        f"keys at home in {NAME} are answered from L3 again",
        lambda: bool({read.key for read in running.reads(since=running.mended, tier="l3")} & own_keys(running)),
    )


def own_keys(running: Drill) -> set[str]:
    return {key.text for key in at_home_in(running.arena.fleet.topology, NAME, running.keys())}
