"""GET and HEAD of a key: what each answer of the read path looks like on the wire."""

import asyncio
import json

import aiohttp
import pytest
from msgspec.structs import replace

from cachesvc.model import cache_groups
from cachesvc.model.clock import SECONDS
from cachesvc.model.entry import Entry
from cachesvc.model.errors import RequestError
from cachesvc.model.etag import etag
from cachesvc.model.problems import ProblemKind
from cachesvc.model.requests import PLAIN, Answer, Outcome, ReadOptions, Step
from cachesvc.model.use import UNKEPT, Use
from cachesvc.web.replies.problems import outcome_of
from cachesvc.web.requests.tokens import write_token
from tests.wire.conftest import Site


async def test_a_fresh_copy_in_l1_is_answered_with_its_lifetimes_and_without_asking_further(
    site: Site,
) -> None:
    entry = site.hold("k")
    response = await site.ask("GET", "/v1/pages/k")
    assert response.status == 200
    assert response.body == b"value"
    assert response.headers == {
        "content-type": "text/plain",
        "content-length": "5",
        "etag": etag(entry),
        "age": "3",
        "cache-control": "max-age=45, stale-while-revalidate=60, stale-if-error=600",
        "vary": "Cachesvc-Token, Cachesvc-Max-Lag, Prefer",
        "cache-status": "cachesvc-l1; hit; ttl=42",
        "date": "Tue, 14 Nov 2023 22:13:20 GMT",
        "cachesvc-lag": "0.260",
        "x-content-type-options": "nosniff",
        "content-security-policy": "sandbox",
        "connection": "close",
    }
    assert site.reader.saw == []


async def test_head_has_the_headers_of_get_and_no_body(site: Site) -> None:
    site.hold("k")
    got, headed = await site.ask("GET", "/v1/pages/k"), await site.ask("HEAD", "/v1/pages/k")
    assert headed.headers == got.headers
    assert headed.status == 200


L1_MISSED = (Step("l1", "uri-miss", stored=True),)
ALL_MISSED = (Step("l3", "uri-miss", stored=True), Step("l2", "uri-miss"), Step("l1", "uri-miss"))
FENCED = (Step("l1", "stale", detail="fenced", collapsed=True),)


@pytest.mark.parametrize(
    ("outcome", "tier", "trail", "status"),
    [
        (Outcome.HIT, "l2", L1_MISSED, "cachesvc-l2; hit; ttl=42, cachesvc-l1; fwd=uri-miss; stored"),
        (
            Outcome.LOADED,
            "origin",
            ALL_MISSED,
            "cachesvc-l3; fwd=uri-miss; stored, cachesvc-l2; fwd=uri-miss, cachesvc-l1; fwd=uri-miss",
        ),
        (
            Outcome.HIT,
            "l2",
            FENCED,
            "cachesvc-l2; hit; ttl=42, cachesvc-l1; fwd=stale; collapsed; detail=fenced",
        ),
    ],
)
async def test_cache_status_names_the_tiers_origin_side_first(
    site: Site, outcome: Outcome, tier: str, trail: tuple[Step, ...], status: str
) -> None:
    site.reader.answers["k"] = Answer(outcome, site.hold("k"), tier, trail)
    del site.reader.l1["k"]
    response = await site.ask("GET", "/v1/pages/k")
    assert (response.status, response.headers["cache-status"]) == (200, status)


async def test_a_stale_answer_has_a_negative_ttl_and_is_older_than_its_max_age(site: Site) -> None:
    entry = Entry(b"v", site.clock.now_us() - 60 * SECONDS, site.clock.now_us() - 10 * SECONDS)
    site.reader.answers["k"] = Answer(Outcome.STALE, entry, "l1")
    headers = (await site.ask("GET", "/v1/pages/k")).headers
    assert (headers["cache-status"], headers["age"], headers["cache-control"]) == (
        "cachesvc-l1; hit; ttl=-10",
        "60",
        "max-age=50",
    )


async def test_a_copy_that_a_soft_fence_made_stale_is_not_fresh_to_caches_on_the_way(site: Site) -> None:
    entry = site.hold("k")  # 3 s old, and 42 s before the end of its time
    del site.reader.l1["k"]
    site.reader.answers["k"] = Answer(Outcome.STALE, entry, "l2")
    headers = (await site.ask("GET", "/v1/pages/k")).headers
    assert headers["cache-control"].startswith("max-age=2, stale-while-revalidate=60")
    assert (headers["age"], headers["cache-status"]) == ("3", "cachesvc-l2; hit; ttl=-1")


NO_STORE = Use(keep=False, share=False, directives="no-store")
ONLY_READER = "Cachesvc-Token, Cachesvc-Max-Lag, Prefer"


