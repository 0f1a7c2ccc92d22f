"""The noisy neighbour's requests: when they are made, which answers are counted, and the rows of the record."""

import asyncio
from itertools import count
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from loadtests.load.faults import Neighbour
from loadtests.load.judge_rows import NeighbourRow, read_rows
from loadtests.load.neighbour import Callers, Rows, answer_of
from loadtests.origin import ReferenceOrigin


@pytest.mark.parametrize(
    ("status", "body", "named"),
    [
        (200, b"anything", "200"),
        (503, b'{"type": "https://example.org/problems/origin-budget"}', "503 origin-budget"),
        (502, b"<html>", "502"),
    ],
)
def test_an_answer_is_named_by_status_and_problem(status: int, body: bytes, named: str) -> None:
    assert answer_of(status, body) == named


def test_rows_are_written_once_their_second_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = Rows(path, "noisy")
    rows.at(10.2).due += 1
    rows.at(11.0).due += 5
    rows.write(11.9)
    assert read_rows(path, NeighbourRow) == [NeighbourRow(10, "noisy", due=1)]
    rows.close()
    assert [row.due for row in read_rows(path, NeighbourRow)] == [1, 5]


@pytest.mark.parametrize("keys_each", [1, 3])
async def test_requests_come_whether_answered_or_not(tmp_path: Path, keys_each: int) -> None:
    asked: list[list[str]] = []
    over = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        body = await request.read()
        asked.append(msgspec.msgpack.decode(body)["keys"] if body else [request.path.rpartition("/")[2]])
        if len(asked) == 5:
            over.set()
        await asyncio.Event().wait()  # nothing is ever answered
        return web.Response()

    app = web.Application()
    app.router.add_route("*", "/v1/{rest:.*}", answer)
    rows = Rows(tmp_path / "rows.jsonl", "noisy")
    keys = (f"new-{number}" for number in count())
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        url = str(server.make_url("/v1/noisy"))
        await Callers(session, url, keys, keys_each, rows).ask(500, over)
    rows.close()
    assert len(asked) >= 5
    assert sorted(key for each in asked for key in each)[:1] == ["new-0"]
    assert all(len(each) == keys_each for each in asked)
    assert sum(row.due - row.skipped for row in read_rows(tmp_path / "rows.jsonl", NeighbourRow)) >= 5


def test_the_process_is_told_what_the_scenario_says() -> None:
    noise = Neighbour("origin flood", "noisy", "scan:100", 400.0, prefix="new-")
    words = noise.command(["http://127.0.0.1:1"], Path("rows.jsonl"))
    assert words[1:3] == ["-m", "loadtests.load.neighbour"]
    assert {"--namespace=noisy", "--rate=400", "--keys=scan:100", "--prefix=new-", "--keys-each=1"} <= {
        *words
    }


async def test_the_origin_counts_loads_by_the_namespace_that_they_name() -> None:
    origin = ReferenceOrigin()
    await origin.start()
    async with aiohttp.ClientSession() as session:
        for query in ("", "?for=noisy", "?for=noisy"):
            async with session.get(f"{origin.url}/docs/a{query}") as answer:
                assert answer.status == 200
    await origin.stop()
    assert (origin.stats().loads, origin.stats().by_namespace) == (3, {"noisy": 2})
