"""Instances die, stop for a while, tell nobody what they applied, or have clocks that are off."""

import asyncio

import pytest

from cachesvc.check.settings import LoadDelays
from tests.faults.arena import LEASE_SECONDS, LOOK_ASIDE, MAX_LAG_SECONDS, Arena
from tests.faults.drill import drill, until

pytestmark = pytest.mark.faults

MUTANT = "tests.faults.mutant"


async def test_instance_killed_and_restarted(field: Arena) -> None:
    async with drill(field, "instance killed, restarted", seconds=9) as running:
        await running.warm()
        with running.fault("instance killed"):
            field.kill("instance-eu-b")
            await running.written()
            await field.start("instance-eu-b")
        await until("it answers from L1 again", lambda: bool(running.reads(since=running.mended, instance="eu/eu-b", tier="l1")))


async def test_instance_stopped_for_longer_than_max_lag(field: Arena) -> None:
    async with drill(field, "instance stopped, continued", seconds=9, stopped="eu/eu-b") as running:
        await running.warm()
        with running.fault("instance stopped"):
            field.pause("instance-eu-b")
            await asyncio.sleep(2 * MAX_LAG_SECONDS)
            field.resume("instance-eu-b")
        await until("it answers from L1 again", lambda: bool(running.reads(since=running.mended, instance="eu/eu-b", tier="l1")))


async def test_instance_killed_between_applying_in_the_home_cell_and_publishing(field: Arena) -> None:
    """The region's other instance finds the change open and does all of it again."""
    await field.relaunch({"eu-a": [MUTANT, "--die-between-apply-and-publish", "40"]})
    await field.healthy()
    redone = await field.counted("eu-b", "cachesvc_changes_applied_total")
    async with drill(field, "instance killed between apply and publish", seconds=9) as running:
        await running.warm()
        await until("it has died", lambda: not field.fleet.instances["eu-a"].is_running)
        with running.fault("instance died before publishing"):
            await running.written()
            assert await field.counted("eu-b", "cachesvc_changes_applied_total") > redone
            await field.start("instance-eu-a")
        await until("it answers from L1 again", lambda: bool(running.reads(since=running.mended, instance="eu/eu-a", tier="l1")))


async def test_clocks_moved_within_the_skew(field: Arena) -> None:
    """One ahead, one behind, one that changes sides all the time; and a cell is restarted, whose times they have to go by."""
    await field.relaunch(
        {
            "eu-a": [MUTANT, "--clock-offset=40ms"],
            "eu-b": [MUTANT, "--clock-offset=-40ms"],
            "us-a": [MUTANT, "--clock-offset=40ms", "--clock-turns-every", "1s"],
        }
    )
    await field.healthy()
    async with drill(field, "clocks moved within the skew", seconds=9) as running:
        await running.warm()
        with running.fault("clocks off, a cell restarted"):
            await running.written(times=2)
            field.kill("cell-us-1")
            await running.written()
            await field.start("cell-us-1")
        await field.healthy()


@pytest.mark.parametrize("namespace", ["check", LOOK_ASIDE])
async def test_loaders_that_take_longer_than_the_lease(field: Arena, namespace: str) -> None:
    late = LoadDelays(slow=0.2, longest_seconds=LEASE_SECONDS, late=0.1, late_seconds=LEASE_SECONDS + 0.5)
    name = "loads past the lease" + (", by callers" if namespace == LOOK_ASIDE else "")
    async with drill(field, name, seconds=8, delays=late, namespace=namespace) as running:
        await running.warm()
        with running.fault("loads past the lease"):
            await running.written(times=3)
