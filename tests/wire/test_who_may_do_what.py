"""Every route × every scope × own, foreign and undeclared namespace × every state of an identity."""

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec.structs import replace

from cachesvc.config.callers import Callers, Issuer, NamedCaller, Token
from cachesvc.model.clock import SECONDS
from cachesvc.model.requests import Author
from cachesvc.model.scope import Action
from cachesvc.web.access.routes import ROUTES, check_routes
from tests.doubles.clocks import ManualClock
from tests.wire.conftest import Site, running_site

OWN, FOREIGN, UNDECLARED = "pages", "users", "nobodys"
NAMESPACES = (OWN, FOREIGN, UNDECLARED)
STATES = ("none", "wrong", "expired", "revoked", "valid")

NEEDS: dict[str, frozenset[str]] = {
    **dict.fromkeys(("get", "head", "get_many"), frozenset({"read"})),
    **dict.fromkeys(("put", "put_many", "release"), frozenset({"write"})),
    **dict.fromkeys(("delete", "invalidate"), frozenset({"invalidate"})),
    "receipt": frozenset({"invalidate", "observe"}),
    "explain": frozenset({"explain"}),
    "fences": frozenset({"read", "observe"}),
    "topology": frozenset({"read", "write", "invalidate", "explain", "observe", "admin"}),
    "hotkeys": frozenset({"observe"}),
    "audit": frozenset({"observe"}),
    # of a single namespace none is enough
    **dict.fromkeys(("metrics", "relay"), frozenset()),
    **dict.fromkeys(("livez", "readyz", "openapi"), frozenset()),
}
"""Operation → the actions of which one is enough, by hand."""
OPEN = {"livez", "readyz", "openapi"}
NAMES_NO_NAMESPACE = {"receipt", "fences", "topology"}

JSON = {"Content-Type": "application/json"}
Sent = tuple[str, dict[str, str], bytes]
REQUESTS: dict[str, Callable[[str], Sent]] = {
    "key": lambda of: (f"/v1/{of}/a", {"Cachesvc-Lease": "1-a", "Cachesvc-Release": "failed"}, b""),
    "explain": lambda of: (f"/v1/{of}/a:explain", {}, b""),
    "get_many": lambda of: (f"/v1/{of}:get", JSON, b'{"keys": ["a"]}'),
    "put_many": lambda of: (f"/v1/{of}:put", JSON, b'{"items": [{"key": "a", "value": "eA=="}]}'),
    "invalidations": lambda of: (
        "/v1/invalidations",
        JSON,
        json.dumps({"namespace": of, "keys": ["a"]}).encode(),
    ),
    "receipt": lambda _: ("/v1/invalidations/eu:1700000000000-0", {}, b""),
    "fences": lambda _: ("/v1/fences", {}, b""),
    "topology": lambda _: ("/v1/topology", {}, b""),
    "hotkeys": lambda of: (f"/v1/hotkeys?namespace={of}", {}, b""),
    "audit": lambda of: (f"/v1/audit?namespace={of}", {}, b""),
    "livez": lambda _: ("/livez", {}, b""),
    "readyz": lambda _: ("/readyz", {}, b""),
    "metrics": lambda _: ("/metrics", {}, b""),
    "relay": lambda _: ("/v1/relay?region=eu&after=1-0", {}, b""),
    "openapi": lambda _: ("/openapi.json", {}, b""),
}
"""Kind of place → target, headers and body for a namespace."""


def token_of(action: str, state: str) -> str:
    return f"token-of-{action}-{state}"


def hashed(token: str, until: datetime | None = None) -> Token:
    return Token(hashlib.sha256(token.encode()).hexdigest(), until)


def callers(*states: str, now_us: int) -> Callers:
    """One caller per action and state, with a scope for that action in `OWN` and nothing else."""
    past = datetime.fromtimestamp(now_us / SECONDS, UTC) - timedelta(seconds=1)
    return Callers(
        {
            f"{action}-{state}": NamedCaller(
                (f"{action}:{OWN}",),
                (hashed(token_of(action, state), past if state == "expired" else None),),
            )
            for action, state in product(Action, states)
        }
    )


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with running_site(callers=Callers()) as running:
        yield running


