"""`cachesvc audit` merges what the instances answer, and lets nothing of it lead a reader astray."""

import argparse
import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from cachesvc.commands import audit
from cachesvc.commands.access import Reach
from cachesvc.commands.command_line import parser, run
from cachesvc.commands.credential import Credential
from cachesvc.model.errors import ConfigError
from cachesvc.model.units import Duration

TOKEN = "a-token-of-an-operator"
ESC = "\x1b[2J\x1b[31m"


class FakeInstance:
    """An instance that has these records, and no other route but the topology."""

    def __init__(self, name: str, records: Sequence[dict[str, Any]], *, status: int = 200) -> None:
        self.name = name
        self.records = list(records)
        self.status = status
        self.saw: list[tuple[str, str]] = []
        """Path with query, and `Authorization`, of each request."""
        self.topology: dict[str, Any] = {}
        self.url = ""

    async def __aenter__(self) -> "FakeInstance":
        self._runner = web.ServerRunner(web.Server(self._handle))
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.saw.append((request.path_qs, request.headers.get("Authorization", "")))
        if request.path == "/v1/topology":
            return web.json_response(self.topology)
        if self.status != 200:
            return web.json_response({"detail": f"{ESC}no"}, status=self.status)
        page = {"region": "eu", "instance": self.name, "records": self.records, "dropped": 0, "left_out": 0}
        return web.json_response(page)


def record(number: int, at: int, **more: Any) -> dict[str, Any]:
    return {"number": number, "at": at, "what": "invalidate", "outcome": "done", **more}


async def asked(url: str, *, credential: Credential | None = None, **more: Any) -> int:
    """The exit code of the command with these options."""
    usual = {"topology": None, "namespace": "", "identity": "", "since": None, "limit": 50, "json": False}
    options = argparse.Namespace(urls=[url], follow=False, **(usual | more))
    return await audit._run(options, credential or Credential(), Reach())


def topology_of(*instances: FakeInstance) -> dict[str, Any]:
    named = {one.name: one.url for one in instances}
    return {"here": {"region": "eu", "instance": instances[0].name}, "regions": {"eu": {"instances": named}}}


async def test_records_of_all_instances_come_in_order_of_time(capsys: pytest.CaptureFixture[str]) -> None:
    first = [
        record(2, 3_000_000, identity="checkout", targets="2 keys"),
        record(1, 1_000_000, address="10.0.0.7"),
    ]
    second = [record(9, 2_000_000, what="refused", outcome="no-identity", operation="get", left_out=7)]
    async with FakeInstance("a", first) as one, FakeInstance("b", second) as other:
        one.topology = topology_of(one, other)
        assert await asked(one.url, limit=5, namespace="pages", since=Duration.parse("5m")) == 0
        assert ("/v1/audit?namespace=pages&since=300000000us&limit=5", "") in one.saw
        assert len(other.saw) == 1
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["time", "instance", "what", "identity"]
    assert [row.split()[:4] for row in rows] == [
        ["1970-01-01", "00:00:01.000", "eu/a", "invalidate"],
        ["1970-01-01", "00:00:02.000", "eu/b", "refused"],
        ["1970-01-01", "00:00:03.000", "eu/a", "invalidate"],
    ]
    assert "(7 more left out)" in rows[1]


async def test_an_instance_is_asked_at_its_operations_port(capsys: pytest.CaptureFixture[str]) -> None:
    async with FakeInstance("a", []) as data, FakeInstance("a", [record(1, 1)]) as operations:
        shown = topology_of(data)
        shown["regions"]["eu"]["operations"] = {"a": operations.url}
        data.topology = operations.topology = shown
        assert await asked(data.url) == 0
        assert [path.partition("?")[0] for path, _ in data.saw] == ["/v1/topology"]
    assert "eu/a" in capsys.readouterr().out


async def test_nothing_that_an_instance_says_reaches_the_terminal_as_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    hostile = f"{ESC}a\nb\r\u202ec\u2066d\u200b[bold]e"
    texts = ("identity", "address", "says", "namespace", "operation", "targets", "how", "receipt", "outcome")
    records = [record(1, 1) | dict.fromkeys(texts, hostile)]
    async with FakeInstance(hostile, records) as one, FakeInstance("b", [], status=503) as other:
        one.topology = topology_of(one, other)
        for is_json in (False, True):
            assert await asked(one.url, json=is_json) == 0
            told = capsys.readouterr()
            for text in (told.out, told.err):
                assert all(character.isprintable() or character == "\n" for character in text)
            lines = told.out.splitlines()
            if is_json:
                assert len(lines) == 1
                assert json.loads(lines[0])["says"].startswith("\\x1b[2J")
            else:
                assert "[bold]e" in told.out
                assert "…" not in told.out


@pytest.mark.parametrize(("status", "exit_code"), [(503, 1), (403, 2), (404, 2)])
async def test_without_an_answer_the_exit_code_says_so(
    status: int, exit_code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    async with FakeInstance("a", [], status=status) as one:
        one.topology = topology_of(one)
        assert await asked(one.url) == exit_code
    assert capsys.readouterr().err == f"cachesvc: a: {status}: \\x1b[2J\\x1b[31mno\n"


async def test_the_token_is_shown_and_no_error_tells_it(capsys: pytest.CaptureFixture[str]) -> None:
    credential = Credential(TOKEN)
    async with FakeInstance("a", [], status=401) as one:
        one.topology = topology_of(one)
        await asked(one.url, credential=credential)
        assert {authorization for _, authorization in one.saw} == {f"Bearer {TOKEN}"}
    told = capsys.readouterr()
    assert TOKEN not in told.out + told.err + repr(credential)


def test_a_token_file_is_read_again_and_one_that_is_gone_keeps_its_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cachesvc.commands.credential.LOOK_SECONDS", 0.0)
    file = tmp_path / "token"
    file.write_text("old")
    credential = Credential(file=file)

    def looked() -> dict[str, str]:
        asyncio.run(credential.look())
        return credential.lines()

    assert looked() == {"Authorization": "Bearer old"}
    file.write_text("new\n")
    assert looked() == {"Authorization": "Bearer new"}
    file.unlink()
    assert looked() == {"Authorization": "Bearer new"}


@pytest.mark.parametrize("text", ["", "  \n", f"{TOKEN} x", f"{TOKEN}\nX-Evil: 1", "é"])
def test_a_file_without_a_token_is_a_mistake(tmp_path: Path, text: str) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    with pytest.raises(ConfigError, match="--token-file") as raised:
        Credential(file=file)
    assert TOKEN not in str(raised.value)


def test_the_token_comes_from_the_file_else_from_the_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = {"CACHESVC_TOKEN": TOKEN, "CACHESVC_TOKEN_FILE": str(tmp_path / "none")}
    assert run(["audit"], environ) == 2
    assert "--token-file: " in capsys.readouterr().err
    for command in (["audit"], ["top"], ["check"], ["explain", "pages", "k"]):
        found = parser({"CACHESVC_TOKEN": TOKEN}).parse_args(command)
        assert (found.bearer, found.token_file) == (TOKEN, None)
    assert run(["audit", "--limit", "0"], {}) == 2
    assert run(["audit", "--since", "0s"], {}) == 2
