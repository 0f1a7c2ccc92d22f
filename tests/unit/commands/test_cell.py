"""`cachesvc cell`: the documents that it writes, and what it refuses."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cachesvc.commands.command_line import run
from cachesvc.config.service import load_topology
from cachesvc.tiers.l3.moves import check_move
from cachesvc.tiers.l3.placement import Placement

TEXT = """\
# the deployment of the tests
version: 7
regions:
  eu: {queue: "redis://q:1/0"}  # one region
cells:
  eu-1: {region: eu, url: "redis://c:1/1"}
  eu-2: {region: eu, url: "redis://c:1/2", weight: 2}
namespaces:
  pages: {owner: web}  # a comment
pins: {ws-7: eu-1}
"""


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "topology.yaml"
    path.write_text(TEXT)
    return path


def told(document: Path, *arguments: str) -> int:
    return run(["cell", *arguments, "--topology", str(document), "--yes"], {})


@pytest.mark.parametrize(
    ("arguments", "cells", "pins"),
    [
        (("add", "eu-3", "redis://c:1/3"), {"eu-1": True, "eu-2": True, "eu-3": True}, {"ws-7": "eu-1"}),
        (("drain", "eu-1"), {"eu-1": False, "eu-2": True}, {}),
        (("move", "ws-9", "eu-2"), {"eu-1": True, "eu-2": True}, {"ws-7": "eu-1", "ws-9": "eu-2"}),
    ],
)
def test_it_writes_the_next_document_with_its_former(
    document: Path, arguments: tuple[str, ...], cells: dict[str, bool], pins: dict[str, str]
) -> None:
    before = load_topology(document)
    assert told(document, *arguments) == 0
    after = load_topology(document)
    check_move(before, after)
    assert after.version == 8
    assert {name: cell.active for name, cell in after.cells.items()} == cells
    assert after.pins == pins
    assert after.former is not None
    assert after.former.since is not None
    assert after.former.cells == {"eu-1": 1, "eu-2": 2}
    text = document.read_text()
    assert "# the deployment of the tests" in text
    assert "pages: {owner: web}  # a comment" in text
    assert [path.name for path in document.parent.iterdir()] == ["topology.yaml"]


def test_a_move_ends_when_no_copy_can_be_left(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(document, "drain", "eu-1") == 0
    homes = Placement(load_topology(document)).id
    assert told(document, "settle") == 2
    assert "is needed for" in capsys.readouterr().err
    began = datetime.now(UTC) - timedelta(hours=1)
    text = document.read_text()
    since = next(line for line in text.splitlines() if "since:" in line)
    document.write_text(text.replace(since, f"  since: {began:%Y-%m-%dT%H:%M:%SZ}"))
    assert told(document, "settle") == 0
    after = load_topology(document)
    assert (after.version, after.former, list(after.cells)) == (9, None, ["eu-2"])
    assert Placement(after).id == homes


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("add", "eu-1", "redis://c:1/3"), "eu-1 is a cell already"),
        (("add", "eu-3", "redis://c:1/1"), "is the same as $.cells.eu-1.url"),
        (("drain", "eu-9"), "no cell 'eu-9'"),
        (("move", "ws-7", "eu-1"), "ws-7 is pinned to eu-1 already"),
        (("settle",), "no move is under way"),
    ],
)
def test_what_it_cannot_do_changes_nothing(
    document: Path, arguments: tuple[str, ...], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(document, *arguments) == 2
    assert why in capsys.readouterr().err
    assert document.read_text() == TEXT
    assert [path.name for path in document.parent.iterdir()] == ["topology.yaml"]


def test_a_second_move_waits_for_the_first(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(document, "move", "ws-9", "eu-2") == 0
    assert told(document, "drain", "eu-1") == 2
    assert "a move is under way" in capsys.readouterr().err


def test_without_a_yes_nothing_is_written(document: Path) -> None:
    assert run(["cell", "drain", "eu-1", "--topology", str(document)], {}) == 1
    assert document.read_text() == TEXT
