"""Instances die, stop for a while, do not publish what they applied, or have wrong clocks."""

import asyncio

import pytest

from cachesvc.commands.check.settings import LoadDelays
from cachesvc.commands.top.exposition import Exposition
from loadtests.fleet_servers import SERVICE
from tests.faults import breaking
from tests.faults.arena import LEASE_SECONDS, LOOK_ASIDE, MAX_LAG_SECONDS, MUTANT, Arena
from tests.faults.drill import Drill, drill, until
from tests.integration.test_serve import call

pytestmark = pytest.mark.faults


async def test_instance_killed_and_restarted(field: Arena) -> None:
    async with drill(field, "instance killed, restarted", seconds=9) as running:
        await running.warm()
        await breaking.kill(running, "instance-eu-b")
        await answers_again(running, "eu/eu-b")


async def test_instance_ended_and_started_with_the_l1_that_it_had(field: Arena) -> None:
    """Keys are written meanwhile: their copies in the snapshot must not be answered."""
    async with drill(field, "instance ended, started with a snapshot", seconds=9) as running:
        await running.warm()
        with running.fault("instance-eu-b ended"):
            await field.end("instance-eu-b")
            await running.written(seconds=MAX_LAG_SECONDS)
            await field.start("instance-eu-b")
        metrics = await asyncio.to_thread(call, f"{field.fleet.url('eu-b')}/metrics")
        found = Exposition.parse(metrics[1].decode()).by("l1_snapshot_copies_total", "outcome")
        assert found["taken"] > 0
        assert found["refused"] > 0
        await answers_again(running, "eu/eu-b")


async def test_instance_stopped_for_longer_than_max_lag(field: Arena) -> None:
    async with drill(field, "instance stopped, continued", seconds=8) as running:
        await running.warm()
        await breaking.stop_instance(running, "eu-b")
        await answers_again(running, "eu/eu-b")


async def test_instance_killed_between_applying_in_the_home_cell_and_publishing(field: Arena) -> None:
    """The region's other instance finds the change open and does all of it again."""
    await field.relaunch({"eu-a": [MUTANT, "--die-between-apply-and-publish", "10"]})
    await field.healthy()
    async with drill(field, "instance killed between apply and publish", seconds=10) as running:
        await running.warm()
        await until("it has died", lambda: not field.fleet.instances["eu-a"].is_running)
        with running.fault("instance died before publishing"):
            await running.written(seconds=breaking.LONG)
            await field.relaunch({"eu-a": SERVICE})
        await answers_again(running, "eu/eu-a")


async def test_clocks_moved_within_the_skew(field: Arena) -> None:
    """One clock is ahead, one is behind, one changes sides all the time, and a cell restarts.

    The instances depend on that cell's times.
    """
    await field.relaunch(
        {
            "eu-a": [MUTANT, "--clock-offset=40ms"],
            "eu-b": [MUTANT, "--clock-offset=-40ms"],
            "us-a": [MUTANT, "--clock-offset=40ms", "--clock-turns-every", "1s"],
        }
    )
    await field.healthy()
    async with drill(field, "clocks moved within the skew", seconds=8) as running:
        await running.warm()
        await breaking.kill(running, "cell-us-1")
        await answers_again(running, "us/us-a")


@pytest.mark.parametrize("namespace", ["check", LOOK_ASIDE])
async def test_loaders_that_take_longer_than_the_lease(field: Arena, namespace: str) -> None:
    late = LoadDelays(slow=0.05, longest_seconds=LEASE_SECONDS, late=0.03, late_seconds=LEASE_SECONDS + 0.5)
    name = "loads past the lease" + (", by callers" if namespace == LOOK_ASIDE else "")
    async with drill(field, name, seconds=7, delays=late, namespace=namespace) as running:
        with running.fault("loads past the lease"):
            await asyncio.sleep(5)
        await answers_again(running, "us/us-a")


async def answers_again(running: Drill, instance: str) -> None:
    """Waits until the instance answers hits from L1 again."""
    await running.recovers(
        "it answers from L1 again",
        lambda: bool(running.reads(since=running.mended, instance=instance, tier="l1")),
    )
