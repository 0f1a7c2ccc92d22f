"""Callers that change while an instance runs."""

import asyncio
import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from cachesvc.app.topology_file import TopologyFile
from cachesvc.config.callers import Callers
from cachesvc.config.limits import Rate, Rates
from cachesvc.config.service import load_topology
from cachesvc.config.topology import Namespace, Topology
from cachesvc.model.units import Duration

DOCUMENT = """
version: 1
regions: {eu: {queue: "redis://127.0.0.1:1/0"}}
cells: {c1: {region: eu, url: "redis://127.0.0.1:1/1"}}
namespaces: {}
"""


class Taken(list[Callers | None]):
    """What was taken, and the file that it comes from."""

    def __init__(self, path: Path, callers: str) -> None:
        self.path = path
        self.write(callers)
        self.file = TopologyFile(path, load_topology(path), self._take)

    async def _take(self, topology: Topology) -> None:
        self.append(topology.callers)
        self.topology = topology

    def write(self, callers: str) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(DOCUMENT + callers)
        os.replace(new, self.path)


def anonymous(scope: str) -> str:
    return f"callers: {{anonymous: ['{scope}']}}"


@pytest.fixture
def taken(tmp_path: Path) -> Taken:
    return Taken(tmp_path / "topology.yaml", anonymous("read:a"))


async def test_a_changed_document_is_taken_once(taken: Taken) -> None:
    await taken.file.look()
    assert taken == []
    taken.write(anonymous("read:b"))
    for _ in range(3):
        await taken.file.look()
    assert taken == [Callers(anonymous=("read:b",))]


@pytest.mark.parametrize(
    "broken",
    ["callers: {anonymous: [read]}", "callers: [", "", "callers:", "version: 0\n" + anonymous("read:c")],
)
async def test_a_broken_document_changes_nothing_and_is_said(
    taken: Taken, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    taken.write(broken)
    for _ in range(3):
        await taken.file.look()
    assert taken == []
    assert taken.file.is_outdated
    assert taken.file.trouble.startswith("the topology document of before is in force: ")
    assert len(caplog.records) == 1
    taken.write(anonymous("read:c"))
    await taken.file.look()
    assert taken == [Callers(anonymous=("read:c",))]
    assert not taken.file.is_outdated


async def test_a_file_that_is_away_changes_nothing(taken: Taken) -> None:
    taken.path.unlink()
    await taken.file.look()
    assert (taken, taken.file.is_outdated) == ([], True)


async def test_callers_may_come_while_it_runs(tmp_path: Path) -> None:
    taken = await asyncio.to_thread(Taken, tmp_path / "topology.yaml", "")
    await taken.file.look()
    assert (taken, taken.file.is_outdated) == ([], False)
    taken.write(anonymous("read:a"))
    await taken.file.look()
    assert taken == [Callers(anonymous=("read:a",))]


def test_what_is_live_is_taken_and_the_rest_waits(taken: Taken) -> None:
    declared = "  a: {owner: web, rates: {reads: {per_second: 5}}, ttl: 9s}\n"
    declared += "  new: {owner: web, l1: {at_most: 5%}}\n"
    text = DOCUMENT.replace("namespaces: {}\n", "namespaces:\n  a: {owner: web}\n")
    taken.path.write_text(text + anonymous("read:a"))
    taken.file = TopologyFile(taken.path, load_topology(taken.path), taken._take)
    before = load_topology(taken.path)
    new = text.replace("  a: {owner: web}\n", declared).replace("version: 1", "version: 2")
    taken.path.write_text(new + anonymous("read:a"))
    asyncio.run(taken.file.look())
    rates = Rates(reads=Rate(5))
    namespaces = {
        "a": replace(before.namespaces["a"], rates=rates, ttl=Duration.parse("9s")),
        "new": Namespace(owner="web"),
    }
    assert taken.topology == replace(before, namespaces=namespaces)
    assert taken.file.waiting == [("namespaces", "new", "l1", "at_most")]
