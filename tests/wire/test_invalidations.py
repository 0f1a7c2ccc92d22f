"""POST /v1/invalidations: what is asked, what is refused; receipts, at once and later."""

import asyncio
import json
from typing import Any

import msgspec
import pytest

from cachesvc.model.change import Change
from cachesvc.model.errors import RequestError
from cachesvc.model.problems import ProblemKind
from cachesvc.model.requests import Author, InvalidateOptions, Reach, ReceiptState
from cachesvc.web.requests.tokens import read_token
from tests.wire.conftest import Response, Site

CHANGE = {"namespace": "pages", "keys": ["a"], "tags": ["t"], "all": False, "soft": True}
EVENT = {
    "specversion": "1.0",
    "type": "dev.cachesvc.change.v1",
    "id": "1",
    "source": "/db",
    "subject": "x",
    "data": CHANGE,
}
JSON = {"Content-Type": "application/json"}
EVENTS = {"Content-Type": "application/cloudevents+json"}


def kind(response: Response) -> str:
    return str(json.loads(response.body)["type"]).removeprefix("https://cachesvc.dev/problems/")


async def invalidate(site: Site, headers: dict[str, str] | None = None, **change: object) -> Response:
    body = json.dumps({"namespace": "pages", **change}).encode()
    return await site.ask("POST", "/v1/invalidations", {**JSON, **(headers or {})}, body)


@pytest.mark.parametrize(
    ("media", "body"),
    [
        ("application/json", json.dumps(CHANGE).encode()),
        ("application/json; charset=utf-8", json.dumps(CHANGE).encode()),
        ("application/msgpack", msgspec.msgpack.encode(CHANGE)),
        ("application/cloudevents+json", json.dumps(EVENT).encode()),
    ],
)
async def test_a_change_is_taken_plain_or_as_a_cloud_event(site: Site, media: str, body: bytes) -> None:
    response = await site.ask("POST", "/v1/invalidations", {"Content-Type": media}, body)
    assert site.invalidator.saw == [Change("pages", ("a",), ("t",), soft=True)]
    assert response.status == 200
    assert len(read_token(json.loads(response.body)["token"], "")) == 2


@pytest.mark.parametrize(
    ("change", "status", "name", "field"),
    [
        ({"namespace": "pages", "wait": "soon", "keys": ["a"]}, 400, "invalid-body", "$.wait"),
        ({"keys": ["a"]}, 400, "invalid-body", "$.namespace"),
        ({"namespace": "pages", "keys": "a"}, 400, "invalid-body", "$.keys"),
        ({"namespace": "page", "keys": ["a"]}, 404, "no-such-namespace", "$.namespace"),
        ({"namespace": "pages"}, 400, "no-target", "$"),
        ({"namespace": "pages", "keys": ["a", ""]}, 400, "bad-key", "$.keys[1]"),
        ({"namespace": "pages", "tags": ["a", "\n"]}, 400, "bad-tag", "$.tags[1]"),
        ({"namespace": "pages", "keys": ["a"] * 3, "tags": ["a"] * 3}, 413, "too-many-keys", "$"),
    ],
)
async def test_a_change_out_of_rule_is_refused_naming_the_field(
    site: Site, change: dict[str, object], status: int, name: str, field: str
) -> None:
    for media, prefix, body in (
        ("application/json", "$", change),
        ("application/cloudevents+json", "$.data", {**EVENT, "data": change}),
    ):
        response = await site.ask(
            "POST", "/v1/invalidations", {"Content-Type": media}, json.dumps(body).encode()
        )
        wanted = field.replace("$", prefix, 1)
        assert (response.status, kind(response), json.loads(response.body)["field"]) == (status, name, wanted)
    assert site.invalidator.saw == []


@pytest.mark.parametrize("wrong", [{"specversion": "0.3"}, {"type": "something.else"}, {"id": ""}])
async def test_an_event_of_another_kind_is_refused(site: Site, wrong: dict[str, str]) -> None:
    body = json.dumps({**EVENT, **wrong}).encode()
    response = await site.ask("POST", "/v1/invalidations", EVENTS, body)
    assert (response.status, json.loads(response.body)["field"]) == (400, f"$.{next(iter(wrong))}")


async def test_a_receipt_says_how_far_it_got(site: Site) -> None:
    response = await invalidate(site, keys=["a"])
    at = site.clock.now_us()
    receipt = json.loads(response.body)
    assert receipt == {
        "id": f"local:{at}-0",
        "token": response.headers["cachesvc-token"],
        "applied": True,
        "position": f"{at}-1",
        "wait": "none",
        "reached": True,
        "missing": [],
    }


