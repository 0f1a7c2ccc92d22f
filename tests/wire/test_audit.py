"""`GET /v1/audit`: who changed what through this instance, and who was refused."""

import hashlib
import json
from typing import Any

import pytest

from cachesvc.changes.audit import audit_of
from cachesvc.config.callers import Callers, NamedCaller, Token
from cachesvc.config.service import Telemetry
from cachesvc.model.change import Change
from cachesvc.model.requests import Author
from tests.wire.conftest import Site, running_site

DEBUG = "a token for debugging"


async def page(site: Site, query: str = "") -> Any:
    answer = await site.ask("GET", f"/v1/audit{query}")
    assert answer.status == 200, answer
    return json.loads(answer.body)


async def test_a_refused_call_is_recorded_with_its_peer_and_not_as_its_headers_say(site: Site) -> None:
    headers = {
        "Host": "evil.example",
        "X-Forwarded-For": "10.0.0.1",
        "Cachesvc-Caller": "\u202eroot\u202c",
    }
    refused = await site.ask("GET", "/livez", headers)
    assert refused.status == 421
    found = await page(site)
    assert (found["region"], found["instance"], found["dropped"], found["left_out"]) == ("local", "a", 0, 0)
    assert found["records"] == [
        {
            "number": 1,
            "at": site.clock.now_us(),
            "what": "refused",
            "outcome": "wrong-host",
            "address": "127.0.0.1",
            "says": "\\u202eroot\\u202c",
            "operation": "livez",
        }
    ]


async def test_key_text_that_was_shown_is_recorded() -> None:
    async with running_site(Telemetry(debug_token=DEBUG)) as site:
        await site.ask("GET", "/v1/hotkeys?namespace=pages")
        await site.ask("GET", "/v1/hotkeys?namespace=pages", {"Cachesvc-Debug": DEBUG})
        await site.ask("GET", "/v1/hotkeys?namespace=pages", {"Cachesvc-Debug": "another one"})
        found = (await page(site))["records"]
    assert [(one["what"], one["outcome"], one["operation"]) for one in found] == [
        ("refused", "no-debug", "hotkeys"),
        ("operate", "done", "hotkeys with key text"),
    ]
    assert DEBUG not in str(found)


async def test_the_query_filters(site: Site) -> None:
    for namespace, name in (("pages", "a"), ("users", "a"), ("pages", "b")):
        audit = audit_of([Change(namespace, keys=("k",))], Author(name, "10.0.0.1"), "a")
        site.paths.trail.changed(audit, "1-0", "done")
        site.clock.advance(seconds=10)

    async def found(query: str) -> list[tuple[str, str]]:
        return [(one["namespace"], one["identity"]) for one in (await page(site, query))["records"]]

    assert await found("") == [("pages", "b"), ("users", "a"), ("pages", "a")]
    assert await found("?namespace=pages") == [("pages", "b"), ("pages", "a")]
    assert await found("?identity=a&limit=1") == [("users", "a")]
    assert await found("?since=25s") == [("pages", "b"), ("users", "a")]


async def test_refusals_have_the_identity_that_was_proved_and_filters_need_a_scope() -> None:
    def of(*scopes: str) -> NamedCaller:
        token = scopes[0].partition(":")[0]
        return NamedCaller(scopes, (Token(hashlib.sha256(token.encode()).hexdigest()),))

    callers = Callers({"dashboard": of("observe:*"), "checkout": of("read:pages", "observe:pages")})
    async with running_site(callers=callers) as site:

        async def status(method: str, target: str, token: str) -> int:
            headers = {"Authorization": f"Bearer {token}", "Cachesvc-Caller": "dashboard"}
            return (await site.ask(method, target, headers)).status

        assert await status("DELETE", "/v1/pages/k", "read") == 403
        assert await status("DELETE", "/v1/pages/k", "guessed") == 401
        assert await status("GET", "/v1/audit", "read") == 403
        assert await status("GET", "/v1/audit?namespace=users", "read") == 403
        assert await status("GET", "/v1/audit?namespace=pages", "read") == 200
        answer = await site.ask("GET", "/v1/audit?limit=2", {"Authorization": "Bearer observe"})
        recorded = site.paths.trail.find()
    assert len(json.loads(answer.body)["records"]) == 2
    assert [(one.identity, one.says, one.outcome, one.operation, one.namespace) for one in recorded] == [
        ("checkout", "dashboard", "missing-scope", "audit", ""),
        ("", "dashboard", "unknown-identity", "delete", "pages"),
        ("checkout", "dashboard", "missing-scope", "delete", "pages"),
    ]
    assert site.paths.trail.left_out == 1


@pytest.mark.parametrize(
    "query",
    [
        "?who=me",
        "?limit=0",
        "?limit=1001",
        "?limit=x",
        "?limit=1&limit=2",
        "?since=5",
        "?since=%1b",
        "?since=%ff",
    ],
)
async def test_a_query_out_of_rule_is_refused(site: Site, query: str) -> None:
    refused = await site.ask("GET", f"/v1/audit{query}")
    assert (refused.status, json.loads(refused.body)["field"]) == (400, "query")
