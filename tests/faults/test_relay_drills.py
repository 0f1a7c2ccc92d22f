"""Relays die and stand still while the checker reads and writes.

They are read over the sockets of a host, and over HTTP.
"""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import msgspec
import pytest
import yaml

from loadtests.fleet import Fleet
from loadtests.fleet_topology import free_ports, one_region
from loadtests.workers import Host
from tests.faults.arena import SETTINGS, Arena, namespaces_of
from tests.faults.drill import Drill, drill, until
from tests.faults.links import Links
from tests.faults.test_worker_drills import l1_at, running_host

pytestmark = pytest.mark.faults

__all__ = ["running_host"]

ROOT, BRANCH, LEAF = "eu-root", "eu-branch", "eu-leaf"


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Arena]:
    """Three instances: `eu-leaf` reads from `eu-branch`, and that from `eu-root`."""
    source, (origin,) = tmp_path / "document.yaml", free_ports(1)
    document = one_region((ROOT, BRANCH, LEAF))
    document["regions"]["eu"]["relays"] = {ROOT: "", BRANCH: ROOT}
    source.write_text(yaml.safe_dump(document))
    with Fleet(source, tmp_path / "run", environ=SETTINGS, namespaces=namespaces_of(origin)) as fleet:
        yield Arena(fleet, Links({}, fleet.run_dir), origin)


def relay_of(url: str) -> str:
    """The relay that an instance follows now; empty if none."""
    with urlopen(f"{url}/readyz?verbose", timeout=5) as answer:
        found: str = msgspec.json.decode(answer.read())["relays"].get("eu", "")
    return found


async def test_relays_of_a_tree_are_stopped_and_killed(tree: Arena) -> None:
    urls = tree.fleet.topology.regions["eu"].instances
    async with drill(tree, "relays stopped, killed", seconds=14) as running:
        await running.warm()
        await until(
            "each reads from the one above it",
            lambda: (relay_of(urls[BRANCH]), relay_of(urls[LEAF])) == (ROOT, BRANCH),
        )
        with running.fault("branch stopped"), running.stopped(BRANCH):
            await until("leaf has left it", lambda: relay_of(urls[LEAF]) == "")
            await running.written()
        await answers_again(running)
        await until("leaf has come back", lambda: relay_of(urls[LEAF]) == BRANCH)
        with running.fault("root killed"):
            tree.kill(f"instance-{ROOT}")
            await until("branch has left it", lambda: relay_of(urls[BRANCH]) == "")
            await asyncio.sleep(1)
            await tree.start(f"instance-{ROOT}")
        await answers_again(running)


async def test_the_first_worker_stands_still(running_host: tuple[Arena, Host]) -> None:
    """The other one reads the queue meanwhile, and answers from L1 all the time."""
    arena, host = running_host
    async with drill(arena, "first worker stopped, continued", seconds=9) as running:
        await until("both answer from L1", lambda: l1_at(running, host))
        first = host.pids()[0]
        assert relay_of(host.urls["host-1"]) == "host-0"
        with running.fault("first worker stopped"):
            running.paused.add("eu/host-0")
            os.kill(first, signal.SIGSTOP)
            await until("the other has left it", lambda: relay_of(host.urls["host-1"]) == "")
            await running.written()
            os.kill(first, signal.SIGCONT)
        await running.recovers("both answer from L1 again", lambda: l1_at(running, host, running.mended))


async def answers_again(running: Drill) -> None:
    await running.recovers(
        "the leaf answers from L1 again",
        lambda: bool(running.reads(since=running.mended, instance=f"eu/{LEAF}", tier="l1")),
    )
