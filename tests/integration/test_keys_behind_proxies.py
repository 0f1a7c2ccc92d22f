"""No key leaves its prefix behind nginx and HAProxy, however they normalise paths.

The origin may decode what arrives once more, and take `;…` for parameters, as servlets do. So the
worst reading of each path that arrives must be below the prefix.
"""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from functools import cache
from posixpath import normpath
from typing import NamedTuple
from urllib.parse import unquote

import pytest

from cachesvc.config.topology import Origin
from cachesvc.model.clock import SystemClock
from cachesvc.model.entry import Key
from cachesvc.model.errors import OriginError
from cachesvc.model.problems import ProblemKind
from cachesvc.tiers.origin.address import KeyAddress
from cachesvc.tiers.origin.http import HttpLoader
from tests.doubles.proxies import (
    HAPROXY,
    HAPROXY_PLACES,
    NGINX,
    NGINX_PLACES,
    free_port,
    haproxy,
    nginx,
)
from tests.doubles.raw_origin import RawOrigin, Then, http

PREFIXES = ("/keys", "/data/keys")
DOTS = (".", "..", "%2e", "%2e%2e", "%2E.", ".%2e", "%252e%252e", "%25252e.", "%%32%65%%32%65")
SLASHES = ("/", "//", "\\", "%2f", "%2F", "%5c", "%252f", "%255C", "%%32%66", "/;/", ";a/")
OTHER = (
    "a",
    "a;b",
    ";",
    "..;",
    "..;a=b",
    "...",
    "a.",
    "．．",
    "‥",
    "∕",
    "／",
    "?",
    "#",
    "%3f",
    "%",
    "%00",
    "%zz",
    " ",
    "é",
)
HARMLESS = (
    "plain",
    "{ws-7}:block:42",
    "a/b",
    "a/b/",
    "ünïcode",
    "a;b",
    "100%",
    "a=b&c",
    "...",
    "a.b",
    "..a/b..",
    "?",
    "#a",
    "https%3A%2F%2Fexample.com%2Fa",
)
"""Keys that must not be refused."""
TEMPLATES = ("/keys/{key}", "/keys/{key}/raw", "/keys/k-{key}", "/keys/{key}.json", "/keys/{key};v=1")


def nasty() -> Iterator[str]:
    """Yields keys that try to leave: each dot segment, as it may be written, between slashes."""
    for dots, slash in itertools.product((*DOTS, "..;", "..;a=b", ".;"), SLASHES):
        yield f"{dots}{slash}secret"
        yield f"a{slash}{dots}{slash}{dots}{slash}secret"
        yield f"a{slash}{dots}"
    yield from (f"{one}{slash}x" for one, slash in itertools.product(OTHER, SLASHES))
    yield from (*DOTS, *OTHER, *SLASHES)
    chance = random.Random(7)
    for _ in range(200):
        yield "".join(chance.choices((*DOTS, *SLASHES, *OTHER), k=chance.randint(1, 6)))


def readings(target: str) -> Iterator[str]:
    """Yields every path that some server may take the target for."""
    path = target
    while True:
        for cut in (path, path.partition("?")[0], path.partition("#")[0]):
            yield cut.replace("\\", "/")
        decoded = unquote(path)
        if decoded == path:
            return
        path = decoded


def leaves(target: str) -> bool:
    """True if some reading of the target is not below the prefix."""
    for path in readings(target):
        plain = "/".join(segment.partition(";")[0] for segment in path.split("/"))
        for reading in (path, plain):
            found = "/" + normpath(reading).lstrip("/")
            if not any(found == prefix or found.startswith(f"{prefix}/") for prefix in PREFIXES):
                return True
    return False


def test_the_worst_reading_is_seen() -> None:
    outside = (
        "/secret",
        "/keys/../secret",
        "/keys/%252e%252e%255csecret",
        "/data/keys/..;a=b/secret",
        "/keysecret",
    )
    assert all(map(leaves, outside))
    assert not leaves("/data/keys/..a/%2Fb;c?d")