@pytest.mark.parametrize("outcome", [Outcome.LOADED, Outcome.ABSENT])
@pytest.mark.parametrize(
    ("use", "cache_control", "vary"),
    [
        (NO_STORE, "no-store", ONLY_READER),
        (Use(keep=False, share=False, directives="private, max-age=0"), "private, max-age=0", ONLY_READER),
        (Use(keep=False, share=False, directives="no-store", varies=True), "no-store", "*"),
        (Use(directives="no-cache"), "no-cache", ONLY_READER),
        (UNKEPT, "no-store", ONLY_READER),
    ],
)
async def test_what_may_not_be_kept_is_answered_so(
    site: Site, outcome: Outcome, use: Use, cache_control: str, vary: str
) -> None:
    entry = site.hold("k", negative=outcome is Outcome.ABSENT)
    del site.reader.l1["k"]
    site.reader.answers["k"] = Answer(outcome, entry, "origin", ALL_MISSED, use=use)
    for method, headers in (("GET", {}), ("HEAD", {}), ("GET", {"If-None-Match": "*"})):
        said = (await site.ask(method, "/v1/pages/k", headers)).headers
        assert (said["cache-control"], said["vary"]) == (cache_control, vary)


async def test_an_answer_with_a_lease_is_for_one_caller(site: Site) -> None:
    site.reader.answers["k"] = Answer(Outcome.STALE, site.hold("k"), "l1", lease="nonce:17")
    del site.reader.l1["k"]
    headers = (await site.ask("GET", "/v1/pages/k", {"Prefer": "lease"})).headers
    assert (headers["cachesvc-lease"], headers["cache-control"]) == ("nonce:17", "no-store")


async def test_the_status_of_the_origin_is_named_where_the_answers_own_is_another(site: Site) -> None:
    trail = (Step("l3", "uri-miss", origin_status=204, stored=True), Step("l1", "uri-miss"))
    site.reader.answers["k"] = Answer(Outcome.LOADED, site.hold("k"), "origin", trail)
    del site.reader.l1["k"]
    status = (await site.ask("GET", "/v1/pages/k")).headers["cache-status"]
    assert status == "cachesvc-l3; fwd=uri-miss; fwd-status=204; stored, cachesvc-l1; fwd=uri-miss"


@pytest.mark.parametrize(
    ("kind", "after", "status", "said", "outcome"),
    [
        (ProblemKind.ORIGIN_FAILED, 17, 502, "17", "failed"),
        (ProblemKind.ORIGIN_LIMITED, 17, 503, "17", "refused"),
        (ProblemKind.ORIGIN_LIMITED, None, 503, "1", "refused"),
        (ProblemKind.ORIGIN_REFUSED, None, 502, None, "refused"),
    ],
)
async def test_retry_after_is_the_origins_if_it_gave_one(
    site: Site, kind: ProblemKind, after: int | None, status: int, said: str | None, outcome: str
) -> None:
    error = RequestError(kind, "answered so", retry_after=after)
    site.reader.answers["k"] = Answer(Outcome.ERROR, error=error, trail=ALL_MISSED)
    response = await site.ask("GET", "/v1/pages/k")
    assert (response.status, response.headers.get("retry-after")) == (status, said)
    assert json.loads(response.body).get("retry_after") == after
    assert outcome_of(error) == outcome


async def test_tags_are_answered_as_cache_groups(site: Site) -> None:
    entry = Entry(b"v", 0, site.clock.now_us() + SECONDS, tags=("a", 'b"c'))
    site.reader.l1["k"] = entry
    assert (await site.ask("GET", "/v1/pages/k")).headers["cache-groups"] == '"a", "b\\"c"'


async def test_what_an_origin_called_a_content_type_cannot_end_the_header_line(site: Site) -> None:
    site.reader.l1["k"] = Entry(
        b"v", 0, site.clock.now_us() + SECONDS, content_type="a/b\r\nX-Evil: 1", tags=("a\r\nX-Evil: 2",)
    )
    response = await site.ask("GET", "/v1/pages/k")
    assert response.headers["content-type"] == "application/octet-stream"
    assert "x-evil" not in response.headers


async def test_the_lag_is_left_out_while_it_is_unknown_and_follows_within_ten_milliseconds(
    site: Site,
) -> None:
    site.hold("k")
    site.paths.fences.lag = None
    assert "cachesvc-lag" not in (await site.ask("GET", "/v1/pages/k")).headers
    site.paths.fences.lag = 1_234_567
    site.clock.advance(us=10_000)
    assert (await site.ask("GET", "/v1/pages/k")).headers["cachesvc-lag"] == "1.245"


