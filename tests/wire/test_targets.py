"""Request targets: which key they name, and what is refused. The bytes count as they were sent."""

import json

import pytest

from tests.wire.conftest import Site


@pytest.mark.parametrize(
    ("segment", "key"),
    [
        ("a", "a"),
        ("{ws-7}:block:42", "{ws-7}:block:42"),
        ("a%2Fb", "a/b"),
        ("a%2fb", "a/b"),
        ("%2F", "/"),
        ("a%20b", "a b"),
        ("a+b", "a+b"),
        ("%25", "%"),
        ("%252F", "%2F"),
        ("k%3Aexplain", "k:explain"),
        ("k:explain%3Aexplain", "k:explain:explain"),
        ("k:explainx", "k:explainx"),
        ("%3Fa", "?a"),
        ("%23a", "#a"),
        ("%61", "a"),
        ("..", ".."),
        ("%2E%2E", ".."),
        ("%C3%A9", "é"),
        ("%F0%9F%98%80", "😀"),
        ("x" * 1024, "x" * 1024),
        ("%C3%A9" * 512, "é" * 512),
        ("~!$&'()*+,;=:@", "~!$&'()*+,;=:@"),
        ("a%22%5C%7B", 'a"\\{'),
    ],
)
async def test_a_key_is_what_its_segment_says(site: Site, segment: str, key: str) -> None:
    site.hold(key, key.encode())
    response = await site.ask("GET", f"/v1/pages/{segment}")
    assert (response.status, response.body) == (200, key.encode())
    await site.ask("PUT", f"/v1/pages/{segment}", {}, b"v")
    assert site.writer.saw[0][0].text == key


async def test_explain_is_the_calls_name_only_where_it_is_not_escaped(site: Site) -> None:
    assert json.loads((await site.ask("GET", "/v1/pages/k%3Aexplain:explain")).body)["key"] == "k:explain"


@pytest.mark.parametrize(
    ("target", "status", "kind", "field"),
    [
        ("/v1/pages/", 400, "bad-key", "key"),
        ("/v1/pages/:explain", 400, "bad-key", "key"),
        ("/v1/pages/a/b", 400, "bad-key", "key"),
        ("/v1/pages/%zz", 400, "bad-escape", "key"),
        ("/v1/pages/a%2", 400, "bad-escape", "key"),
        ("/v1/pages/%", 400, "bad-escape", "key"),
        ("/v1/%zz/a", 400, "bad-escape", "namespace"),
        ("/v1/pages/%FF", 400, "bad-key", "key"),
        ("/v1/pages/%C3", 400, "bad-key", "key"),
        ("/v1/pages/%ED%A0%80", 400, "bad-key", "key"),
        ("/v1/pages/a%00", 400, "bad-key", "key"),
        ("/v1/pages/a%0A", 400, "bad-key", "key"),
        ("/v1/pages/%7F", 400, "bad-key", "key"),
        ("/v1/pages/%C2%85", 400, "bad-key", "key"),
        ("/v1/pages/" + "x" * 1025, 400, "bad-key", "key"),
        ("/v1/pages/" + "%C3%A9" * 513, 400, "bad-key", "key"),
        ("/v1/pages/a?b=c", 400, "bad-query", "query"),
        ("/v1/pages:get?a", 400, "bad-query", "query"),
        ("/v1/invalidations/eu", 400, "bad-receipt", "id"),
        ("/v1/invalidations/eu:1", 400, "bad-receipt", "id"),
        ("/v1/invalidations/eu:1-0-0", 400, "bad-receipt", "id"),
        ("/v1/invalidations/EU:1-0", 400, "bad-receipt", "id"),
        ("/v1/invalidations/eu:" + "9" * 17 + "-0", 400, "bad-receipt", "id"),
        ("/v1/invalidations/eu:1-0%00", 400, "bad-receipt", "id"),
        ("/v1/invalidations/%zz", 400, "bad-escape", "id"),
        ("/v1/invalidations/eu:1-0?wait", 400, "bad-query", "query"),
        ("/v1/invalidations/eu:1-0", 404, "no-such-receipt", "id"),
        ("/v1/page/a", 404, "no-such-namespace", "namespace"),
        ("/v1//a", 404, "no-such-namespace", "namespace"),
        ("/v1/nothing:get", 404, "no-such-namespace", "namespace"),
        ("/v1/pages:delete", 404, "no-such-path", None),
        ("/v1/pages", 404, "no-such-path", None),
        ("/v2/pages/a", 404, "no-such-path", None),
        ("/", 404, "no-such-path", None),
        ("//v1/pages/a", 404, "no-such-path", None),
    ],
)
async def test_a_target_out_of_rule_is_refused_naming_the_segment(
    site: Site, target: str, status: int, kind: str, field: str | None
) -> None:
    response = await site.ask("GET", target)
    problem = json.loads(response.body)
    assert (response.status, problem["type"].rpartition("/")[2], problem.get("field")) == (
        status,
        kind,
        field,
    )
    assert site.reader.saw == []


