"""POST /v1/{ns}:get and :put."""

import asyncio
import base64
import json
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from cachesvc.model.clock import SECONDS
from cachesvc.model.entry import Key
from cachesvc.model.errors import RequestError
from cachesvc.model.problems import ProblemKind
from cachesvc.model.requests import PLAIN, Answer, Draft, Outcome, ReadOptions, Written
from cachesvc.model.use import UNKEPT
from cachesvc.web.requests.limits import MAX_TOKEN_LENGTH
from cachesvc.web.requests.tokens import read_token, write_token
from tests.wire.conftest import Response, Site

MSGPACK = {"Content-Type": "application/msgpack"}
JSON = {"Content-Type": "application/json"}


async def post(site: Site, verb: str, document: object, headers: dict[str, str] | None = None) -> Response:
    return await site.ask(
        "POST", f"/v1/pages:{verb}", {**MSGPACK, **(headers or {})}, msgspec.msgpack.encode(document)
    )


async def answer(site: Site, verb: str, document: object, headers: dict[str, str] | None = None) -> Any:
    response = await post(site, verb, document, headers)
    assert response.status == 200, response
    assert response.headers["content-type"] == "application/msgpack"
    return msgspec.msgpack.decode(response.body)


async def test_what_may_not_be_kept_says_so_and_has_no_freshness_left(site: Site) -> None:
    for key, outcome in (("a", Outcome.LOADED), ("b", Outcome.ABSENT)):
        entry = site.hold(key, negative=outcome is Outcome.ABSENT)
        site.reader.answers[key] = Answer(outcome, entry, "origin", use=UNKEPT)
        del site.reader.l1[key]
    site.hold("c")
    results = (await answer(site, "get", {"keys": ["a", "b", "c"]}))["results"]
    assert [(got["outcome"], got.get("keep"), got.get("ttl", 0)) for got in results] == [
        ("loaded", False, 0),
        ("absent", False, 0),
        ("hit", None, 42),
    ]


async def test_a_copy_that_a_soft_fence_made_stale_has_a_negative_ttl(site: Site) -> None:
    site.reader.answers["a"] = Answer(Outcome.STALE, site.hold("a"), "l2")
    del site.reader.l1["a"]
    (got,) = (await answer(site, "get", {"keys": ["a"]}))["results"]
    assert (got["outcome"], got["ttl"]) == ("stale", -1)


async def test_a_key_whose_origin_asks_to_be_asked_later_says_when(site: Site) -> None:
    error = RequestError(ProblemKind.ORIGIN_LIMITED, "answered 429", retry_after=17)
    site.reader.answers["a"] = Answer(Outcome.ERROR, error=error)
    (got,) = (await answer(site, "get", {"keys": ["a"]}))["results"]
    assert (got["problem"]["status"], got["problem"]["retry_after"]) == (503, 17)


async def test_results_stand_in_the_order_of_the_keys_and_l1_answers_what_it_can(site: Site) -> None:
    site.hold("a", b"\x00A")
    site.hold("gone", negative=True)
    site.reader.answers["b"] = Answer(Outcome.STALE, site.hold("b", b"B", ttl=-1), "l2")
    got = await answer(site, "get", {"keys": ["m", "a", "b", "gone", "a"]})
    hit = {
        "outcome": "hit",
        "value": b"\x00A",
        "tier": "l1",
        "age": 3,
        "ttl": 42,
        "content_type": "text/plain",
    }
    hit["as_of"] = site.clock.now_us() - 3 * SECONDS
    assert got["lag"] == 0.25
    assert got["results"][0] == {"outcome": "miss"}
    assert got["results"][1] == got["results"][4] == hit
    assert (got["results"][2]["outcome"], got["results"][2]["tier"], got["results"][2]["ttl"]) == (
        "stale",
        "l2",
        -1,
    )
    assert got["results"][3]["outcome"] == "absent"
    assert site.reader.saw == [("pages", "m", PLAIN), ("pages", "b", PLAIN)], (
        "only what L1 does not answer is asked for"
    )


async def test_json_values_are_base64(site: Site) -> None:
    site.hold("a", b"\x00A")
    response = await site.ask("POST", "/v1/pages:get", JSON, b'{"keys": ["a"]}')
    assert base64.b64decode(json.loads(response.body)["results"][0]["value"]) == b"\x00A"
    put = {"items": [{"key": "b", "value": base64.b64encode(b"\xff").decode()}]}
    await site.ask("POST", "/v1/pages:put", JSON, json.dumps(put).encode())
    assert site.reader.l1["b"].value == b"\xff"


async def test_defaults_are_left_out_of_results(site: Site) -> None:
    await site.ask("PUT", "/v1/pages/a", {}, b"v")
    assert "content_type" not in (await answer(site, "get", {"keys": ["a"]}))["results"][0]


async def test_no_keys_are_answered_with_no_results(site: Site) -> None:
    assert (await answer(site, "get", {"keys": []}))["results"] == []
    assert (await answer(site, "put", {"items": []})) == {"results": []}