async def ask(site: Site, method: str, sent: Sent, token: str = "") -> tuple[int, bytes, dict[str, str]]:
    """Status, body (of what is no stream) and headers of one answer."""
    target, headers, body = sent
    lines = {"Host": "test", **headers, **({"Authorization": f"Bearer {token}"} if token else {})}
    if method in ("GET", "HEAD", "PUT", "DELETE"):
        lines = {name: value for name, value in lines.items() if not name.startswith("Cachesvc-")}
    if body or method in ("PUT", "POST"):
        lines["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    try:
        writer.write(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + body)
        answered = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip("\r\n").split("\r\n")
        found = dict(line.split(": ", 1) for line in answered[1:])
        size = 0 if method == "HEAD" else int(found.get("Content-Length", "0"))
        return int(answered[0].split()[1]), await reader.readexactly(size), found
    finally:
        writer.close()


def routes(site: Site) -> Iterator[tuple[str, str, str]]:
    """Kind, method and operation of every route that the server has."""
    for kind, calls in site.web._calls.items():
        for method, (operation, _) in calls.items():
            yield kind.value, method, operation


async def test_every_route_every_scope_every_namespace_every_identity(site: Site) -> None:
    clock = site.clock
    assert isinstance(clock, ManualClock)
    everybody = callers("expired", "revoked", "valid", now_us=clock.now_us())
    site.web.door.take(everybody)
    for action in Action:  # a revoked token is remembered before it is revoked
        assert (await ask(site, "GET", ("/v1/topology", {}, b""), token_of(action, "revoked")))[0] == 200
    site.web.door.take(callers("expired", "valid", now_us=clock.now_us()))
    asked, allowed, wrong = 0, 0, []
    for (kind, method, operation), action, namespace, state in product(
        list(routes(site)), Action, NAMESPACES, STATES
    ):
        token = "" if state == "none" else token_of(action, state)
        status, body, headers = await ask(site, method, REQUESTS[kind](namespace), token)
        asked += 1
        is_in = action in NEEDS[operation] and (namespace == OWN or operation in NAMES_NO_NAMESPACE)
        if operation in OPEN and state in ("none", "valid"):
            expected = {200, 503}
        elif state != "valid":
            expected = {401}
        else:
            # 503: two streams are open already
            expected = {200, 204, 404, *([503] if operation == "fences" else [])} if is_in else {403}
        allowed += status not in (401, 403)
        is_right = status in expected and (status != 401) == ("WWW-Authenticate" not in headers)
        if status == 403 and method != "HEAD":
            detail = json.loads(body)["detail"]
            is_right = is_right and detail.startswith(f"{action}-valid has not the scope ")
        if not is_right:
            wrong.append((method, operation, action.value, namespace, state, status, body))
    assert not wrong, wrong[:5]
    assert asked == 30 * len(Action) * len(NAMESPACES) * len(STATES) == 2700
    print(f"{asked} calls, {allowed} of them allowed")


async def test_nobody_learns_whether_a_foreign_namespace_is_declared(site: Site) -> None:
    site.web.door.take(callers("valid", now_us=site.clock.now_us()))
    for (kind, method, operation), action in product(list(routes(site)), Action):
        if method == "HEAD":
            continue
        seen = []
        for namespace in (FOREIGN, UNDECLARED):
            status, body, _ = await ask(site, method, REQUESTS[kind](namespace), token_of(action, "valid"))
            document = json.loads(body) if status >= 400 else {}
            document.pop("request_id", None)
            seen.append((status, json.dumps(document).replace(namespace, "NAMESPACE")))
        assert seen[0] == seen[1], (method, operation)


@pytest.mark.parametrize(
    "target", ["/v1/users/a", "/v1/nobodys/a", "/v1/users:get", "/v1/nobodys/%ff", "/v1/users/%ff"]
)
async def test_a_method_that_is_not_there_says_nothing_either(site: Site, target: str) -> None:
    site.web.door.take(callers("valid", now_us=site.clock.now_us()))
    status, body, _ = await ask(site, "PATCH", (target, {}, b""), token_of("read", "valid"))
    assert (status, json.loads(body)["type"].rpartition("/")[2]) == (403, "missing-scope")


async def test_who_may_know_no_namespace_is_told_none(site: Site) -> None:
    site.web.door.take(Callers({"shop": NamedCaller(("read:pag*",), (hashed("shops"),))}))
    status, body, _ = await ask(site, "GET", ("/v1/pagess/a", {}, b""), "shops")
    assert status == 404
    assert b"pages" in body
    assert b"users" not in body
    _, body, _ = await ask(site, "GET", ("/v1/topology", {}, b""), "shops")
    shown = json.loads(body)
    assert shown["namespaces"] == {"pages": {"owner": "web"}}
    assert shown["regions"] == {"eu": {"instances": {"a": "http://a:8080"}, "operations": {}}}
    assert "cells" not in shown


async def test_metrics_and_verbose_readiness_are_for_those_who_observe_everything(site: Site) -> None:
    site.web.door.take(
        Callers(
            {
                "ops": NamedCaller(("observe:*",), (hashed("ops"),)),
                "web": NamedCaller(("observe:p*", "observe:*:ws-*"), (hashed("web"),)),
            }
        )
    )
    for target in ("/metrics", "/readyz?verbose"):
        assert (await ask(site, "GET", (target, {}, b""), "ops"))[0] == 200
        assert (await ask(site, "GET", (target, {}, b""), "web"))[0] == 403
        assert (await ask(site, "GET", (target, {}, b"")))[0] == 401
    _, body, _ = await ask(site, "GET", ("/v1/topology", {}, b""), "ops")
    assert set(json.loads(body)["namespaces"]) == {"pages", "users"}
    assert "callers" not in json.loads(body)


PARTITIONED = Callers(
    {"ws": NamedCaller(tuple(f"{action}:{OWN}:ws-*" for action in Action), (hashed("ws"),))}
)
OUTSIDE: list[tuple[str, Sent]] = [
    ("GET", (f"/v1/{OWN}/%7Bother%7D:a", {}, b"")),
    ("GET", (f"/v1/{OWN}/{{other}}:a", {}, b"")),
    ("GET", (f"/v1/{OWN}/{{ws}}:a", {}, b"")),
    ("HEAD", (f"/v1/{OWN}/{{other}}:a", {}, b"")),
    ("PUT", (f"/v1/{OWN}/{{other}}:a", {}, b"")),
    ("DELETE", (f"/v1/{OWN}/{{other}}:a", {}, b"")),
    ("GET", (f"/v1/{OWN}/{{other}}:a:explain", {}, b"")),
    ("POST", (f"/v1/{OWN}:get", JSON, b'{"keys": ["{ws-1}:a", "{other}:a"]}')),
    ("POST", (f"/v1/{OWN}:put", JSON, b'{"items": [{"key": "{ws-1}:a"}, {"key": "{other}:a"}]}')),
    *(
        ("POST", ("/v1/invalidations", JSON, json.dumps({"namespace": OWN, **change}).encode()))
        for change in (
            {"keys": ["{other}:a"]},
            {"tags": ["{other}:t"]},
            {"tags": ["t"]},
            {"tags": ["ws-1"]},
            {"all": True, "confirm": OWN},
            {"all": True, "dry_run": True},
        )
    ),
    ("GET", (f"/v1/hotkeys?namespace={OWN}", {}, b"")),
    ("GET", ("/metrics", {}, b"")),
]
INSIDE: list[tuple[str, Sent]] = [
    ("GET", (f"/v1/{OWN}/{{ws-1}}:a", {}, b"")),
    ("GET", (f"/v1/{OWN}/ws-1", {}, b"")),
    ("PUT", (f"/v1/{OWN}/{{ws-1}}:a", {}, b"")),
    ("DELETE", (f"/v1/{OWN}/{{ws-1}}:a", {}, b"")),
    ("POST", (f"/v1/{OWN}:get", JSON, b'{"keys": ["{ws-1}:a", "{ws-2}:a"], "lease": true}')),
    ("POST", ("/v1/invalidations", JSON, json.dumps({"namespace": OWN, "tags": ["{ws-1}:t"]}).encode())),
]


@pytest.mark.parametrize(("method", "sent"), OUTSIDE)
async def test_a_scope_of_partitions_ends_there(site: Site, method: str, sent: Sent) -> None:
    site.web.door.take(PARTITIONED)
    status, body, _ = await ask(site, method, sent, "ws")
    assert status == 403, body


@pytest.mark.parametrize(("method", "sent"), INSIDE)
async def test_a_scope_of_partitions_reaches_them(site: Site, method: str, sent: Sent) -> None:
    site.web.door.take(PARTITIONED)
    status, body, _ = await ask(site, method, sent, "ws")
    assert status in (200, 204, 404), body


async def test_a_lease_is_the_right_to_fill_and_needs_write(site: Site) -> None:
    site.web.door.take(Callers({"r": NamedCaller((f"read:{OWN}",), (hashed("r"),))}))
    status, body, _ = await ask(site, "GET", (f"/v1/{OWN}/a", {"Prefer": "lease"}, b""), "r")
    assert (status, b"write:pages" in body) == (403, True)
    status, body, _ = await ask(
        site, "POST", (f"/v1/{OWN}:get", JSON, b'{"keys": ["a"], "lease": true}'), "r"
    )
    assert (status, b"write:pages" in body) == (403, True)


# how an identity is shown ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    ["Basic dXNlcjpwYXNz", "Bearer", "Bearer ", "Bearer a b", "bearer\tr", "r", "Bearer rr", "Bearer R"],
)
async def test_anything_but_the_token_is_refused(site: Site, line: str) -> None:
    site.web.door.take(Callers({"r": NamedCaller((f"read:{OWN}",), (hashed("r"),))}, anonymous=("read:*",)))
    status, body, headers = await ask(site, "GET", (f"/v1/{OWN}/a", {"Authorization": line}, b""))
    assert (status, headers["WWW-Authenticate"]) == (401, 'Bearer realm="cachesvc", error="invalid_token"')
    assert b"unknown-identity" in body


