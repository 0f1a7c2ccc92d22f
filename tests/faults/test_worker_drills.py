"""Workers of one host are killed, one after the other, while the checker reads and writes."""

import asyncio
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml

from loadtests.fleet import Fleet
from loadtests.fleet_topology import free_ports
from loadtests.workers import Host, document
from tests.faults.arena import SETTINGS, Arena, namespaces_of
from tests.faults.drill import Drill, drill, until
from tests.faults.links import Links

pytestmark = pytest.mark.faults


@pytest.fixture
def running_host(tmp_path: Path) -> Iterator[tuple[Arena, Host]]:
    source, (origin,) = tmp_path / "document.yaml", free_ports(1)
    source.write_text(yaml.safe_dump(document(2)))
    with (
        Fleet(source, tmp_path / "run", with_instances=False, namespaces=namespaces_of(origin)) as fleet,
        Host(fleet, 2, SETTINGS) as host,
    ):
        yield Arena(fleet, Links({}, fleet.run_dir), origin), host


async def test_workers_are_killed_one_after_the_other(running_host: tuple[Arena, Host]) -> None:
    arena, host = running_host
    async with drill(arena, "workers killed, started again", seconds=10) as running:
        await until("both answer from L1", lambda: l1_at(running, host))
        await kill(running, host, 0)
        await kill(running, host, 0)  # the younger one is the second now


async def kill(running: Drill, host: Host, nth: int) -> None:
    """Kills a worker, and waits until both answer from L1 again."""
    before = host.pids()
    with running.fault(f"worker {nth} killed"):
        os.kill(before[nth], signal.SIGKILL)
        await until("another process is in its place", lambda: is_other(before, host.pids()))
        await asyncio.sleep(0.5)
    await running.recovers("both answer from L1 again", lambda: l1_at(running, host, running.mended))
    assert len(set(before) & set(host.pids())) == 1, "the other one was left alone"


def l1_at(running: Drill, host: Host, since: int = 0) -> bool:
    """True if every worker answered from L1."""
    names = {read.instance for read in running.reads(since=since, tier="l1")}
    return names == {f"eu/{name}" for name in host.urls}


def is_other(before: Sequence[int], now: Sequence[int]) -> bool:
    return len(now) == len(before) and set(now) != set(before)
