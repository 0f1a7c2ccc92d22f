"""PUT and DELETE of a key."""

import asyncio
import json
from typing import Any

import pytest

from cachesvc.model.change import Change
from cachesvc.model.clock import SECONDS
from cachesvc.model.entry import Key
from cachesvc.model.errors import RequestError
from cachesvc.model.etag import etag
from cachesvc.model.problems import ProblemKind
from cachesvc.model.requests import Draft, Written
from cachesvc.web.requests.tokens import read_token, write_token
from tests.wire.conftest import Response, Site


def kind(response: Response) -> str:
    problem: dict[str, Any] = json.loads(response.body)
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["status"] == response.status
    return str(problem["type"]).removeprefix("https://cachesvc.dev/problems/")


async def test_put_stores_the_body_with_what_the_headers_say(site: Site) -> None:
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "Cache-Control": "max-age=30, stale-while-revalidate=5, stale-if-error=7",
        "Cache-Groups": '"a", "b"',
    }
    response = await site.ask("PUT", "/v1/pages/k", headers, b"{}")
    draft = Draft(b"{}", headers["Content-Type"], ("a", "b"), 30 * SECONDS, 5 * SECONDS, 7 * SECONDS)
    assert site.writer.saw == [(Key.of("pages", "k"), draft)]
    assert (response.status, response.body, response.headers["etag"]) == (204, b"", etag(site.reader.l1["k"]))
    token = read_token(response.headers["cachesvc-token"], "")
    assert token == ((Key.of("pages", "k").digest, site.clock.now_us()),)


async def test_what_was_put_is_read(site: Site) -> None:
    await site.ask("PUT", "/v1/pages/k", {}, b"\x00\xff")
    assert (await site.ask("GET", "/v1/pages/k")).body == b"\x00\xff"


async def test_an_empty_value_is_a_value(site: Site) -> None:
    assert (await site.ask("PUT", "/v1/pages/k")).status == 204
    response = await site.ask("GET", "/v1/pages/k")
    assert (response.status, response.headers["content-length"]) == (200, "0")


@pytest.mark.parametrize(
    ("headers", "draft"),
    [
        ({"If-None-Match": "*"}, Draft(b"v", if_absent=True)),
        ({"If-Match": '"a", "b"'}, Draft(b"v", if_match=('"a"', '"b"'))),
        ({"Cachesvc-Lease": "n:1"}, Draft(b"v", lease="n:1")),
        (
            {"Cachesvc-Lease": "n:1", "Cachesvc-Source-Lag": "300ms"},
            Draft(b"v", lease="n:1", source_lag_us=300_000),
        ),
        ({"Cachesvc-Source-Lag": "0s"}, Draft(b"v")),
    ],
)
async def test_conditions_and_leases_reach_the_write_path(
    site: Site, headers: dict[str, str], draft: Draft
) -> None:
    await site.ask("PUT", "/v1/pages/k", headers, b"v")
    assert site.writer.saw[0][1] == draft


@pytest.mark.parametrize(
    ("reason", "status", "name"),
    [("fenced", 409, "fenced"), ("lapsed", 409, "fenced"), ("precondition", 412, "precondition-failed")],
)
async def test_what_was_not_stored_is_said_why(site: Site, reason: str, status: int, name: str) -> None:
    site.writer.outcomes["k"] = Written(False, reason)
    response = await site.ask("PUT", "/v1/pages/k", {}, b"v")
    assert (response.status, kind(response)) == (status, name)


async def test_a_put_that_cannot_be_announced_yet_is_a_202_with_a_receipt(site: Site) -> None:
    site.writer.outcomes["k"] = Written(True, token=((1, 2),), unannounced="local:1-2")
    response = await site.ask("PUT", "/v1/pages/k", {}, b"v")
    receipt = json.loads(response.body)
    assert (response.status, response.headers["cachesvc-token"]) == (202, receipt["token"])
    assert (receipt["id"], receipt["announced"], receipt["reached"]) == ("local:1-2", False, False)
    body = json.dumps({"items": [{"key": "k", "value": "dg=="}]}).encode()
    response = await site.ask("POST", "/v1/pages:put", {"Content-Type": "application/json"}, body)
    assert json.loads(response.body)["results"] == [{"outcome": "stored", "unannounced": "local:1-2"}]


async def test_a_write_that_fails_passes_on_its_token_and_retry_after(site: Site) -> None:
    site.writer.fails_with = RequestError(ProblemKind.QUEUE_UNAVAILABLE, "no", token=((1, 2),))
    response = await site.ask("PUT", "/v1/pages/k", {}, b"v")
    assert (response.status, response.headers["retry-after"], response.headers["cachesvc-token"]) == (
        503,
        "1",
        write_token(((1, 2),)),
    )