async def test_a_receipt_says_that_it_is_not_announced(site: Site) -> None:
    site.invalidator.announced = False
    response = await invalidate(site, keys=["a"])
    receipt = json.loads(response.body)
    assert (response.status, receipt["announced"], receipt["reached"], receipt["position"]) == (
        202,
        False,
        False,
        "",
    )


@pytest.mark.parametrize(
    ("missing", "status", "counted"), [((), 200, "applied"), (("eu/a", "us/b"), 202, "unreached")]
)
async def test_who_waits_is_told_whether_everybody_is_there(
    site: Site, missing: tuple[str, ...], status: int, counted: str
) -> None:
    site.invalidator.missing = missing
    response = await invalidate(site, {"Cachesvc-Timeout": "250ms"}, keys=["a"], wait="global")
    receipt = json.loads(response.body)
    assert (response.status, receipt["wait"], receipt["reached"]) == (status, "global", not missing)
    assert receipt["missing"] == list(missing)
    assert site.invalidator.saw_options == [InvalidateOptions(Reach.GLOBAL, 0.25, Author("", "127.0.0.1"))]
    assert site.metrics.counts.requests["", "invalidate", counted] == 1


@pytest.mark.parametrize(("header", "seconds"), [(None, 4.5), ("100ms", 0.1), ("1h", 4.5)])
async def test_a_wait_ends_before_the_request_timeout_does(
    site: Site, header: str | None, seconds: float
) -> None:
    """Which is 5 s here: the receipt has to come before the 504."""
    await invalidate(site, {"Cachesvc-Timeout": header} if header else {}, keys=["a"], wait="region")
    assert site.invalidator.saw_options[0].timeout_seconds == seconds


async def test_without_a_wait_the_callers_time_is_the_calls_limit(site: Site) -> None:
    site.invalidator.hangs = asyncio.Event()
    response = await invalidate(site, {"Cachesvc-Timeout": "10ms"}, keys=["a"])
    assert (response.status, kind(response)) == (504, "deadline")


async def test_a_purge_of_everything_needs_the_namespace_once_more(site: Site) -> None:
    for confirm in ("", "users", "page"):
        response = await invalidate(site, all=True, confirm=confirm)
        problem = json.loads(response.body)
        assert (response.status, kind(response), problem["field"]) == (400, "confirm-needed", "$.confirm")
        assert '"confirm": "pages"' in problem["detail"]
    assert site.invalidator.saw == []
    assert (await invalidate(site, all=True, confirm="pages")).status == 200
    assert site.invalidator.saw == [Change("pages", all=True)]


async def test_a_confirmation_is_needed_in_an_event_too(site: Site) -> None:
    body = json.dumps({**EVENT, "data": {"namespace": "pages", "all": True}}).encode()
    response = await site.ask("POST", "/v1/invalidations", EVENTS, body)
    assert (kind(response), json.loads(response.body)["field"]) == ("confirm-needed", "$.data.confirm")


@pytest.mark.parametrize("wait", ["none", "region"])
async def test_a_purge_may_be_paced(site: Site, wait: str) -> None:
    await invalidate(site, tags=["t"], over="5m", wait=wait)
    assert site.invalidator.saw == [Change("pages", tags=("t",), over="5m")]
    assert site.invalidator.saw_options[0].wait == Reach(wait)


@pytest.mark.parametrize("over", ["5", "soon", "0s", "61m", "-1s", "9" * 31 + "d"])
async def test_a_pace_is_a_duration_that_fences_are_kept_for(site: Site, over: str) -> None:
    response = await invalidate(site, keys=["a"], over=over)
    assert (response.status, kind(response), json.loads(response.body)["field"]) == (
        400,
        "invalid-body",
        "$.over",
    )
    assert site.invalidator.saw == []


async def test_a_dry_run_says_what_it_would_touch_and_changes_nothing(site: Site) -> None:
    """It needs no confirmation: it is what one does before."""
    site.hold("a")
    response = await invalidate(site, all=True, dry_run=True)
    assert json.loads(response.body) == {
        "l1_entries": 1,
        "recent_reads": 0.25,
        "sampled": 1000,
        "cells": ["c1"],
    }
    assert (site.invalidator.estimated, site.invalidator.saw) == ([Change("pages", all=True)], [])


async def test_a_dry_run_has_nothing_to_wait_for(site: Site) -> None:
    response = await invalidate(site, keys=["a"], dry_run=True, wait="region")
    assert (response.status, kind(response), json.loads(response.body)["field"]) == (
        400,
        "contradiction",
        "$.wait",
    )


