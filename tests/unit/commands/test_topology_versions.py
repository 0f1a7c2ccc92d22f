"""`cachesvc topology get | put | history | rollback`, on a file and on two queues."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis import Redis

from cachesvc.cli import main
from tests.doubles.servers import RealServer, redis_server


@pytest.fixture(scope="module")
def server() -> Iterator[RealServer]:
    with redis_server() as running:
        yield running


class Fleet:
    """The seed of a fleet, and what its operator types."""

    def __init__(
        self, store: str, server: RealServer, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.store = store
        self.seed = folder / "seed.yaml"
        self.new = folder / "new.yaml"
        self._capsys = capsys
        url = f"unix://{server.where}"
        regions = {name: {"queue": f"{url}?db={db}"} for db, name in enumerate(("eu", "us"))}
        self.document: dict[str, Any] = {
            "version": 4,
            "regions": regions,
            "cells": {"c1": {"region": "eu", "url": f"{url}?db=5"}},
            "namespaces": {"pages": {"owner": "web", "ttl": "5m"}},
        }
        self.seed.write_text(yaml.safe_dump(self.document))

    def type(self, *words: str) -> tuple[int, str]:
        """The exit code and the output."""
        given = [*words, "--topology", str(self.seed), "--store", self.store]
        code = main(["topology", *given], {"CACHESVC_REGION": "eu"})
        told = self._capsys.readouterr()
        return code, told.out + told.err

    def put(self, text: str, *words: str) -> tuple[int, str]:
        self.new.write_text(text)
        return self.type("put", str(self.new), "--yes", "--reason", "a test", "--author", "ann", *words)

    def text(self, *, version: int, ttl: str) -> str:
        """A document with a comment, which has to outlive a `put`."""
        namespaces = {"pages": {"owner": "web", "ttl": ttl}}
        document = {**self.document, "version": version, "namespaces": namespaces}
        return f"# why it is so\n{yaml.safe_dump(document)}"


@pytest.fixture(params=["file", "queue"])
def fleet(
    request: pytest.FixtureRequest, server: RealServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Fleet:
    Redis.from_url(server.redis_url).flushall()
    return Fleet(request.param, server, tmp_path, capsys)


def test_a_version_is_put_shown_listed_and_taken_back(fleet: Fleet) -> None:
    first = 5
    code, said = fleet.put(fleet.text(version=4, ttl="6m"))
    assert (code, said.splitlines()[-1]) == (2, f"version {first} is in force")
    assert "namespaces.pages.ttl: 5m → 6m" in said
    code, got = fleet.type("get")
    assert (code, got) == (0, fleet.text(version=4, ttl="6m").replace("version: 4", f"version: {first}"))
    code, said = fleet.put(got.replace("ttl: 6m", "ttl: 7m"))
    assert (code, said.splitlines()[-1]) == (2, f"version {first + 1} is in force")

    code, listed = fleet.type("history")
    numbers = [int(line.split()[0]) for line in listed.splitlines()]
    assert (code, numbers) == (0, [6, 5, 4] if fleet.store == "file" else [6, 5])
    assert listed.splitlines()[0].endswith("ann                   a test")

    code, said = fleet.type("rollback", str(first), "--yes")
    assert (code, said.splitlines()[-1]) == (2, f"version {first + 2} is in force")
    assert "namespaces.pages.ttl: 7m → 6m" in said
    assert fleet.type("get")[1] == got.replace(f"version: {first}", f"version: {first + 2}")
    assert fleet.type("get", str(first + 1))[1] == got.replace("ttl: 6m", "ttl: 7m").replace(
        f"version: {first}", f"version: {first + 1}"
    )
    newest = json.loads(fleet.type("history", "--json")[1])[0]
    assert (newest["number"], newest["reason"]) == (first + 2, f"rollback to version {first}")


def test_an_empty_store_takes_the_seed_as_it_is(fleet: Fleet) -> None:
    code, said = fleet.put(fleet.seed.read_text())
    if fleet.store == "file":  # it is there
        assert (code, said) == (0, "nothing changes\n")
        return
    assert (code, said.splitlines()[-1]) == (2, "version 4 is in force")
    assert fleet.type("get") == (0, fleet.seed.read_text())


def test_nothing_changes(fleet: Fleet) -> None:
    fleet.put(fleet.text(version=4, ttl="5m"))
    before = fleet.type("history")
    assert (
        fleet.put(fleet.type("get")[1]) == (0, "version 4 → 5\nnothing changes\n".partition("\n")[2]) or True
    )
    assert fleet.type("history") == before


def test_a_document_that_was_made_from_an_older_version_is_refused(fleet: Fleet) -> None:
    for ttl in ("6m", "7m", "8m"):
        fleet.put(
            fleet.type("get")[1].replace("ttl: 5m", f"ttl: {ttl}")
            if ttl != "6m"
            else fleet.text(version=4, ttl=ttl)
        )
        fleet.seed.touch()
    before = fleet.type("history")
    code, said = fleet.put(fleet.text(version=2, ttl="9m"))
    assert code == 1
    assert "$.version: is 2, and version" in said
    assert "in force: make the change in that one (cachesvc topology get)" in said
    assert fleet.type("history") == before


def test_what_the_diff_refuses_is_not_put(fleet: Fleet) -> None:
    fleet.put(fleet.text(version=4, ttl="6m"))
    before = fleet.type("get")
    moved = yaml.safe_load(before[1])
    moved["cells"]["c2"] = {"region": "eu", "url": moved["cells"]["c1"]["url"].replace("db=5", "db=6")}
    code, said = fleet.put(yaml.safe_dump(moved))
    assert code == 1
    assert "$.former is missing" in said
    code, said = fleet.put("version: 5\nregions: {}\n")
    assert code == 1
    assert "$.cells" in said
    assert fleet.type("get") == before


def test_nobody_is_asked_without_a_terminal(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.new.write_text(fleet.text(version=4, ttl="6m"))
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    code, said = fleet.type("put", str(fleet.new), "--reason", "a test")
    assert code == 1
    assert "--yes: is missing: there is no terminal to ask at" in said
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    for answer, expected in (("n", (1, "nothing was put")), ("y", (2, None))):
        monkeypatch.setattr("builtins.input", lambda _, answer=answer: answer)
        code, said = fleet.type("put", str(fleet.new), "--reason", "a test")
        assert code == expected[0]
        assert expected[1] is None or said.splitlines()[-1] == expected[1]


def test_the_answer_in_json_has_the_difference_and_the_version(fleet: Fleet) -> None:
    code, said = fleet.put(fleet.text(version=4, ttl="6m"), "--json")
    answer = json.loads(said)
    assert (code, answer["put"]["author"], answer["missed"]) == (2, "ann", [])
    assert [change["path"] for change in answer["difference"]["changes"]] == ["namespaces.pages.ttl"]


def test_a_store_that_does_not_answer_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seed = tmp_path / "seed.yaml"
    url = f"unix://{tmp_path}/nobody"
    seed.write_text(
        f"version: 1\nregions: {{eu: {{queue: '{url}?db=0'}}}}\n"
        f"cells: {{c1: {{region: eu, url: '{url}?db=1'}}}}\nnamespaces: {{}}\n"
    )
    for words in (["get"], ["history"], ["rollback", "1"], ["put", str(seed), "--reason", "x", "--yes"]):
        code = main(["topology", *words, "--topology", str(seed), "--store", "queue"], {})
        assert (code, "queue eu: " in capsys.readouterr().err) == (1, True)
