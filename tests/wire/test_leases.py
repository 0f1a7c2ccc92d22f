"""Leases of answers that do not arrive, and of refused fills, go back."""

import asyncio
import json

import pytest
from msgspec.structs import replace

from cachesvc.model.requests import Answer, Outcome
from tests.doubles.waiting import until
from tests.wire.conftest import Site, read_response

LEASING = {"Prefer": "lease"}


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        (b"GET /v1/pages/k HTTP/1.1\r\nHost: x\r\nPrefer: lease\r\n\r\n", ["k"]),
        (
            b"POST /v1/pages:get HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b'Content-Length: 34\r\n\r\n{"keys": ["k", "l"], "lease":true}',
            ["k", "l"],
        ),
    ],
    ids=["one", "many"],
)
async def test_the_lease_of_an_answer_that_finds_its_caller_gone_goes_back(
    site: Site, sent: bytes, keys: list[str]
) -> None:
    site.reader.hangs = asyncio.Event()
    _, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(sent)
    await site.reader.asked.wait()
    writer.transport.abort()
    await asyncio.sleep(0.05)
    site.reader.hangs.set()
    await until("given back", lambda: len(site.reader.given_back) >= len(keys))
    assert site.reader.given_back == [(key, "nonce:17") for key in keys]


async def test_the_lease_of_an_answer_that_arrives_stays(site: Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(b"GET /v1/pages/k HTTP/1.1\r\nHost: x\r\nPrefer: lease\r\n\r\n")
    assert (await read_response(reader, "GET")).headers["cachesvc-lease"] == "nonce:17"
    writer.close()
    await asyncio.sleep(0.05)
    assert site.reader.given_back == []


async def test_the_lease_of_a_stale_value_that_a_condition_refuses_goes_back(site: Site) -> None:
    site.reader.answers["k"] = Answer(Outcome.STALE, site.hold("k"), "l3", lease="n:1")
    del site.reader.l1["k"]
    response = await site.ask("GET", "/v1/pages/k", {**LEASING, "If-Match": '"other"'})
    assert (response.status, "cachesvc-lease" in response.headers) == (412, False)
    assert site.reader.given_back == [("k", "n:1")]


async def test_a_miss_says_that_nobody_needs_to_wait(site: Site) -> None:
    site.reader.answers["k"] = Answer(Outcome.MISS, unkept=True)
    response = await site.ask("GET", "/v1/pages/k", LEASING)
    assert (response.status, response.headers["cachesvc-unkept"]) == (404, "1")
    body = json.dumps({"keys": ["k"], "lease": True}).encode()
    response = await site.ask("POST", "/v1/pages:get", {"Content-Type": "application/json"}, body)
    assert json.loads(response.body)["results"] == [{"outcome": "miss", "unkept": True}]


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({}, b"v" * 1001, 413),
        ({}, b"v" * 4001, 413),
        ({"Cache-Groups": '"a", "b", "c"'}, b"v", 400),
        ({"Content-Encoding": "gzip"}, b"v", 415),
    ],
)
async def test_a_fill_that_is_refused_gives_its_lease_back(
    site: Site, headers: dict[str, str], body: bytes, status: int
) -> None:
    response = await site.ask("PUT", "/v1/pages/k", {"Cachesvc-Lease": "n:1", **headers}, body)
    assert response.status == status
    assert (site.writer.released, site.writer.saw) == ([("k", "n:1", "unkept")], [])


async def test_a_refused_fill_of_a_batch_gives_its_lease_back_and_its_neighbours_are_stored(
    site: Site,
) -> None:
    items = [
        {"key": "a", "value": "", "lease": "n:1"},
        {"key": "large", "value": "eHh4" * 400, "lease": "n:2"},
        {"key": "alone", "value": "eHh4" * 400},
        {"key": "gone", "lease": "n:3", "release": "failed"},
    ]
    response = await site.ask(
        "POST", "/v1/pages:put", {"Content-Type": "application/json"}, json.dumps({"items": items}).encode()
    )
    results = json.loads(response.body)["results"]
    assert [result["outcome"] for result in results] == ["stored", "error", "error", "released"]
    assert site.writer.released == [("large", "n:2", "unkept"), ("gone", "n:3", "failed")]
    assert [key.text for key, _ in site.writer.saw] == ["a"]


async def test_a_caller_gives_a_lease_back(site: Site) -> None:
    headers = {"Cachesvc-Lease": "n:1", "Cachesvc-Release": "failed"}
    response = await site.ask("POST", "/v1/pages/k", headers)
    assert (response.status, response.body) == (204, b"")
    assert site.writer.released == [("k", "n:1", "failed")]


async def test_a_caller_that_loads_is_told_that_a_value_is_due_early(site: Site) -> None:
    """Only one that asks for leases: another could not act on it."""
    site.reader.l1["k"] = replace(site.hold("k"), load_ms=250)
    site.hold("l")
    told = [
        [result.get("early", False) for result in await _got(site, lease=lease)] for lease in (True, False)
    ]
    assert told == [[True, False], [False, False]]


async def _got(site: Site, *, lease: bool) -> list[dict[str, object]]:
    body = json.dumps({"keys": ["k", "l"], "lease": lease}).encode()
    answer = await site.ask("POST", "/v1/pages:get", {"Content-Type": "application/json"}, body)
    results: list[dict[str, object]] = json.loads(answer.body)["results"]
    return results