# who ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({}, ""),
        ({"Cachesvc-Caller": "checkout (web-7)"}, "checkout (web-7)"),
        ({"Cachesvc-Caller": "x" * 128}, "x" * 128),
    ],
)
async def test_the_audit_has_the_callers_address_and_the_name_that_it_says(
    site: Site, headers: dict[str, str], says: str
) -> None:
    author = Author("", "127.0.0.1", says)
    await invalidate(site, headers, keys=["a"])
    await site.ask("DELETE", "/v1/pages/a", headers)
    assert [options.author for options in site.invalidator.saw_options] == [author, author]
    assert site.invalidator.saw_options[1] == InvalidateOptions(author=author), "a DELETE waits for nobody"


@pytest.mark.parametrize(
    ("headers", "source", "says"),
    [({}, "/db", "/db"), ({}, "s" * 200, "s" * 128), ({"Cachesvc-Caller": "me"}, "/db", "me")],
)
async def test_an_event_says_its_source(site: Site, headers: dict[str, str], source: str, says: str) -> None:
    await site.ask(
        "POST", "/v1/invalidations", {**EVENTS, **headers}, json.dumps({**EVENT, "source": source}).encode()
    )
    assert [options.author.says for options in site.invalidator.saw_options] == [says]


@pytest.mark.parametrize("name", ["", "x" * 129, "a\tb", "a\u200bb", "\udce4"])
async def test_a_callers_name_out_of_rule_is_refused(site: Site, name: str) -> None:
    for response in (
        await invalidate(site, {"Cachesvc-Caller": name}, keys=["a"]),
        await site.ask("DELETE", "/v1/pages/a", {"Cachesvc-Caller": name}),
    ):
        assert (response.status, kind(response), json.loads(response.body)["field"]) == (
            400,
            "bad-caller",
            "Cachesvc-Caller",
        )
    assert site.invalidator.saw == []


async def test_a_source_that_cannot_be_written_down_is_refused(site: Site) -> None:
    response = await site.ask(
        "POST", "/v1/invalidations", EVENTS, json.dumps({**EVENT, "source": "a\nb"}).encode()
    )
    assert (response.status, kind(response), json.loads(response.body)["field"]) == (
        400,
        "bad-caller",
        "$.source",
    )


# later ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("id_", ["eu:1700000000000-0", "eu%3A1700000000000-0"])
async def test_a_receipt_is_asked_for_by_its_id(site: Site, id_: str) -> None:
    state: dict[str, Any] = {
        "id": "eu:1700000000000-0",
        "state": "parked",
        "position": "1700000000001-3",
        "cells": ["c1"],
        "missed": ["c2"],
        "merged": ["eu/a"],
        "missing": ["us/b"],
        "reason": "",
    }
    site.invalidator.states["eu:1700000000000-0"] = msgspec.convert(state, ReceiptState)
    response = await site.ask("GET", f"/v1/invalidations/{id_}")
    assert (response.status, json.loads(response.body)) == (200, state)
    assert (await site.ask("HEAD", f"/v1/invalidations/{id_}")).status == 200


async def test_a_receipt_that_is_not_there_is_a_404_that_says_how_long_they_are_kept(site: Site) -> None:
    response = await site.ask("GET", "/v1/invalidations/eu:1-0")
    assert (response.status, kind(response)) == (404, "no-such-receipt")
    assert "15 minutes" in json.loads(response.body)["detail"]


async def test_a_receipt_of_an_unknown_region_is_refused_as_the_path_does(site: Site) -> None:
    site.invalidator.fails_with = RequestError(
        ProblemKind.NO_SUCH_RECEIPT, "no region 'e' (there is eu)", field="id"
    )
    response = await site.ask("GET", "/v1/invalidations/e:1-0")
    assert (response.status, kind(response), json.loads(response.body)["field"]) == (
        404,
        "no-such-receipt",
        "id",
    )


@pytest.mark.parametrize(("pairs", "in_header"), [(96, True), (97, False), (1000, False)])
async def test_a_long_token_stands_in_the_body_alone(site: Site, pairs: int, in_header: bool) -> None:
    """1000 pairs are 21,334 letters: no client and no proxy takes so long a header line."""
    site.invalidator.token = tuple((digest, 17) for digest in range(1, pairs + 1))
    response = await invalidate(site, keys=["a"])
    token = json.loads(response.body)["token"]
    assert len(read_token(token, "")) == pairs
    assert ("cachesvc-token" in response.headers) == in_header
    assert response.headers.get("cachesvc-token", token) == token
    assert all(len(value) < 4096 for value in response.headers.values())


async def test_a_failed_invalidation_has_its_token_in_the_body_too(site: Site) -> None:
    pairs = tuple((digest, 17) for digest in range(1, 501))
    site.invalidator.fails_with = RequestError(ProblemKind.FENCE_NOT_PUBLISHED, "not out", token=pairs)
    response = await invalidate(site, keys=["a"])
    assert response.status == 503
    assert read_token(json.loads(response.body)["token"], "") == pairs
    assert "cachesvc-token" not in response.headers
