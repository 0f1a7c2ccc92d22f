"""`cachesvc topology diff`: what changes, what moves, what is refused."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from cachesvc.cli import main
from cachesvc.config.service import load_topology
from cachesvc.model.entry import Key
from cachesvc.tiers.l2.ring import Ring
from cachesvc.tiers.l3.placement import Placement

DOCUMENT: dict[str, Any] = {
    "version": 7,
    "regions": {
        "eu": {
            "queue": "redis://:secret@queue.eu:6379/0",
            "pool": {name: {"address": f"{name}:11211"} for name in ("m1", "m2", "m3")},
        }
    },
    "cells": {
        "eu-1": {"region": "eu", "url": "redis://eu-1:6379/0"},
        "eu-2": {"region": "eu", "url": "redis://eu-2:6379/0", "weight": 2},
    },
    "namespaces": {"pages": {"owner": "web", "ttl": "5m"}},
    "pins": {"ws-7": "eu-1"},
}
ADDED = {"region": "eu", "url": "redis://eu-3:6379/0"}
FORMER = {"cells": {"eu-1": 1, "eu-2": 2}, "pins": {"ws-7": "eu-1"}}


class Documents:
    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys

    def diff(self, new: dict[str, Any], *more: str, old: dict[str, Any] = DOCUMENT) -> tuple[int, str]:
        """The exit code and the output."""
        for name, document in (("old", old), ("new", new)):
            (self.folder / name).write_text(yaml.safe_dump(document))
        code = main(["topology", "diff", str(self.folder / "old"), str(self.folder / "new"), *more], {})
        told = self._capsys.readouterr()
        return code, told.out + told.err


@pytest.fixture
def documents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Documents:
    return Documents(tmp_path, capsys)


def changed(**fields: Any) -> dict[str, Any]:
    return {**DOCUMENT, **fields}


def test_nothing_changes(documents: Documents) -> None:
    assert documents.diff(DOCUMENT) == (0, "nothing changes\n")


def test_what_is_live_needs_no_version_and_no_restart(documents: Documents) -> None:
    code, said = documents.diff(changed(namespaces={"pages": {"owner": "web", "ttl": "90s"}}))
    assert code == 2
    assert "In force at once:\n  namespaces.pages.ttl: 5m → 90s" in said
    assert "restart" not in said


def test_a_restart_needs_another_version(documents: Documents) -> None:
    new = {"pages": {"owner": "web", "l1": {"at_most": "5%"}}}
    code, said = documents.diff(changed(namespaces=new))
    assert code == 1
    assert "$.version must be above 7" in said
    code, said = documents.diff(changed(namespaces=new, version=8))
    assert code == 2
    assert "restart the instances" in said


def test_a_move_without_former_is_refused_with_the_lines_to_write(documents: Documents) -> None:
    cells = {"eu-2": DOCUMENT["cells"]["eu-2"], "eu-3": ADDED}
    code, said = documents.diff(changed(version=8, cells=cells, pins={}))
    assert code == 1
    assert 'cells: {"eu-1": 1.0, "eu-2": 2.0}' in said
    assert 'pins: {"ws-7": "eu-1"}' in said
    assert "keep eu-1 under cells, with `active: false`" in said


def test_a_move_says_what_moves_and_the_steps(documents: Documents) -> None:
    cells = {
        "eu-1": {**DOCUMENT["cells"]["eu-1"], "active": False},
        "eu-2": DOCUMENT["cells"]["eu-2"],
        "eu-3": ADDED,
    }
    code, said = documents.diff(changed(version=8, cells=cells, pins={}, former=FORMER), "--json")
    assert code == 2
    found = json.loads(said)
    moved = {(move["before"], move["after"]): move["share"] for move in found["partitions"]}
    assert sum(share for (before, _), share in moved.items() if before == "eu-1") == pytest.approx(
        1 / 3, abs=0.02
    )
    assert found["steps"][-1].startswith("raise the version to 9, without `former` and eu-1")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"version": 6}, "$.version is 6, and 7 is in force"),
        (
            {"version": 8, "cells": {**DOCUMENT["cells"], "eu-3": ADDED}, "former": {"cells": {"eu-1": 1}}},
            "$.former",
        ),
        ({"version": 8, "former": FORMER}, "$.former"),
    ],
)
def test_what_moving_forbids_is_refused(documents: Documents, more: dict[str, Any], said: str) -> None:
    code, told = documents.diff(changed(**more))
    assert code == 1
    assert said in told


def test_a_second_move_waits_for_the_first(documents: Documents) -> None:
    moving = changed(version=8, cells={**DOCUMENT["cells"], "eu-3": ADDED}, former=FORMER)
    again = {**moving, "version": 9, "pins": {}}
    code, said = documents.diff(again, old=moving)
    assert code == 1
    assert "an earlier move is under way" in said
    done = {name: value for name, value in moving.items() if name != "former"}
    code, said = documents.diff({**done, "version": 9}, old=moving)
    assert code == 2
    assert "begin only when l3.retention" in said


def test_the_moved_keys_are_those_of_the_ring(documents: Documents, tmp_path: Path) -> None:
    pool = {**DOCUMENT["regions"]["eu"]["pool"], "m4": {"address": "m4:11211"}}
    regions = {"eu": {**DOCUMENT["regions"]["eu"], "pool": pool}}
    names = [f"k{number}" for number in range(2_000)]
    (tmp_path / "keys").write_text("".join(f"pages/{name}\n" for name in names))
    code, said = documents.diff(
        changed(version=8, regions=regions), "--json", "--keys", str(tmp_path / "keys")
    )
    assert code == 2
    found = msgspec.json.decode(said)
    was, now = Ring(dict.fromkeys(("m1", "m2", "m3"), 1)), Ring(dict.fromkeys(pool, 1))
    keys = [Key.of("pages", name) for name in names]
    moved = [key for key in keys if was.server(key.digest) != now.server(key.digest)]
    assert [move["key"] for move in found["given"]] == [f"pages/{key.text}" for key in moved]
    share = sum(move["share"] for move in found["keys"])
    assert share == pytest.approx(len(moved) / len(keys), abs=0.03)
    assert {move["after"] for move in found["keys"]} == {"m4"}
    assert "secret" not in said


def test_a_password_that_changes_is_said_and_not_shown(documents: Documents) -> None:
    regions = {"eu": {**DOCUMENT["regions"]["eu"], "queue": "redis://:other@queue.eu:6379/0"}}
    code, said = documents.diff(changed(version=8, regions=regions))
    assert code == 2
    assert "regions.eu.queue: changed (not shown)" in said
    assert "other@" not in said


def test_wrong_documents_and_keys_are_told_and_nothing_else(documents: Documents, tmp_path: Path) -> None:
    assert documents.diff(changed(version=0))[0] == 1
    (tmp_path / "keys").write_text("nothing\n")
    code, said = documents.diff(changed(version=8), "--keys", str(tmp_path / "keys"))
    assert (code, "line 1 of" in said) == (1, True)
    assert documents.diff(DOCUMENT, "--keys", str(tmp_path / "none"))[0] == 1


def test_former_lines_make_the_placement_that_was(tmp_path: Path, documents: Documents) -> None:
    cells = {**DOCUMENT["cells"], "eu-3": ADDED}
    _, said = documents.diff(changed(version=8, cells=cells))
    lines = said[said.index("former:") :].splitlines()
    former = yaml.safe_load("\n".join(line[6:] if nth else line for nth, line in enumerate(lines)))
    code, _ = documents.diff(changed(version=8, cells=cells, **former))
    assert code == 2
    placement = Placement(load_topology(tmp_path / "new")).former
    assert placement is not None
    assert placement.id == Placement(load_topology(tmp_path / "old")).id


def test_keys_move_within_the_ring_of_each_zone(documents: Documents) -> None:
    def zoned(**rings: str) -> dict[str, Any]:
        pool = {name: {"address": f"{name}:11211", "zone": name[0]} for name in ("a1", "a2", "b1")}
        return changed(version=8, regions={"eu": {"queue": "redis://q:1/0", "pool": pool, **rings}})

    code, said = documents.diff(zoned(rings="zone"), old={**zoned(), "version": 7})
    assert code == 2
    assert "Keys of eu zone a that change their memcached server" in said
    assert "b1 → a1" in said
    assert "Keys of eu zone b that change their memcached server" in said
    assert "a1 → a2" not in said
