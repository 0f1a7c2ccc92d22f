"""A queue is away, and instances keep in their journals what it does not take.

It is killed, or one instance alone is cut off from it.
"""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from cachesvc.commands.check.history import Announcement
from loadtests.fleet import Fleet
from loadtests.fleet_topology import free_ports, one_region
from tests.faults import breaking
from tests.faults.arena import MUTANT, SETTINGS, Arena, namespaces_of
from tests.faults.drill import Drill, drill, until
from tests.faults.links import Links
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
        await are_reached(running, field.fleet.url("us-a"))


@pytest.fixture
def half_linked(tmp_path: Path) -> Iterator[Arena]:
    """Two instances with journals, of which `eu-b` reaches the queue through a link of its own."""
    source, (origin, port) = tmp_path / "document.yaml", free_ports(2)
    source.write_text(yaml.safe_dump(one_region(("eu-a", "eu-b"))))
    fleet = Fleet(
        source,
        tmp_path / "run",
        environ={**SETTINGS, "CACHESVC_QUEUE_JOURNAL_PATH": str(tmp_path / "{instance}.journal")},
        namespaces=namespaces_of(origin),
        detours={"eu-b": {"queue-eu": port}},
    )
    links = Links({"eu-b:queue-eu": (port, fleet.port("queue-eu"))}, fleet.run_dir)
    links.process.start()
    try:
        with fleet:
            yield Arena(fleet, links, origin)
    finally:
        links.process.stop()


async def test_one_instance_is_cut_off_from_its_queue(half_linked: Arena) -> None:
    """What it was sent arrives late; the other instance announces its own changes meanwhile."""
    async with drill(half_linked, "one instance cut off from its queue; journals", seconds=9) as running:
        await running.warm()
        with running.fault("eu-b cut off"), half_linked.links.broken("eu-b:queue-eu", mode="hold"):
            await until("it keeps changes", lambda: len(unannounced(running, "eu/eu-b")) > 10)
            await running.written(seconds=breaking.LONG)
            assert await half_linked.counted("eu-b", "cachesvc_journal_changes") > 0
        assert not unannounced(running, "eu/eu-a")
        await is_believed_again(running)
        assert await half_linked.counted("eu-b", "cachesvc_journal_changes") == 0
        await are_reached(running, half_linked.fleet.url("eu-a"))


def unannounced(running: Drill, instance: str = "") -> list[Announcement]:
    """The calls whose answers said that their changes could not be announced."""
    return [
        record
        for record in running.records
        if isinstance(record, Announcement)
        and not record.announced
        and (not instance or record.instance == instance)
    ]


async def are_reached(running: Drill, url: str) -> None:
    """Checks, at an instance, that all of their receipts are done, and merged by a process of each instance's name.

    Processes that were killed are named, too, for a minute.
    """
    calls = unannounced(running)
    assert len(calls) > 10
    async with aiohttp.ClientSession(url) as http:
        for call in calls:
            state: dict[str, Any] = {}
            async with asyncio.timeout(10):  # positions are reported about once a second
                while "merged" not in state:
                    await asyncio.sleep(0.05)
                    async with http.get(f"/v1/invalidations/{call.id}") as answer:
                        state = await answer.json()
            merged = {name.partition("#")[0] for name in state["merged"]}
            everybody = {f"{name[:2]}/{name}" for name in running.arena.fleet.instances}
            assert (state["state"], merged) == ("done", everybody), (call, state)