@pytest.mark.parametrize("line", ["Bearer r", "bearer r", "BEARER   r"])
async def test_the_scheme_is_read_in_any_case(site: Site, line: str) -> None:
    site.web.door.take(Callers({"r": NamedCaller((f"read:{OWN}",), (hashed("r"),))}))
    assert (await ask(site, "GET", (f"/v1/{OWN}/a", {"Authorization": line}, b"")))[0] == 404


async def test_two_identities_at_once_are_none(site: Site) -> None:
    site.web.door.take(Callers({"r": NamedCaller((f"read:{OWN}",), (hashed("r"),))}))
    for other in ("r", "x"):
        response = await site.exchange(
            f"GET /v1/{OWN}/a HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer r\r\n"
            f"authorization: Bearer {other}\r\n\r\n".encode(),
            "GET",
        )
        assert response[0].status == 401


async def test_a_token_ends_between_two_requests(site: Site) -> None:
    clock = site.clock
    assert isinstance(clock, ManualClock)
    until = datetime.fromtimestamp(clock.now_us() / SECONDS, UTC) + timedelta(seconds=5)
    site.web.door.take(Callers({"r": NamedCaller((f"read:{OWN}",), (hashed("r", until),))}))
    site.hold("a")
    sent: Sent = (f"/v1/{OWN}/a", {}, b"")
    for _ in range(2):
        assert (await ask(site, "GET", sent, "r"))[0] == 200
    clock.advance(seconds=5, us=1)
    status, body, _ = await ask(site, "GET", sent, "r")
    assert (status, b"end of this token" in body) == (401, True)
    assert site.web.door.refusals.expired == 1