@pytest.mark.parametrize("negative", ["in L1", "beyond"])
async def test_known_absent_is_a_404_that_may_be_kept(site: Site, negative: str) -> None:
    entry = site.hold("k", negative=True)
    if negative == "beyond":
        site.reader.answers["k"] = Answer(Outcome.ABSENT, entry, "l2", L1_MISSED)
        del site.reader.l1["k"]
    response = await site.ask("GET", "/v1/pages/k")
    assert response.status == 404
    assert json.loads(response.body)["type"] == "https://cachesvc.dev/problems/known-absent"
    assert response.headers["cache-control"].startswith("max-age=45")
    assert "; hit; ttl=42" in response.headers["cache-status"]
    assert (await site.ask("HEAD", "/v1/pages/k")).status == 404


async def test_a_miss_is_a_404_that_says_where_was_looked(site: Site) -> None:
    response = await site.ask("GET", "/v1/pages/k")
    problem = json.loads(response.body)
    assert (response.status, problem["type"]) == (404, "https://cachesvc.dev/problems/cache-miss")
    assert response.headers["content-type"] == "application/problem+json"
    assert (
        response.headers["cache-status"]
        == "cachesvc-l3; fwd=uri-miss, cachesvc-l2; fwd=uri-miss, cachesvc-l1; fwd=uri-miss"
    )
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-request-id"] == problem["request_id"]
    assert site.reader.saw == [("pages", "k", PLAIN)]


async def test_prefer_lease_grants_one_with_the_miss(site: Site) -> None:
    response = await site.ask("GET", "/v1/pages/k", {"Prefer": "lease, wait=2"})
    assert (response.status, response.headers["cachesvc-lease"]) == (404, "nonce:17")
    assert site.reader.saw == [("pages", "k", ReadOptions(lease=True, wait_seconds=2.0))]


async def test_a_wait_is_capped_by_the_request_timeout(site: Site) -> None:
    await site.ask("GET", "/v1/pages/k", {"Prefer": 'wait="999999", lease', "Cachesvc-Timeout": "90s"})
    assert site.reader.saw[0][2] == ReadOptions(lease=True, wait_seconds=5.0, timeout_seconds=5.0)


@pytest.mark.parametrize(
    ("prefer", "wait_seconds"),
    [
        (" " * 8000 + "lease", 0.0),
        ("lease" + " " * 8000, 0.0),
        ("," * 8000 + "lease", 0.0),
        ("x= " * 2000 + ",lease;a=b , wait = 2 ", 2.0),
        ('respond-async; x="1", LEASE, Wait="2"', 2.0),
    ],
    ids=range(5),
)
async def test_a_preference_is_found_wherever_it_stands(site: Site, prefer: str, wait_seconds: float) -> None:
    await site.ask("GET", "/v1/pages/k", {"Prefer": prefer})
    assert site.reader.saw == [("pages", "k", ReadOptions(lease=True, wait_seconds=wait_seconds))]


async def test_a_stale_answer_may_carry_a_lease(site: Site) -> None:
    site.reader.answers["k"] = Answer(Outcome.STALE, site.hold("k"), "l3", lease="n:1")
    del site.reader.l1["k"]
    response = await site.ask("GET", "/v1/pages/k", {"Prefer": "lease"})
    assert (response.status, response.headers["cachesvc-lease"]) == (200, "n:1")


async def test_only_if_cached_is_answered_with_504_on_a_miss(site: Site) -> None:
    response = await site.ask("GET", "/v1/pages/k", {"Cache-Control": "only-if-cached"})
    assert (response.status, json.loads(response.body)["type"][-10:]) == (504, "not-cached")


async def test_every_header_of_a_read_reaches_the_read_path(site: Site) -> None:
    site.hold("k")
    token = ((7, 1_700_000_000_000_000), (8, 5))
    await site.ask(
        "GET",
        "/v1/pages/k",
        {
            "cache-control": "max-age=5, max-stale=7, no-store",
            "Cachesvc-Token": write_token(token),
            "Cachesvc-Max-Lag": "500ms",
            "Cachesvc-Timeout": "250ms",
        },
    )
    wanted = ReadOptions(
        max_age_us=5 * SECONDS,
        max_stale_us=7 * SECONDS,
        no_store=True,
        token=token,
        max_lag_us=500_000,
        timeout_seconds=0.25,
    )
    assert site.reader.saw == [("pages", "k", wanted)]
    assert site.reader.peeked == [], "L1 does not know whether its copy is good enough for these"


@pytest.mark.parametrize("condition", ["*", '"other", {}', "W/{}", '{},"x"'])
async def test_if_none_match_is_compared_weakly_and_answered_with_304(site: Site, condition: str) -> None:
    tag = etag(site.hold("k"))
    response = await site.ask("GET", "/v1/pages/k", {"If-None-Match": condition.format(tag)})
    assert (response.status, response.body, response.headers["etag"]) == (304, b"", tag)
    assert "content-length" not in response.headers
    assert response.headers["cache-status"] == "cachesvc-l1; hit; ttl=42"
    assert "max-age=45" in response.headers["cache-control"]


