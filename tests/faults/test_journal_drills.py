"""A region's queue is killed under load, and instances keep in their journals what it does not take."""

import asyncio
import shutil
from pathlib import Path

import aiohttp
import pytest

from cachesvc.commands.check.history import Announcement
from tests.faults import breaking
from tests.faults.arena import MUTANT, Arena
from tests.faults.drill import Drill, drill, until
from tests.faults.test_queue_drills import is_believed_again

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("comes_back", ["with its data", "empty"])
async def test_queue_killed_while_instances_keep_journals(
    field: Arena, comes_back: str, tmp_path: Path
) -> None:
    """One of them is killed meanwhile, and is started again before the queue is."""
    await field.relaunch(
        {name: (MUTANT, "--journal", str(tmp_path / name)) for name in field.fleet.instances}
    )
    await field.healthy()
    async with drill(field, f"queue killed, comes back {comes_back}; journals", seconds=11) as running:
        await running.warm()
        with running.fault("queue-eu killed"):
            field.kill("queue-eu")
            await until("an instance keeps changes", lambda: bool(unannounced(running, "eu/eu-b")))
            await asyncio.sleep(breaking.LONG / 2)
            field.kill("instance-eu-b")
            await asyncio.sleep(breaking.LONG / 2)
            await field.start("instance-eu-b")
            assert await field.counted("eu-b", "cachesvc_journal_changes") > 0
            if comes_back == "empty":
                shutil.rmtree(field.fleet.run_dir / "queue-eu" / "appendonlydir")
            await field.start("queue-eu")
        await is_believed_again(running)
        for name in field.fleet.instances:
            assert await field.counted(name, "cachesvc_journal_changes") == 0
        await are_reached(running)


def unannounced(running: Drill, instance: str = "") -> list[Announcement]:
    """The calls whose answers said that their changes could not be announced."""
    return [
        record
        for record in running.records
        if isinstance(record, Announcement)
        and not record.announced
        and (not instance or record.instance == instance)
    ]


async def are_reached(running: Drill) -> None:
    """Checks that all of their receipts are done, and merged by a process of each instance's name.

    Processes that were killed are named, too, for a minute.
    """
    calls = unannounced(running)
    assert len(calls) > 10
    async with aiohttp.ClientSession(running.arena.fleet.url("us-a")) as http:
        for call in calls:
            async with http.get(f"/v1/invalidations/{call.id}") as answer:
                state = await answer.json()
            merged = {name.partition("#")[0] for name in state["merged"]}
            everybody = {f"{name[:2]}/{name}" for name in running.arena.fleet.instances}
            assert (state["state"], merged) == ("done", everybody), (call, state)