async def test_an_unknown_namespace_is_answered_with_the_nearest_name_and_counted_under_none(
    site: Site,
) -> None:
    problem = json.loads((await site.ask("GET", "/v1/pagess/a")).body)
    assert "(there is pages" in problem["detail"]
    assert dict(site.metrics.counts.requests) == {("", "", "refused"): 1}


async def test_the_absolute_form_names_the_same_key(site: Site) -> None:
    site.hold("a/b")
    assert (await site.ask("GET", "http://other:80/v1/pages/a%2Fb")).status == 200


@pytest.mark.parametrize(
    ("method", "target", "allow"),
    [
        ("PATCH", "/v1/pages/a", "GET, HEAD, PUT, POST, DELETE"),
        ("OPTIONS", "/v1/pages/a", "GET, HEAD, PUT, POST, DELETE"),
        ("PUT", "/v1/pages/a:explain", "GET, HEAD"),
        ("GET", "/v1/pages:get", "POST"),
        ("PUT", "/v1/pages:put", "POST"),
        ("GET", "/v1/invalidations", "POST"),
        ("POST", "/v1/invalidations/eu:1-0", "GET, HEAD"),
        ("POST", "/v1/fences", "GET, HEAD"),
        ("DELETE", "/v1/topology", "GET, HEAD"),
        ("POST", "/livez", "GET, HEAD"),
    ],
)
async def test_a_method_that_does_not_belong_is_a_405_with_those_that_do(
    site: Site, method: str, target: str, allow: str
) -> None:
    response = await site.ask(method, target)
    assert (response.status, response.headers["allow"]) == (405, allow)


@pytest.mark.parametrize(
    ("headers", "kind", "field"),
    [
        ({"Cache-Control": "no-cache, only-if-cached"}, "bad-cache-control", "Cache-Control"),
        ({"Cache-Control": "max-age=x"}, "bad-cache-control", "Cache-Control"),
        ({"If-Match": '"a"', "If-None-Match": '"a"'}, "contradiction", "If-Match"),
        ({"If-None-Match": "a"}, "bad-header", "If-None-Match"),
        ({"Cachesvc-Token": "AAAA"}, "bad-token", "Cachesvc-Token"),
        ({"Cachesvc-Token": "!" * 22}, "bad-token", "Cachesvc-Token"),
        ({"Cachesvc-Token": "_" * 22}, "bad-token", "Cachesvc-Token"),
        ({"Cachesvc-Max-Lag": "1"}, "bad-header", "Cachesvc-Max-Lag"),
        ({"Cachesvc-Max-Lag": "9" * 400 + "d"}, "bad-header", "Cachesvc-Max-Lag"),
        ({"Cachesvc-Timeout": "-1s"}, "bad-header", "Cachesvc-Timeout"),
        ({"Cachesvc-Timeout": "0us"}, "bad-header", "Cachesvc-Timeout"),
        ({"Prefer": "lease, wait=soon"}, "bad-header", "Prefer"),
    ],
)
async def test_a_header_of_a_read_out_of_rule_is_named(
    site: Site, headers: dict[str, str], kind: str, field: str
) -> None:
    for key in ("held", "missed"):
        site.hold("held")
        response = await site.ask("GET", f"/v1/pages/{key}", headers)
        problem = json.loads(response.body)
        assert (response.status, problem["type"].rpartition("/")[2], problem["field"]) == (400, kind, field)
    assert site.reader.saw == []