async def test_two_tokens_of_one_caller_are_valid_while_they_rotate(site: Site) -> None:
    until = datetime.fromtimestamp(site.clock.now_us() / SECONDS, UTC) + timedelta(seconds=5)
    caller = NamedCaller((f"read:{OWN}",), (hashed("new"), hashed("old", until)))
    site.web.door.take(Callers({"r": caller}))
    for token in ("new", "old"):
        assert (await ask(site, "GET", (f"/v1/{OWN}/a", {}, b""), token))[0] == 404


async def test_anonymous_callers_have_the_scopes_of_the_document(site: Site) -> None:
    site.web.door.take(Callers(anonymous=(f"read:{OWN}",)))
    site.hold("a")
    assert (await ask(site, "GET", (f"/v1/{OWN}/a", {}, b"")))[0] == 200
    status, body, headers = await ask(site, "PUT", (f"/v1/{OWN}/a", {}, b""))
    assert (status, b"write:pages" in body, headers["WWW-Authenticate"]) == (
        401,
        True,
        'Bearer realm="cachesvc"',
    )
    assert site.web.door.refusals.no_identity == 1


async def test_without_callers_everybody_may_do_everything_and_a_token_is_not_looked_at() -> None:
    async with running_site() as site:
        for token in ("", "any"):
            assert (await ask(site, "DELETE", (f"/v1/{OWN}/a", {}, b""), token))[0] == 200