@pytest.mark.parametrize(
    ("headers", "status", "name", "field"),
    [
        ({"If-Match": '"a"', "If-None-Match": "*"}, 400, "contradiction", "If-Match"),
        ({"Cachesvc-Lease": "n:1", "If-Match": '"a"'}, 400, "contradiction", "Cachesvc-Lease"),
        ({"Cachesvc-Lease": "n:1", "If-None-Match": "*"}, 400, "contradiction", "Cachesvc-Lease"),
        ({"If-None-Match": '"a"'}, 400, "bad-header", "If-None-Match"),
        ({"If-Match": "a"}, 400, "bad-header", "If-Match"),
        ({"If-Match": ""}, 400, "bad-header", "If-Match"),
        ({"Cache-Control": "max-age=soon"}, 400, "bad-cache-control", "Cache-Control"),
        ({"Cache-Control": "no-store"}, 400, "bad-cache-control", "Cache-Control"),
        ({"Cache-Groups": "a"}, 400, "bad-tag", "Cache-Groups"),
        ({"Cache-Groups": '"a", "b", "c"'}, 400, "bad-tag", "Cache-Groups"),
        ({"Content-Type": "nonsense"}, 400, "bad-header", "Content-Type"),
        ({"Content-Range": "bytes 0-1/2"}, 400, "bad-header", "Content-Range"),
        ({"Cachesvc-Lease": "x" * 257}, 400, "bad-lease", "Cachesvc-Lease"),
        ({"Cachesvc-Timeout": "soon"}, 400, "bad-header", "Cachesvc-Timeout"),
        ({"Cachesvc-Timeout": "0s"}, 400, "bad-header", "Cachesvc-Timeout"),
        ({"Content-Encoding": "gzip"}, 415, "content-encoding", "Content-Encoding"),
        ({"Expect": "a-miracle"}, 417, "expectation", "Expect"),
    ],
)
async def test_a_header_out_of_rule_is_named_and_nothing_is_stored(
    site: Site, headers: dict[str, str], status: int, name: str, field: str
) -> None:
    response = await site.ask("PUT", "/v1/pages/k", headers, b"v")
    assert (response.status, kind(response), json.loads(response.body)["field"]) == (status, name, field)
    assert site.writer.saw == []


async def test_a_value_above_the_namespaces_limit_is_refused_and_one_at_it_is_not(site: Site) -> None:
    assert (await site.ask("PUT", "/v1/pages/k", {}, b"x" * 1000)).status == 204
    response = await site.ask("PUT", "/v1/pages/k", {}, b"x" * 1001)
    assert (response.status, kind(response), len(site.writer.saw)) == (413, "value-too-large", 1)


async def test_a_write_over_its_callers_time_is_a_504(site: Site) -> None:
    site.writer.hangs = asyncio.Event()
    response = await site.ask("PUT", "/v1/pages/k", {"Cachesvc-Timeout": "10ms"}, b"v")
    assert (response.status, kind(response)) == (504, "deadline")


async def test_delete_invalidates_the_key_and_answers_a_receipt(site: Site) -> None:
    site.hold("a/b")
    response = await site.ask("DELETE", "/v1/pages/a%2Fb")
    assert site.invalidator.saw == [Change("pages", keys=("a/b",))]
    receipt = json.loads(response.body)
    assert (response.status, receipt["applied"], receipt["token"]) == (
        200,
        True,
        response.headers["cachesvc-token"],
    )
    assert receipt["id"].startswith("local:")
    assert (await site.ask("GET", "/v1/pages/a%2Fb")).status == 404


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match", "Cachesvc-Lease"])
async def test_delete_has_no_conditions(site: Site, header: str) -> None:
    assert kind(await site.ask("DELETE", "/v1/pages/k", {header: "*"})) == "contradiction"
    assert site.invalidator.saw == []


async def test_an_invalidation_that_waits_for_its_home_cell_says_so(site: Site) -> None:
    site.invalidator.applied = False
    assert json.loads((await site.ask("DELETE", "/v1/pages/k")).body)["applied"] is False
    assert site.metrics.counts.requests["pages", "delete", "pending"] == 1


async def test_a_change_that_the_queue_cannot_take_promises_nothing(site: Site) -> None:
    site.invalidator.fails_with = RequestError(ProblemKind.QUEUE_UNAVAILABLE, "nothing was promised")
    response = await site.ask("DELETE", "/v1/pages/k")
    assert (response.status, kind(response)) == (503, "queue-unavailable")
