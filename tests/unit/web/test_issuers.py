"""JWTs of configured issuers: which are taken, and what a key server can do to whom."""

import asyncio
import hashlib
import hmac
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp.web
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from msgspec.structs import replace

from cachesvc.config.callers import Callers, Issuer
from cachesvc.model.clock import SECONDS, SystemClock
from cachesvc.model.errors import TierUnavailableError
from cachesvc.model.scope import Scope
from cachesvc.web.access import key_set
from cachesvc.web.access.issuers import ExpiredTokenError, Issuers, RefusedTokenError, scopes_of

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)

ISSUER = "https://ci.example"
DAY = 86_400
"""Seconds. Tokens are made while tests are collected, and checked many minutes later."""


def jwk(key: Any, kid: str, **more: str) -> dict[str, Any]:
    algorithms = {rsa.RSAPrivateKey: "RSAAlgorithm", ec.EllipticCurvePrivateKey: "ECAlgorithm"}
    kind = next((name for base, name in algorithms.items() if isinstance(key, base)), "OKPAlgorithm")
    found = getattr(jwt.algorithms, kind).to_jwk(key.public_key(), as_dict=True)
    return {**found, "kid": kid, **more}


KEYS = {"keys": [jwk(RSA, "r"), jwk(EC, "e", use="sig"), jwk(ED, "d", alg="EdDSA")]}


def claims(**other: Any) -> dict[str, Any]:
    now = int(time.time())
    right = {"iss": ISSUER, "aud": "cachesvc", "sub": "repo:a/b", "exp": now + DAY, "nbf": now - 1}
    return {name: value for name, value in {**right, **other}.items() if value is not None}


def signed(key: Any = RSA, algorithm: str = "RS256", kid: str = "r", **other: Any) -> str:
    payload, headers = json.dumps(claims(**other)).encode(), {"kid": kid} if kid else None
    return jwt.PyJWS().encode(payload, key, algorithm, headers)


def forged(header: Mapping[str, Any], secret: bytes | None) -> str:
    """A token with any header; its signature is an HMAC with the secret, or missing."""
    parts = [urlsafe_b64encode(json.dumps(one).encode()).rstrip(b"=") for one in (header, claims())]
    text = b".".join(parts)
    signature = b"" if secret is None else hmac.digest(secret, text, hashlib.sha256)
    return (text + b"." + urlsafe_b64encode(signature).rstrip(b"=")).decode()


def issuers(**fields: Any) -> Issuers:
    right = {"issuer": ISSUER, "audience": "cachesvc", "scopes": ("read:pages",)}
    return Issuers(Callers(issuers={"ci": Issuer(**{**right, **fields})}), SystemClock())


@pytest.fixture
def known(tmp_path: Path) -> Issuers:
    (tmp_path / "keys.json").write_text(json.dumps(KEYS))
    return issuers(jwks_file=str(tmp_path / "keys.json"))


@pytest.mark.parametrize(
    "token",
    [
        signed(),
        signed(EC, "ES256", "e"),
        signed(ED, "EdDSA", "d"),
        signed(aud=["x", "cachesvc"]),
        signed(nbf=None),
    ],
)
async def test_a_valid_token_names_its_caller_and_its_end(known: Issuers, token: str) -> None:
    bearer = await known.bearer(token)
    assert (bearer.name, bearer.scopes) == ("ci:repo:a/b", (Scope.parse("read:pages"),))
    assert 290 * SECONDS < bearer.end_us - SystemClock().now_us() <= 300 * SECONDS, "looked at again soon"


async def test_the_end_of_a_short_token_is_its_own(known: Issuers) -> None:
    now = int(time.time())
    bearer = await known.bearer(signed(exp=now + 60))
    assert bearer.end_us == (now + 60 + 30) * SECONDS, "with the leeway"


PUBLIC_PEM = RSA.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)
NOW = int(time.time())