class Origins:
    """The origin behind the proxies, at a port that they know before it is there."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.raw = RawOrigin()
        self.raw.answer = http(200, b"v", "Cache-Control: max-age=60", "Connection: close")
        self.raw.then = Then.CLOSE

    @property
    def targets(self) -> list[str]:
        """Whatever a proxy made of a request target, spaces too."""
        lines = [head.partition("\r\n")[0] for head in self.raw.requests]
        return [line.partition(" ")[2].rpartition(" HTTP/")[0] for line in lines]


PROXIES = {"nginx": (NGINX, nginx, NGINX_PLACES), "haproxy": (HAPROXY, haproxy, HAPROXY_PLACES)}


class Behind(NamedTuple):
    """Proxies of one kind, each by its base URL, and the port of the origin behind them."""

    urls: Mapping[str, str]
    port: int


@pytest.fixture(scope="module")
def behind() -> Iterator[Callable[[str], Behind]]:
    """Starts each kind of proxy when it is first asked for."""
    with ExitStack() as stack:

        @cache
        def start(kind: str) -> Behind:
            binary, proxy, _ = PROXIES[kind]
            if binary is None:
                pytest.skip(f"no {kind} on PATH")
            port = free_port()
            return Behind(stack.enter_context(proxy(f"127.0.0.1:{port}")), port)

        yield start


@pytest.fixture(
    params=[(kind, place) for kind, (_, _, places) in PROXIES.items() for place in places], ids=": ".join
)
def place(request: pytest.FixtureRequest, behind: Callable[[str], Behind]) -> tuple[str, Origins]:
    """The URL of a proxy, and the origin behind it."""
    kind, name = request.param
    found = behind(kind)
    return found.urls[name], Origins(found.port)


@asynccontextmanager
async def asking(origin: Origins, url: str) -> AsyncIterator[Callable[[str], Awaitable[ProblemKind | None]]]:
    """A loader of `url`; the call returns the problem of a key's load, or None."""
    server = await asyncio.start_server(origin.raw.serve, "127.0.0.1", origin.port)
    loader = HttpLoader("keys", Origin(url), clock=SystemClock())
    await loader.start()
    turn = asyncio.Semaphore(16)

    async def ask(text: str) -> ProblemKind | None:
        async with turn:
            try:
                await loader.load(Key.of("keys", text), known=None, timeout_seconds=30)
            except OriginError as error:
                return error.kind
            return None

    try:
        yield ask
    finally:
        await loader.stop()
        server.close()
        await origin.raw.until(lambda: origin.raw.open == 0)


@pytest.mark.parametrize("template", TEMPLATES)
def test_no_url_leaves_its_prefix(template: str) -> None:
    """No server that decodes and normalises a path is led out of the prefix."""
    address, refused, asked = KeyAddress(f"http://origin{template}"), 0, 0
    for key in nasty():
        try:
            target = address.of(key).raw_path_qs
        except ValueError:
            refused += 1
        else:
            asked += 1
            assert not leaves(target), key
    assert min(refused, asked) > 200


@pytest.mark.parametrize("template", ["/keys/{key}", "/keys/{key}.json"])
async def test_no_key_leaves_its_prefix(place: tuple[str, Origins], template: str) -> None:
    url, origin = place
    keys = sorted(set(nasty()))
    async with asking(origin, f"{url}{template}") as ask:
        kinds = await asyncio.gather(*map(ask, keys))
    assert sorted({target for target in origin.targets if leaves(target)}) == []
    # A key that was not refused has arrived, or the proxy itself has refused it.
    assert 0 < len(origin.targets) <= len(keys) - kinds.count(ProblemKind.BAD_KEY)


async def test_harmless_keys_arrive(place: tuple[str, Origins]) -> None:
    url, origin = place
    async with asking(origin, f"{url}/keys/{{key}}") as ask:
        kinds = dict(zip(HARMLESS, await asyncio.gather(*map(ask, HARMLESS)), strict=True))
    assert ProblemKind.BAD_KEY not in kinds.values()
    assert not any(map(leaves, origin.targets))
    assert {"plain", "{ws-7}:block:42", "a/b", "ünïcode", "a;b"} <= {
        key for key, kind in kinds.items() if not kind
    }