# JWTs --------------------------------------------------------------------------------------------------

KEY = ec.generate_private_key(ec.SECP256R1())


def jwt_of(**other: object) -> str:
    claims = {"iss": "ci", "aud": "cachesvc", "sub": "repo:a/b", "exp": int(time.time()) + 600, **other}
    return jwt.encode(claims, KEY, "ES256", headers={"kid": "k"})


async def test_a_jwt_shows_an_identity_of_its_issuer(site: Site, tmp_path: Path) -> None:
    keys, key = tmp_path / "keys.json", jwt.algorithms.ECAlgorithm.to_jwk(KEY.public_key(), as_dict=True)
    await asyncio.to_thread(keys.write_text, json.dumps({"keys": [{**key, "kid": "k"}]}))
    issuer = Issuer("ci", "cachesvc", (f"read:{OWN}",), jwks_file=str(keys))
    site.web.door.take(Callers(issuers={"ci": issuer}, anonymous=("read:*",)))
    site.hold("a")
    sent: Sent = (f"/v1/{OWN}/a", {}, b"")
    token = jwt_of()
    assert [(await ask(site, "GET", sent, token))[0] for _ in range(2)] == [200, 200]
    status, body, _ = await ask(site, "GET", (f"/v1/{FOREIGN}/a", {}, b""), token)
    assert (status, json.loads(body)["detail"]) == (403, "ci:repo:a/b has not the scope read:users")
    for refused in (jwt_of(aud="x"), jwt_of(exp=1), jwt_of(iss="x"), token[:-4] + "AAAA", "a.b.c"):
        assert (await ask(site, "GET", sent, refused))[0] == 401
    assert (site.web.door.refusals.expired, site.web.door.refusals.unknown) == (1, 4)


async def test_without_the_keys_of_its_issuer_a_jwt_may_be_right_later(site: Site, tmp_path: Path) -> None:
    issuer = Issuer("ci", "cachesvc", (f"read:{OWN}",), jwks_file=str(tmp_path / "none.json"))
    site.web.door.take(Callers(issuers={"ci": issuer}))
    status, body, headers = await ask(site, "GET", (f"/v1/{OWN}/a", {}, b""), jwt_of())
    assert (status, b"issuer-unavailable" in body, headers["Retry-After"]) == (503, True, "1")


# what an audit record names ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "said", "identity"),
    [
        ("i", "", "checkout"),
        ("i", "deploy-42", "checkout"),
        ("i", "admin", "checkout"),
        ("", "checkout", ""),
        ("", "", ""),
    ],
)
async def test_a_header_adds_to_the_identity_and_never_replaces_it(
    site: Site, token: str, said: str, identity: str
) -> None:
    scopes = (f"invalidate:{OWN}",)
    site.web.door.take(Callers({"checkout": NamedCaller(scopes, (hashed("i"),))}, anonymous=scopes))
    headers = {"X-Cachesvc": "x", **({"cachesvc-caller": said} if said else {})}
    sent = (f"/v1/{OWN}/a", headers, b"")
    assert (await ask(site, "DELETE", sent, token))[0] == 200
    (options,) = site.invalidator.saw_options
    assert options.author == Author(identity, "127.0.0.1", said)


# the table ---------------------------------------------------------------------------------------------


def test_a_route_without_a_row_does_not_start() -> None:
    check_routes(ROUTES)
    with pytest.raises(LookupError, match="flush"):
        check_routes([*ROUTES, "flush"])
    with pytest.raises(LookupError, match="topology"):
        check_routes([one for one in ROUTES if one != "topology"])


def test_the_table_of_this_test_has_every_route() -> None:
    assert NEEDS.keys() == ROUTES.keys()
    assert {name for name, rule in ROUTES.items() if rule is None} == OPEN


async def test_a_revoked_identity_loses_its_stream(site: Site) -> None:
    caller = NamedCaller((f"read:{OWN}",), (hashed("r"),))
    site.web.door.take(Callers({"r": caller}))
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(b"GET /v1/fences HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer r\r\n\r\n")
    assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
    site.web.door.take(Callers({"other": replace(caller, tokens=(hashed("o"),))}))
    async with asyncio.timeout(10):
        while await reader.read(1 << 16):
            pass
    writer.close()