async def test_options_of_the_body_and_the_headers_come_together(site: Site) -> None:
    site.hold("a")
    await answer(
        site,
        "get",
        {"keys": ["a"], "token": write_token(((1, 5), (2, 2))), "max_lag": "2s", "lease": True, "wait": 0.5},
        {"Cachesvc-Token": write_token(((1, 9),)), "Cachesvc-Timeout": "1s"},
    )
    wanted = ReadOptions(
        token=((1, 9), (2, 2)), max_lag_us=2 * SECONDS, lease=True, wait_seconds=0.5, timeout_seconds=1.0
    )
    assert site.reader.saw == [("pages", "a", wanted)]
    assert site.reader.peeked == []


async def test_a_lease_is_asked_for_only_where_l1_has_no_fresh_copy(site: Site) -> None:
    site.hold("a")
    got = await answer(site, "get", {"keys": ["a", "m"], "lease": True})
    assert got["results"][1] == {"outcome": "miss", "lease": "nonce:17"}
    assert site.reader.saw == [("pages", "m", ReadOptions(lease=True))]


async def test_a_key_that_failed_has_its_problem_and_the_others_their_values(site: Site) -> None:
    site.hold("a")
    site.reader.answers["b"] = Answer(Outcome.ERROR, error=RequestError(ProblemKind.DEADLINE, "late"))
    results = (await answer(site, "get", {"keys": ["a", "b"]}))["results"]
    assert results[0]["outcome"] == "hit"
    assert (results[1]["outcome"], results[1]["problem"]["status"], results[1]["problem"]["retryable"]) == (
        "error",
        504,
        True,
    )


async def test_items_are_stored_with_what_they_say(site: Site) -> None:
    items = [
        {
            "key": "a",
            "value": b"A",
            "content_type": "text/x",
            "tags": ["t"],
            "ttl": 1.5,
            "stale_while_revalidate": 2,
            "lease": "n:1",
            "source_lag": 0.3,
        },
        {"key": "b", "absent": True, "stale_if_error": 3},
    ]
    got = await answer(site, "put", {"items": items})
    assert site.writer.saw == [
        (
            Key.of("pages", "a"),
            Draft(b"A", "text/x", ("t",), 1_500_000, 2 * SECONDS, lease="n:1", source_lag_us=300_000),
        ),
        (Key.of("pages", "b"), Draft(b"", error_for_us=3 * SECONDS, negative=True)),
    ]
    assert got["results"] == [{"outcome": "stored"}] * 2
    assert [digest for digest, _ in read_token(got["token"], "")] == [
        Key.of("pages", "a").digest,
        Key.of("pages", "b").digest,
    ]


async def test_each_item_has_its_own_outcome(site: Site) -> None:
    site.writer.outcomes = {
        "fenced": Written(False, "fenced"),
        "broken": Written(False, error=RequestError(ProblemKind.HOME_UNAVAILABLE, "no")),
    }
    items = [{"key": "fenced"}, {"key": "large", "value": b"x" * 1001}, {"key": "broken"}, {"key": "fine"}]
    results = (await answer(site, "put", {"items": items}))["results"]
    assert [result["outcome"] for result in results] == ["fenced", "error", "error", "stored"]
    assert [result.get("problem", {}).get("status") for result in results] == [None, 413, 503, None]
    assert [key.text for key, _ in site.writer.saw] == ["fenced", "broken", "fine"]


@pytest.mark.parametrize(
    ("verb", "document", "status", "kind", "field"),
    [
        ("get", {"keys": ["a"], "extra": 1}, 400, "invalid-body", "$.extra"),
        ("get", {"keys": ["a", 1]}, 400, "invalid-body", "$.keys[1]"),
        ("get", {"keys": ["a", ""]}, 400, "bad-key", "$.keys[1]"),
        ("get", {"keys": ["a", "b\x00"]}, 400, "bad-key", "$.keys[1]"),
        ("get", {"keys": ["a", "x" * 1025]}, 400, "bad-key", "$.keys[1]"),
        ("get", {"keys": ["a"] * 6}, 413, "too-many-keys", "$.keys"),
        ("get", {"keys": ["a"], "token": "!"}, 400, "bad-token", "$.token"),
        ("get", {"keys": ["a"], "max_lag": "soon"}, 400, "bad-header", "$.max_lag"),
        ("get", {"keys": ["a"], "wait": -1}, 400, "invalid-body", "$.wait"),
        ("get", [], 400, "invalid-body", "$"),
        (
            "put",
            {"items": [{"key": "a"}, {"key": "b", "ttl": float("nan")}]},
            400,
            "invalid-body",
            "$.items[1].ttl",
        ),
        ("put", {"items": [{"key": "a"}, {"key": "\x7f"}]}, 400, "bad-key", "$.items[1].key"),
        ("put", {"items": [{"key": "a", "tags": ["t", "ü"]}]}, 400, "bad-tag", "$.items[0].tags[1]"),
        ("put", {"items": [{"key": "a", "tags": ["a", "b", "c"]}]}, 400, "bad-tag", "$.items[0].tags"),
        (
            "put",
            {"items": [{"key": "a", "content_type": "a/b\r\nX: y"}]},
            400,
            "invalid-body",
            "$.items[0].content_type",
        ),
        ("put", {"items": [{"key": "a", "lease": "ü"}]}, 400, "bad-lease", "$.items[0].lease"),
        (
            "put",
            {"items": [{"key": "a", "absent": True, "value": b"v"}]},
            400,
            "contradiction",
            "$.items[0].absent",
        ),
        ("put", {"items": [{"key": "a"}] * 6}, 413, "too-many-keys", "$.items"),
    ],
)
async def test_a_batch_out_of_rule_is_refused_whole_and_names_the_field(
    site: Site, verb: str, document: object, status: int, kind: str, field: str
) -> None:
    response = await post(site, verb, document)
    problem = json.loads(response.body)
    assert (response.status, problem["type"].rpartition("/")[2], problem["field"]) == (status, kind, field)
    assert site.reader.saw == []
    assert site.writer.saw == []