async def test_another_etag_gets_the_value(site: Site) -> None:
    site.hold("k")
    assert (await site.ask("GET", "/v1/pages/k", {"If-None-Match": '"other"'})).status == 200


async def test_if_match_is_compared_strongly_and_answered_with_412(site: Site) -> None:
    tag = etag(site.hold("k"))
    assert (await site.ask("GET", "/v1/pages/k", {"If-Match": tag})).status == 200
    for condition in ('"other"', f"W/{tag}"):
        assert (await site.ask("GET", "/v1/pages/k", {"If-Match": condition})).status == 412


async def test_an_error_of_the_read_path_is_a_problem_with_its_hint_when_to_try_again(site: Site) -> None:
    error = RequestError(ProblemKind.OVERLOADED, "too many loads")
    site.reader.answers["k"] = Answer(Outcome.ERROR, trail=L1_MISSED, error=error)
    response = await site.ask("GET", "/v1/pages/k")
    problem = json.loads(response.body)
    assert (response.status, response.headers["retry-after"], problem["retryable"]) == (503, "1", True)
    assert response.headers["cache-status"] == "cachesvc-l1; fwd=uri-miss; stored"


async def test_a_request_id_is_passed_through_and_a_strange_one_replaced(site: Site) -> None:
    site.hold("k")
    assert (await site.ask("GET", "/v1/pages/k", {"X-Request-Id": "abc-1"})).headers[
        "x-request-id"
    ] == "abc-1"
    missed = await site.ask("GET", "/v1/pages/m", {"X-Request-Id": "abc-1"})
    assert json.loads(missed.body)["request_id"] == missed.headers["x-request-id"] == "abc-1"
    strange = await site.ask("GET", "/v1/pages/m", {"X-Request-Id": 'a"b c'})
    assert strange.headers["x-request-id"].isalnum()


async def test_explain_is_answered_as_json(site: Site) -> None:
    response = await site.ask("GET", "/v1/pages/a%2Fb:explain")
    explained = json.loads(response.body)
    assert (explained["key"], explained["namespace"], explained["verdict"]) == (
        "a/b",
        "pages",
        "It is not held.",
    )


async def test_explain_is_of_the_read_that_has_these_headers_and_hands_them_on(site: Site) -> None:
    token = write_token(((7, 9),))
    await site.ask(
        "GET", "/v1/pages/a:explain", {"Cachesvc-Token": token, "Cachesvc-Max-Lag": "1s", "X-Other": "1"}
    )
    (question,) = site.paths.explainer.asked
    assert (question.options.token, question.options.max_lag_us, question.alone) == (
        ((7, 9),),
        1_000_000,
        False,
    )
    assert question.headers == {"Cachesvc-Token": token, "Cachesvc-Max-Lag": "1s"}


async def test_another_instance_is_told_what_is_seen_here(site: Site) -> None:
    response = await site.ask("GET", "/v1/pages/a:explain?scope=instance")
    assert json.loads(response.body) == {"region": "eu", "instance": "a"}
    assert site.paths.explainer.asked[0].alone
    for target in ("/v1/pages/a:explain?scope=all", "/v1/pages/a%3Aexplain?scope=instance"):
        assert (await site.ask("GET", target)).status == 400


async def test_the_longest_token_of_a_client_is_taken_in_the_header(site: Site) -> None:
    """384 pairs are 8192 letters, two more than aiohttp takes by itself."""
    pairs = tuple((digest, 17) for digest in range(1, 385))
    assert len(write_token(pairs)) == 8192
    response = await site.ask("GET", "/v1/pages/k", {"Cachesvc-Token": write_token(pairs)})
    assert response.status == 404
    assert site.reader.saw[0][2].token == pairs


async def test_many_tags_are_spread_over_lines_that_clients_take(site: Site) -> None:
    tags = tuple(f"{i:0256}" for i in range(128))
    entry = replace(site.hold("k"), tags=tags)
    site.reader.l1["k"] = entry
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{site.port}/v1/pages/k") as response,
    ):
        lines = response.headers.getall("Cache-Groups")
    assert cache_groups.parse(", ".join(lines), max_tags=128) == tags
    assert all(len(line) <= 4096 for line in lines)


async def test_the_bound_counts_from_the_watermark_at_the_start_of_the_read(site: Site) -> None:
    site.reader.hangs = asyncio.Event()
    reading = asyncio.create_task(site.ask("GET", "/v1/pages/a"))
    await site.reader.asked.wait()
    site.paths.fences.watermark += 200_000
    site.paths.fences.lag = 50_000
    site.reader.hangs.set()
    assert (await reading).headers["cachesvc-lag"] == "0.250"
