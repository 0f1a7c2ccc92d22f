"""Cells come and go, and partitions move, under load; one instance gets each document late."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from cachesvc.commands.cell.edit import Document, added, drained, former_of, moved, settled
from cachesvc.config.service import load_topology
from cachesvc.config.topology import Topology
from cachesvc.model.partition import partition
from cachesvc.tiers.l3.placement import Placement
from loadtests.fleet_servers import cell_server
from loadtests.fleet_topology import free_ports
from tests.faults.arena import Arena
from tests.faults.drill import drill, until
from tests.integration.test_serve import call

pytestmark = pytest.mark.faults

NEW, OTHER = "eu-9", "us-1"
LATE_SECONDS = 3.0

Edit = Callable[[Document, Topology], Document]


@pytest.mark.parametrize("late_seconds", [0.0, LATE_SECONDS], ids=["together", "one late"])
async def test_a_cell_is_added_a_partition_moves_and_a_cell_is_drained(
    field: Arena, late_seconds: float
) -> None:
    port = free_ports(1)[0]
    added_cell = {"region": "eu", "url": f"redis://127.0.0.1:{port}/0"}
    name = "homes move" if not late_seconds else "homes move, one instance late"
    async with drill(field, name, seconds=14 if not late_seconds else 20) as running:
        await running.warm()
        await field.start_guest(cell_server(NEW, port, field.fleet.run_dir))
        with running.fault("a cell comes"):
            await _take(field, lambda document, _: added(document, NEW, added_cell), late_seconds)
        await running.written()
        placement, keys = Placement(await asyncio.to_thread(_topology, field)), running.keys()
        assert any(placement.home(key.text) == NEW for key in keys)
        await _take(field, settled)

        first = partition(keys[0].text)
        with running.fault("a partition moves"):
            await _take(field, lambda document, _: moved(document, first, OTHER), late_seconds)
        await running.written()
        await _take(field, settled)

        with running.fault("a cell is drained"):
            await _take(field, lambda document, _: drained(_unpinned(document, first), NEW), late_seconds)
        await running.written()
        await _take(field, settled)
        await field.healthy()
        assert await _warm_hits(field) > 0
    assert not running.reads(outcome="error")


def _unpinned(document: Document, name: str) -> Document:
    pins = {what: where for what, where in (document.get("pins") or {}).items() if what != name}
    return {**document, "pins": pins}


def _topology(field: Arena) -> Topology:
    return load_topology(field.fleet.documents[0])


async def _take(field: Arena, edit: Edit, late_seconds: float = 0.0) -> None:
    """Gives every instance the next document, the last one late, and waits until all have it."""
    *paths, last = field.fleet.documents
    versions = {await asyncio.to_thread(_write, path, edit) for path in paths}
    await asyncio.sleep(late_seconds)
    versions.add(await asyncio.to_thread(_write, last, edit))
    (version,) = versions
    said = f'"topology_version":{version},'.encode()
    await until(f"version {version} is in force", lambda: _all_say(field, "/readyz?verbose", said))


def _write(path: Path, edit: Edit) -> int:
    """Writes the next document in one step, as `cachesvc cell` does; returns its version."""
    before = load_topology(path)
    document = yaml.safe_load(path.read_text())
    after = {**edit(document, before), "version": before.version + 1}
    if "former" not in document:
        after["former"] = former_of(before, datetime.now(UTC))
    draft = path.with_suffix(".new")
    draft.write_text(yaml.safe_dump(after, sort_keys=False))
    draft.replace(path)
    return before.version + 1


async def _answers(field: Arena, path: str) -> list[bytes]:
    urls = [f"{field.fleet.url(instance)}{path}" for instance in field.fleet.instances]
    return [body for _, body in await asyncio.gather(*(asyncio.to_thread(call, url) for url in urls))]


async def _all_say(field: Arena, path: str, said: bytes) -> bool:
    return all(said in body for body in await _answers(field, path))


async def _warm_hits(field: Arena) -> float:
    lines = b"\n".join(await _answers(field, "/metrics")).decode().splitlines()
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith("cachesvc_former_home_lookups_total{") and 'outcome="hit"' in line
    )