@pytest.mark.parametrize(
    ("token", "why"),
    [
        (forged({"alg": "none", "kid": "r"}, None), "its algorithm"),
        (forged({"alg": "None", "kid": "r"}, None), "its algorithm"),
        (forged({"alg": "HS256", "kid": "r"}, PUBLIC_PEM), "its algorithm"),
        (forged({"alg": "RS256", "kid": "r"}, PUBLIC_PEM), "its signature or its claims"),
        (forged({"alg": "ES256", "kid": "r"}, PUBLIC_PEM), "its signature or its claims"),
        (forged({"alg": "RS256", "kid": "r", "crit": ["x"]}, b""), "no token"),
        (forged({"kid": "r"}, b""), "no token|its algorithm"),
        (forged({"alg": ["RS256"], "kid": "r"}, b""), "no token|its algorithm"),
        (forged({"alg": "RS256", "kid": 7}, b""), "no token|its algorithm"),
        (signed(OTHER_RSA), "its signature or its claims"),
        (signed(kid="nobodys"), "no such key"),
        (signed(kid=""), "no such key"),
        (signed(RSA, "RS512"), "its algorithm"),
        (signed(aud="another"), "another audience"),
        (signed(aud=None), "its signature or its claims"),
        (signed(exp=None), "its signature or its claims"),
        (signed(exp="soon"), "its signature or its claims"),
        (signed(exp=NOW - 31), "its end has come"),
        (signed(nbf=NOW + DAY), "its beginning has not come"),
        (signed(iat=NOW + DAY), "its beginning has not come"),
        (signed(iss="https://other.example"), "no token of an issuer"),
        (signed(iss=None), "no token of an issuer"),
        (signed(iss=[ISSUER]), "no token of an issuer"),
        (signed(sub=None), "the claim that names its caller"),
        (signed(sub="a b"), "the claim that names its caller"),
        (signed(sub="a\x1b[2J"), "the claim that names its caller"),
        (signed(sub="a (root)"), "the claim that names its caller"),
        (signed(sub=""), "the claim that names its caller"),
        ("a.b.c", "no token of an issuer"),
        ("..", "no token of an issuer"),
        (signed()[:-6] + "AAAAAA", "its signature or its claims"),
    ],
)
async def test_any_other_token_is_refused(known: Issuers, token: str, why: str) -> None:
    with pytest.raises(RefusedTokenError, match=why):
        await known.bearer(token)


async def test_an_expired_token_is_told_from_others(known: Issuers) -> None:
    with pytest.raises(ExpiredTokenError):
        await known.bearer(signed(exp=NOW - 31))


async def test_a_secret_in_a_key_set_is_no_key(tmp_path: Path) -> None:
    secret = {"kty": "oct", "k": urlsafe_b64encode(b"s" * 32).decode(), "kid": "s", "alg": "HS256"}
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [secret, jwk(RSA, "r", use="enc")]}))
    reading = issuers(jwks_file=str(tmp_path / "keys.json"))
    for token in (forged({"alg": "HS256", "kid": "s"}, b"s" * 32), signed()):
        with pytest.raises(RefusedTokenError):
            await reading.bearer(token)


async def test_a_set_with_one_key_needs_no_id(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [jwk(RSA, "r")]}))
    assert (await issuers(jwks_file=str(tmp_path / "keys.json")).bearer(signed(kid=""))).name == "ci:repo:a/b"