@pytest.mark.parametrize("text", ["é" * 512, "\u2028", "a b", "日本", "a\u00a0b"])
async def test_letters_and_spaces_of_any_script_are_fine_in_keys(site: Site, text: str) -> None:
    site.hold(text)
    assert (await answer(site, "get", {"keys": [text]}))["results"][0]["outcome"] == "hit"


@pytest.mark.parametrize("body", [b"", b"\x81", b"\xc1", b"\x81\xa4keys\x91\xa1\xff", b"\x91" * 5000])
async def test_what_is_no_document_is_a_400(site: Site, body: bytes) -> None:
    response = await site.ask("POST", "/v1/pages:get", MSGPACK, body[:3000])
    assert (response.status, json.loads(response.body)["type"][-4:]) == (400, "body")


@pytest.mark.parametrize("media", ["", "text/plain", "multipart/form-data"])
async def test_other_media_types_are_a_415(site: Site, media: str) -> None:
    response = await site.ask("POST", "/v1/pages:get", {"Content-Type": media}, b"{}")
    assert (response.status, json.loads(response.body)["field"]) == (415, "Content-Type")


async def test_batches_are_counted_by_request_and_by_key(site: Site) -> None:
    site.hold("a")
    await answer(site, "get", {"keys": ["a", "a", "m"]})
    counts = site.metrics.counts
    assert dict(counts.requests) == {("pages", "get_many", "ok"): 1}
    assert dict(counts.batch_keys) == {("pages", "get_many", "hit"): 2, ("pages", "get_many", "miss"): 1}


async def test_a_batch_takes_the_token_of_an_invalidation_of_as_many_keys(site: Site) -> None:
    pairs = tuple((digest, 17) for digest in range(1, 1001))
    body = json.dumps({"keys": ["a"], "token": write_token(pairs)}).encode()
    response = await site.ask("POST", "/v1/pages:get", {"Content-Type": "application/json"}, body)
    assert response.status == 413, "this site's bodies are small"
    roomy = json.dumps({"keys": ["a"], "token": write_token(pairs[:170])}).encode()
    response = await site.ask("POST", "/v1/pages:get", {"Content-Type": "application/json"}, roomy)
    assert response.status == 200
    assert site.reader.saw[-1][2].token == pairs[:170]
    assert len(write_token(pairs)) <= MAX_TOKEN_LENGTH


async def test_the_bound_is_that_of_the_value_that_was_judged_first(site: Site) -> None:
    site.hold("a")
    site.reader.hangs = asyncio.Event()
    asking = asyncio.create_task(post(site, "get", {"keys": ["a", "b"]}))
    await site.reader.asked.wait()
    site.paths.fences.watermark += 200_000  # a heartbeat came: of values judged before, it says nothing
    site.paths.fences.lag = 50_000
    site.reader.hangs.set()
    response = await asking
    assert msgspec.msgpack.decode(response.body)["lag"] == 0.25
    assert response.headers["cachesvc-lag"] == "0.250"
    assert (await answer(site, "get", {"keys": ["a"]}))["lag"] == 0.05


async def test_an_answer_that_no_home_has_confirmed_says_what_a_session_must_remember(site: Site) -> None:
    entry = replace(site.hold("a"), confirmed=False)
    del site.reader.l1["a"]
    site.reader.answers["a"] = Answer(Outcome.HIT, entry, "l1", unmet=True)
    site.hold("b")
    got = (await answer(site, "get", {"keys": ["a", "b"]}))["results"]
    assert [(one.get("seen"), one.get("unmet")) for one in got] == [(entry.as_of + 7, True), (None, None)]
    headers = (await site.ask("GET", "/v1/pages/a")).headers
    assert (headers["cachesvc-seen"], headers["cachesvc-unmet"]) == (str(entry.as_of + 7), "1")
    headers = (await site.ask("GET", "/v1/pages/b")).headers
    assert "cachesvc-seen" not in headers
    assert "cachesvc-unmet" not in headers