async def test_new_callers_forget_no_keys_of_an_issuer_that_stays(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    await asyncio.to_thread(file.write_text, json.dumps(KEYS))
    issuer = Issuer(ISSUER, "cachesvc", ("read:pages",), jwks_file=str(file))
    first = Issuers(Callers(issuers={"ci": issuer}), SystemClock())
    await first.bearer(signed())
    await asyncio.to_thread(file.unlink)
    again = Issuers(Callers(issuers={"ci": issuer}), SystemClock(), first)
    assert (await again.bearer(signed())).name == "ci:repo:a/b"
    other = Issuers(Callers(issuers={"ci": replace(issuer, audience="x")}), SystemClock(), first)
    with pytest.raises(TierUnavailableError):
        await other.bearer(signed())


@pytest.mark.parametrize(
    ("claimed", "scopes"),
    [
        ("read:pages openid", ["read:pages"]),
        (["read:pages", "write:pages", 7, None], ["read:pages"]),
        ("read:pages:ws-* read:* read:page*", ["read:pages:ws-*"]),
        ("write:shop-1 write:shop-* write:*", ["write:shop-1", "write:shop-*"]),
        (None, []),
        ({"a": "read:pages"}, []),
        (7, []),
    ],
)
def test_a_claim_gives_no_more_than_its_issuer_may(claimed: object, scopes: list[str]) -> None:
    issuer = Issuer(ISSUER, "a", ("read:pages", "write:shop-*"), scopes_claim="scope", jwks_file="f")
    assert [str(one) for one in scopes_of(issuer, {"scope": claimed})] == scopes


# key servers -------------------------------------------------------------------------------------------

Answer = Callable[[aiohttp.web.BaseRequest], Awaitable[aiohttp.web.StreamResponse]]


class KeyServer:
    """A key server whose answer a test chooses; it counts the requests."""

    def __init__(self) -> None:
        self.keys: object = KEYS
        self.asked = 0
        self.answer: Answer = self.give
        self.url = ""

    async def give(self, _: aiohttp.web.BaseRequest) -> aiohttp.web.StreamResponse:
        return aiohttp.web.json_response(self.keys)

    async def handle(self, request: aiohttp.web.BaseRequest) -> aiohttp.web.StreamResponse:
        self.asked += 1
        return await self.answer(request)


@pytest.fixture
async def key_server() -> AsyncIterator[KeyServer]:
    serving = KeyServer()
    runner = aiohttp.web.ServerRunner(aiohttp.web.Server(serving.handle), shutdown_timeout=0.01)
    await runner.setup()
    site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    serving.url = f"http://127.0.0.1:{runner.addresses[0][1]}/keys"
    yield serving
    await runner.cleanup()


class Watch:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def set_of(url: str, now: Watch) -> key_set.KeySet:
    return key_set.KeySet("ci", Issuer(ISSUER, "a", ("read:pages",), jwks_url=url), now)


async def test_a_new_key_is_fetched_when_a_token_names_it(key_server: KeyServer) -> None:
    watch = Watch()
    keys = set_of(key_server.url, watch)
    assert await keys.key("r") is not None
    key_server.keys = {"keys": [jwk(OTHER_RSA, "new")]}
    assert await keys.key("new") is None, "so soon after the last fetch nobody asks"
    watch.seconds += key_set.PAUSE_SECONDS
    found = await asyncio.gather(*(keys.key("new") for _ in range(20)))
    assert all(found)
    assert key_server.asked == 2
    assert await keys.key("r") is None, "the old one is withdrawn"


async def test_unknown_keys_cause_one_fetch_in_a_pause(key_server: KeyServer) -> None:
    watch = Watch()
    keys = set_of(key_server.url, watch)
    for number in range(50):
        assert await keys.key(f"made-up-{number}") is None
    assert key_server.asked == 1


async def hangs(_: aiohttp.web.BaseRequest) -> aiohttp.web.StreamResponse:
    await asyncio.sleep(60)
    raise AssertionError


async def endless(request: aiohttp.web.BaseRequest) -> aiohttp.web.StreamResponse:
    response = aiohttp.web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" " * 65536)


async def redirects(_: aiohttp.web.BaseRequest) -> aiohttp.web.StreamResponse:
    return aiohttp.web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"})


def gives(text: str) -> Answer:
    async def answer(_: aiohttp.web.BaseRequest) -> aiohttp.web.StreamResponse:
        return aiohttp.web.Response(text=text)

    return answer


BROKEN: Mapping[str, Answer] = {
    "hangs": hangs,
    "endless": endless,
    "redirects": redirects,
    "no JSON": gives("<html>"),
    "no set": gives("[]"),
    "no keys": gives('{"keys": {}}'),
    "deep": gives("[" * 100_000),
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN.keys())
async def test_a_key_server_that_is_broken_holds_up_nobody_whose_key_is_known(
    key_server: KeyServer, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_set, "FETCH_SECONDS", 0.2)
    watch = Watch()
    keys = set_of(key_server.url, watch)
    assert await keys.key("r") is not None
    key_server.answer = answer
    watch.seconds += key_set.REFRESH_SECONDS
    waiting = asyncio.create_task(keys.key("new"))
    await asyncio.sleep(0)
    assert await keys.key("r") is not None
    assert await waiting is None
    assert await keys.key("r") is not None, "a set that was fetched stays in force"
    keys.stop()


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN.keys())
async def test_without_any_keys_nobody_knows_whether_a_token_is_right(
    key_server: KeyServer, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_set, "FETCH_SECONDS", 0.2)
    key_server.answer = answer
    keys = set_of(key_server.url, Watch())
    for _ in range(2):
        with pytest.raises(TierUnavailableError):
            await keys.key("r")
    assert key_server.asked == 1
