"""The fast lane and aiohttp's way answer alike: bytes, counts, spans, ends of connections."""

import asyncio
import contextlib
import hashlib
import itertools
import os
import random
import re
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from typing import Any

import msgspec
import pytest
from aiohttp.http import HttpVersion11, RawRequestMessage
from msgspec.structs import replace
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from cachesvc.config.callers import Callers, NamedCaller, Token
from cachesvc.config.limits import Rate, Rates
from cachesvc.config.service import Server, Telemetry
from cachesvc.model.clock import SECONDS
from cachesvc.model.entry import Key
from cachesvc.model.errors import RequestError
from cachesvc.model.problems import ProblemKind
from cachesvc.model.requests import Answer, Outcome
from cachesvc.model.units import Duration
from cachesvc.model.use import Use
from cachesvc.telemetry.traces import sampling
from cachesvc.telemetry.traces.trace import Span
from cachesvc.web import listener, server
from cachesvc.web.lane import MOST_BLOCKS, Lane, PlainRead, Waits
from cachesvc.web.ports import Port
from cachesvc.web.rates import RateLimits
from cachesvc.web.requests.bodies import JSON, MSGPACK
from cachesvc.web.requests.hosts import Hosts
from cachesvc.web.server import Web
from tests.doubles.clocks import START_US
from tests.doubles.paths import MISSED
from tests.doubles.spans import Recording
from tests.wire.conftest import LIMITS, Response, Site, read_response, running_site, until

CONNECTIONS = int(os.environ.get("LANE_CONNECTIONS", "25"))
"""Random connections for each state of the service."""
TOKEN = "t" * 32
TRACED = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"

HEADERS = [
    "Host: test\r\n",
    "Host: test\r\nUser-Agent: wrk\r\nAccept: */*\r\n",
    "host: test\r\naccept-encoding: gzip\r\nconnection: keep-alive\r\n",
    f"Host: test\r\nAuthorization: Bearer {TOKEN}\r\n",
    f"Host: test\r\nTraceparent: 00-{TRACED}-00\r\nAccept: */*\r\n",
]
"""Blocks of header lines that the lane may learn, or that have what it does not look at."""
MORE = [
    f"traceparent: 00-{TRACED}-01\r\n",
    f"traceparent: 00-{TRACED}-00\r\n",
    f"traceparent: 00-{TRACED}-00\r\ntraceparent: 00-{TRACED}-01\r\n",
    f"Traceparent: 01-{TRACED}-00\r\n",
    f"traceparent: 00-{'0' * 32}-00f067aa0ba902b7-01\r\n",
    "tracestate: a=b\r\n",
    "Authorization: Bearer wrong\r\n",
    "Cache-Control: no-cache\r\n",
    "Cache-Control: max-age=0\r\n",
    "If-None-Match: *\r\n",
    "Range: bytes=0-1\r\n",
    "X-Request-Id: mine\r\n",
    "Cachesvc-Token: ?\r\n",
    "Content-Length: 0\r\n",
    "Host: evil.example\r\n",
]
"""Lines that a request may have beside them."""
ODD = [
    "Connection: close\r\n",
    "Connection: upgrade\r\nUpgrade: websocket\r\n",
    "Content-Length: x\r\n",
    "Host: test\r\n",
    "Accept : */*\r\n",
    "Accept: a\r\n b\r\n",
    "Accept: \xff\x00\r\n",
    "User-Agent: a\n",
    "\r\n",
]
"""Lines with which a connection often ends."""
OF_BATCHES = [
    *["Cachesvc-Timeout: 250ms\r\n", "cachesvc-timeout: 30s\r\n"] * 6,
    "Cachesvc-Timeout: 250ms\r\nCachesvc-Timeout: 1s\r\n",
    "Cachesvc-Timeout: \r\n",
    "Cachesvc-Timeout: 0s\r\n",
    "Content-Type: application/json\r\n",
    "Content-Length: 7\r\n",
    "Content-Encoding: gzip\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Expect: 100-continue\r\n",
    "Prefer: lease\r\n",
]
"""Lines that a batch may have beside the others."""
ASKED: list[dict[str, object]] = [
    {"lease": True, "wait": 1.0},
    {"max_lag": "1us"},
    {"max_lag": "?"},
    {"token": "?"},
    {"keys": []},
    {"keys": "held"},
    {"more": 1},
]
"""Members of a batch beside the keys, or instead of them."""
TARGETS = [
    *["/v1/pages/held"] * 16,
    "/v1/pages/other",
    "/v1/pages/tagged",
    "/v1/pages/absent",
    "/v1/pages/missing",
    "/v1/pages/large",
    *["/v1/pages/of-l2"] * 6,
    *["/v1/pages/of-l3"] * 2,
    "/v1/pages/loaded",
    "/v1/pages/private",
    "/v1/pages/gone",
    "/v1/pages/failing",
    "/v1/pages/odd",
    "/v1/pages/huge",
    "/v1/pages/broken",
    "/v1/users/held",
    "/v1/nowhere/held",
    "/v1/pages/held:explain",
    "/v1/pages/he%6Cd",
    "/v1/pages/held?x",
    "/v1/pages/held/x",
    "/v1/pages/" + "k" * 1024,
    "/v1/pages/" + "k" * 1025,
    "/v1//held",
    "http://test/v1/pages/held",
    "/livez",
    "*",
]
METHODS = ["HEAD", "DELETE", "get", "OPTIONS", "BREW"]
VERSIONS = ["HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "http/1.1", "HTTP/1.1 "]
BODIES = [
    "Content-Length: 3\r\n\r\nnew",
    "Content-Length: 7\r\n\r\nnew\r\n\r\n",
    "Transfer-Encoding: chunked\r\n\r\n3\r\nnew\r\n0\r\n\r\n",
]


def one_request(rng: random.Random) -> tuple[bytes, bool]:
    """A request, and True if it may be malformed."""
    how, lines = rng.random(), rng.choice(HEADERS)
    if how < 0.1:
        key = rng.choice(["held", "other"])
        return f"PUT /v1/pages/{key} HTTP/1.1\r\nHost: test\r\n{rng.choice(BODIES)}".encode(), False
    method, version, target = "GET", "HTTP/1.1", rng.choice(TARGETS)
    if how < 0.25:
        lines += rng.choice(MORE)
    elif how < 0.3:
        lines += rng.choice(ODD)
    elif how < 0.33:
        version = rng.choice(VERSIONS)
    elif how < 0.38:
        method = rng.choice(METHODS)
    sent = f"{method} {target} {version}\r\n{lines}\r\n".encode("latin-1")
    if is_changed := rng.random() < 0.02:
        at = rng.randrange(len(sent))
        sent = sent[:at] + bytes([rng.choice(b"\r\n\0 :aG\xff")]) + sent[at + 1 :]
    return sent, is_changed or how >= 0.25 or target == "*" or lines.lower().count("host") > 1


def one_batch(rng: random.Random) -> tuple[bytes, bool]:
    """A batch of reads, and True if it may be malformed."""
    lines = rng.choice(HEADERS[:1] * 5 + HEADERS)
    media = rng.choice(
        [*[MSGPACK] * 12, JSON, "application/x-msgpack", "Application/Json; a=b", "text/plain"]
    )
    keys = [rng.choice(["held", "tagged", "absent"]) for _ in range(rng.choice([1, 1, 2, 4, 6]))]
    asked: dict[str, object] = {"keys": keys}
    if rng.random() < 0.2:
        keys.append(rng.choice(["missing", "other", "large", "", "\n", "k" * 1025, "é"]))
    if rng.random() < 0.1:
        asked.update(rng.choice(ASKED))
    body = (msgspec.json if "json" in media.lower() else msgspec.msgpack).encode(asked)
    target, odd = (
        rng.choice([*["/v1/pages:get"] * 12, "/v1/users:get", "/v1/nowhere:get", "/v1/pages:put"]),
        "",
    )
    how = rng.random()
    if how < 0.1:
        odd = rng.choice(MORE[:-2])
    elif how < 0.25:
        odd = rng.choice(OF_BATCHES)
    elif how < 0.28:
        odd = rng.choice(ODD)
    elif how < 0.3:
        body = rng.choice([body[:-1], body + b"x", b"\xc1", b""])
    length = rng.choice([*["Content-Length"] * 9, "content-length"])
    framing = [f"Content-Type: {media}\r\n", f"{length}: {len(body)}\r\n"]
    if rng.random() < 0.1:
        framing.reverse()
    version = "HTTP/1.1" if rng.random() < 0.97 else rng.choice(VERSIONS)
    head = f"POST {target} {version}\r\n{lines}{framing[0]}{odd}{framing[1]}\r\n"
    return head.encode("latin-1") + body, how < 0.28 or version != "HTTP/1.1" or not body


def one_connection(rng: random.Random) -> list[bytes]:
    """The pieces that are sent: requests, cut anywhere or nowhere.

    A request that may be malformed begins a piece: aiohttp drops what it has read of the same piece
    before that.
    """
    kind = one_batch if rng.random() < 0.4 else one_request
    requests = [kind(rng) for _ in range(rng.randint(1, 10))]
    if kind is one_batch and rng.random() < 0.5:
        requests.insert(rng.randint(0, len(requests)), one_request(rng))
    closing = rng.choice(["", "Connection: close\r\n"])
    requests.append((f"GET /v1/pages/held HTTP/1.1\r\nHost: test\r\n{closing}\r\n".encode(), False))
    cuts, how, sent = {0}, rng.random(), b""
    for request, is_odd in requests:
        if is_odd or how < 0.5:  # as most clients do: one request after the other
            cuts.add(len(sent))
        sent += request
    if how > 0.25:
        cuts.update(rng.choices(range(len(sent)), k=rng.randint(0, 4)))
    return [sent[a:b] for a, b in itertools.pairwise([*sorted(cuts), len(sent)])]


async def answers(site: Site, pieces: Sequence[bytes]) -> tuple[bytes, bool]:
    """Returns all bytes that a connection brings, to which these pieces are sent, to its end.

    And True if that was a reset, with which the system may have dropped the last bytes.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    found = bytearray()

    async def read() -> bool:
        try:
            while part := await reader.read(1 << 16):
                found.extend(part)
        except ConnectionError:
            return True
        return False

    reading = asyncio.create_task(read())
    try:
        for piece in pieces:
            writer.write(piece)
            for _ in range(8):
                await asyncio.sleep(0)
        with contextlib.suppress(OSError):
            writer.write_eof()
        is_reset = await asyncio.wait_for(reading, 20)
        return bytes(found), is_reset
    finally:
        writer.close()


def fill(site: Site) -> None:
    """Gives the site copies in L1, and answers beyond it."""
    site.hold("held", b"H" * 100)
    site.hold("other", b"", ttl=1)
    site.hold("absent", negative=True)
    site.hold("large", b"L" * 200_000)
    site.reader.l1["tagged"] = replace(site.hold("tagged"), tags=("a", 'b"'))
    made = site.reader.l1.pop("made", None) or site.hold("made", b"M" * 500)
    del site.reader.l1["made"]
    failure = RequestError(ProblemKind.ORIGIN_FAILED, "the origin failed", retry_after=3)
    site.reader.answers = {
        "of-l2": Answer(Outcome.HIT, made, "l2", MISSED[2:]),
        "of-l3": Answer(Outcome.STALE, replace(made, fresh_until=made.as_of), "l3", MISSED[1:]),
        "loaded": Answer(Outcome.LOADED, made, "origin", MISSED),
        "private": Answer(Outcome.LOADED, made, "origin", MISSED, use=Use(False, False, "private")),
        "gone": Answer(Outcome.ABSENT, replace(made, value=b"", negative=True), "l3", MISSED[1:]),
        "failing": Answer(Outcome.ERROR, trail=MISSED, error=failure),
        "odd": Answer(Outcome.LOADED, replace(made, confirmed=False), "origin", MISSED, unmet=True),
        "huge": Answer(Outcome.HIT, replace(made, value=b"h" * 300_000), "l2", MISSED[2:]),
    }
    site.reader.breaks_at = "broken"


ID = re.compile(rb'(X-Request-Id: |"request_id":")[0-9a-f]{24}')


@pytest.fixture(autouse=True)
def _untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer says how long it took: that is another time in each of two services."""
    monkeypatch.setattr(server, "FROM_SECONDS", inf)


@dataclass
class Pair:
    """A service with the fast lane, and one without."""

    fast: Site
    slow: Site
    spans: Sequence[Recording] = ()

    @property
    def sites(self) -> tuple[Site, Site]:
        return self.fast, self.slow

    async def same(self, pieces: Sequence[bytes]) -> bytes:
        """Returns the answer of both to the pieces."""
        (fast, is_reset), (slow, is_slow_reset) = [await answers(site, pieces) for site in self.sites]
        fast, slow = ID.sub(rb"\1-", fast), ID.sub(rb"\1-", slow)
        if is_reset or is_slow_reset:
            assert fast.startswith(slow) or slow.startswith(fast), pieces
        else:
            assert fast == slow, pieces
        assert counted(self.fast) == counted(self.slow), pieces
        told = [[described(span) for span in one.spans] for one in self.spans]
        assert told[:1] == told[1:], pieces
        return fast


def described(span: Span) -> tuple[object, ...]:
    trace_id = span.context.trace_id if span.parent_id else 0
    return span.name, span.kind, trace_id, span.parent_id, sorted(span.attributes.items()), span.error


def counted(site: Site) -> tuple[object, ...]:
    counts, connections = site.metrics.counts, site.web.data.connections
    return (
        dict(counts.requests),
        dict(counts.refusals),
        dict(counts.batch_keys),
        {name: sum(one.buckets) for name, one in counts.latency.items()},
        (connections.closed_idle, connections.refused, connections.untaken, connections.heads),
        (connections.idled, connections.slow_heads, site.web.in_flight.held),
        site.web.door.refusals,
        site.reader.saw,
        site.reader.traces,
    )


@pytest.fixture
def by_lane(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The answers of the lane, of services that are made later; empty ones came later."""
    given: list[bytes] = []
    answer_soon = Web._answer_soon

    def noting(web: Web, port: Port, read: PlainRead, most_bytes: int, waits: Waits) -> bytes | None:
        answer = answer_soon(web, port, read, most_bytes, waits)
        if answer is not None:
            given.append(answer)
        return answer

    monkeypatch.setattr(Web, "_answer_soon", noting)
    return given


def callers(*names: str) -> Callers:
    """Anonymous callers may read pages; the one with the token may do more, for five seconds."""
    until = datetime.fromtimestamp(START_US / SECONDS + 5, UTC)
    token = Token(hashlib.sha256(TOKEN.encode()).hexdigest(), until=until)
    named = {
        name: NamedCaller(scopes=("read:users", "write:pages", "read:pages"), tokens=(token,))
        for name in names
    }
    return Callers(anonymous=("read:pages",), named=named)


def few() -> RateLimits:
    rates = Rates(reads=Rate(0.02, burst=25))
    return RateLimits({"pages": rates}, {"a": rates}, instances=1, now=lambda: 1.0)


NEVER = Duration(3600 * SECONDS)
STATES: dict[str, dict[str, Callable[[], Any]]] = {
    "plain": {},
    "any host": {"host": lambda: "::"},
    "rates": {"rates": few},
    "callers": {"callers": lambda: callers("a")},
    "traced": {"telemetry": lambda: Telemetry(trace_ratio=0.0, slow=NEVER), "recorder": Recording},
    "all traced": {"telemetry": lambda: Telemetry(trace_ratio=1.0, slow=NEVER), "recorder": Recording},
    "all slow": {"telemetry": lambda: Telemetry(trace_ratio=0.0, slow=Duration(1)), "recorder": Recording},
}


@asynccontextmanager
async def pair(
    monkeypatch: pytest.MonkeyPatch, state: str = "plain", limits: Server = LIMITS
) -> AsyncIterator[Pair]:
    # Else a slow moment of one of the two is a difference.
    monkeypatch.setattr(server, "FROM_SECONDS", 3600.0)
    first, second = [{name: make() for name, make in STATES[state].items()} for _ in range(2)]
    async with running_site(limits=limits, **first) as fast:
        with monkeypatch.context() as without:
            without.setattr(Web, "_has_lane", False)
            slow_site = running_site(limits=limits, **second)
            slow = await slow_site.__aenter__()
        both = Pair(fast, slow, [one["recorder"] for one in (first, second) if "recorder" in one])
        for site in both.sites:
            fill(site)
        yield both
        await slow_site.__aexit__(None, None, None)


@pytest.mark.parametrize("state", STATES)
async def test_random_connections_are_answered_alike(
    state: str, by_lane: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "KEPT_PER_SECOND", 1 << 30)
    rng = random.Random(state + os.environ.get("LANE_SEED", ""))
    statuses: Counter[bytes] = Counter()
    async with pair(monkeypatch, state) as both:
        for _ in range(2):
            await both.same([batch("held")] * 4)
        for number in range(CONNECTIONS):
            found = await both.same(one_connection(rng))
            statuses.update(re.findall(rb"HTTP/1.1 ([0-9]{3})", found))
            if number % 5 == 4:
                for site in both.sites:
                    change(site, number // 5)
    batches = sum(b"Content-Type: " + MSGPACK.encode() in answer for answer in by_lane)
    print(f"{state}: {len(by_lane)} answers of the lane, {batches} to batches; all: {dict(statuses)}")
    assert batches > 2
    assert statuses.total() > len(by_lane)
    assert len(by_lane) > CONNECTIONS / 4
    assert all(one.spans for one in both.spans)


def change(site: Site, number: int) -> None:
    """Makes one of the changes that happen while connections come and go."""
    match number % 4:
        case 0:
            site.paths.hot_keys.spread.hot[Key.of("pages", "held").digest] = 3
            site.paths.hot_keys.spread._hot_until_us = 1 << 62
        case 1:
            site.clock.advance(seconds=2)
        case 2:
            site.hold("held", b"another")
        case 3 if not site.web.door._is_open:
            site.web.door.take(callers(*["a"] * (number % 8 == 7)))


# what the lane answers, and what it leaves ----------------------------------------------------------

PLAIN = b"GET /v1/pages/k HTTP/1.1\r\nHost: test\r\n\r\n"
MISSING = PLAIN.replace(b"/k ", b"/missing ")


@pytest.fixture
async def site(by_lane: list[bytes]) -> AsyncIterator[Site]:
    async with running_site() as running:
        running.hold("k", b"K")
        yield running


def batch(*keys: str, lines: str = "") -> bytes:
    body = msgspec.msgpack.encode({"keys": keys})
    head = f"Host: test\r\nContent-Type: {MSGPACK}\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
    return f"POST /v1/pages:get HTTP/1.1\r\n{head}".encode() + body


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, sent: bytes, method: str = "GET") -> Response:
        self.writer.write(sent)
        return await read_response(self.reader, method)

    async def read(self) -> Response:
        return await read_response(self.reader, "GET")


@asynccontextmanager
async def client(site: Site) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    yield Client(reader, writer)
    writer.close()


async def test_a_block_is_known_from_its_first_request_on(site: Site, by_lane: list[bytes]) -> None:
    async with client(site) as one:
        first = await one.ask(PLAIN)  # its host is looked at, and then known
        second = await one.ask(PLAIN)
        assert by_lane == []
        assert await one.ask(PLAIN) == second == first
    async with client(site) as one:
        assert await one.ask(PLAIN) == first
    assert len(by_lane) == 2
    assert site.metrics.counts.requests["pages", "get", "hit"] == 4


async def test_under_overload_the_lane_refuses_what_l1_does_not_hold(
    site: Site, by_lane: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same answer and the same counts as on aiohttp's way, at a small part of its cost."""
    missing = MISSING
    async with client(site) as one:
        for _ in range(3):
            await one.ask(PLAIN)
        assert (await one.ask(missing)).status == 404
        overload, before = site.web.overload, len(by_lane)
        monkeypatch.setattr(overload, "_is_shed", lambda _: True)
        assert (await one.ask(missing)).status == 404, "there is no overload"
        overload.is_shedding = True
        refused = await one.ask(missing)
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert by_lane[before] == b"", "it goes on"
        assert len(by_lane) == before + 2
        assert (await one.ask(PLAIN)).status == 200
        slow = await one.ask(missing.replace(b"Host", b"X-Request-Id: a\r\nHost"))
        assert {*slow.headers} == {*refused.headers}
    assert overload.shed == overload.shed_by_namespace["pages"] == 2
    assert site.metrics.counts.refusals["overloaded"] == 2
    assert site.metrics.counts.requests["pages", "get", "failed"] == 2


async def test_a_connection_that_sent_a_body_comes_back(site: Site, by_lane: list[bytes]) -> None:
    put = b"PUT /v1/pages/k HTTP/1.1\r\nHost: test\r\nContent-Length: 7\r\n\r\nnew\r\n\r\n"
    async with client(site) as one:
        for _ in range(3):
            await one.ask(PLAIN)
        for expected in (1, 2):
            assert (await one.ask(put)).status == 204
            assert (await one.ask(PLAIN)).body == b"new\r\n\r\n"
            assert (await one.ask(PLAIN)).body == b"new\r\n\r\n"
            assert len(by_lane) == 1 + 2 * expected


async def test_a_batch_is_answered_if_l1_has_all_of_it(site: Site, by_lane: list[bytes]) -> None:
    site.hold("other", b"O")
    async with client(site) as one:
        first = [await one.ask(batch("k", "other")) for _ in range(2)]
        assert by_lane == []
        assert await one.ask(batch("k", "other")) == first[0] == first[1]
        assert len(by_lane) == 1
        for timeout in ("250ms", "3s"):
            assert await one.ask(batch("k", "other", lines=f"Cachesvc-Timeout: {timeout}\r\n")) == first[0]
        assert len(by_lane) == 2
        beyond = await one.ask(batch("k", "missing"))
        assert [got["outcome"] for got in msgspec.msgpack.decode(beyond.body)["results"]] == ["hit", "miss"]
        assert (await one.ask(batch("k", "\n"))).status == 400
        assert (await one.ask(PLAIN.replace(b"Host", b"X-Other: 1\r\nHost"))).status == 200
        assert len(by_lane) == 2
        one.writer.write(batch("k") + batch("other") + batch("k"))
        found = [await one.read() for _ in range(3)]
        assert [msgspec.msgpack.decode(each.body)["results"][0]["value"] for each in found] == [
            b"K",
            b"O",
            b"K",
        ]
        assert len(by_lane) == 5
    counts = site.metrics.counts
    assert counts.requests["pages", "get_many", "ok"] == 9
    assert counts.batch_keys["pages", "get_many", "hit"] == 14
    assert counts.batch_keys["pages", "get_many", "miss"] == 1
    assert site.web.overload.in_progress == 0


async def test_a_body_in_pieces_leaves_the_lane_open(site: Site, by_lane: list[bytes]) -> None:
    asked = batch("k")
    async with client(site) as one:
        for _ in range(2):
            await one.ask(asked)
        for cut in (len(asked) - 3, asked.index(b"\r\n\r\n") + 4):
            one.writer.write(asked[:cut])
            await asyncio.sleep(0.01)
            assert (await one.ask(asked[cut:])).status == 200
            assert len(by_lane) == (cut != len(asked) - 3)
            assert (await one.ask(asked)).status == 200
            assert len(by_lane) == 1 + (cut != len(asked) - 3)


async def test_a_batch_whose_values_are_large_has_no_lane(site: Site, by_lane: list[bytes]) -> None:
    site.hold("large", b"L" * 50_000)
    async with client(site) as one:
        for keys, answered in (("large", 1), ("large", 2), ("large k", 3), ("large large", 3), ("k", 4)):
            await one.ask(batch("k")) if not by_lane else None
            await one.ask(batch("k")) if not by_lane else None
            found = await one.ask(batch(*keys.split()))
            assert {got["outcome"] for got in msgspec.msgpack.decode(found.body)["results"]} == {"hit"}
            assert len(by_lane) == answered


async def test_the_keys_of_a_batch_are_charged_and_refused_one_by_one(by_lane: list[bytes]) -> None:
    rates = Rates(reads=Rate(0.02, burst=2))
    limits = RateLimits({"pages": rates}, {}, instances=1, now=lambda: 1.0)
    async with running_site(rates=limits) as site:
        site.hold("k", b"K")
        async with client(site) as one:
            for _ in range(2):
                await one.ask(batch("k"))
            found = await one.ask(batch(*["k"] * 5))
    outcomes = [got["outcome"] for got in msgspec.msgpack.decode(found.body)["results"]]
    assert outcomes == ["hit"] * 2 + ["error"] * 3
    assert len(by_lane) == 1
    assert site.metrics.counts.batch_keys["pages", "get_many", "refused"] == 3


async def test_a_batch_under_overload_is_refused_by_the_lane(
    site: Site, by_lane: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with client(site) as one:
        for _ in range(2):
            await one.ask(batch("k"))
        overload = site.web.overload
        monkeypatch.setattr(overload, "_is_shed", lambda _: True)
        overload.is_shedding = True
        refused = await one.ask(batch("k"))
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert len(by_lane) == 1
        slow = await one.ask(batch("k", lines="X-Request-Id: a\r\n"))
        assert {*slow.headers} == {*refused.headers}
    assert overload.shed == overload.shed_by_namespace["pages"] == 2
    assert site.metrics.counts.requests["pages", "get_many", "failed"] == 2


async def test_pipelined_reads_are_answered_in_order(site: Site, by_lane: list[bytes]) -> None:
    site.hold("other", b"O")
    async with client(site) as one:
        for _ in range(3):
            await one.ask(PLAIN)
        missing, other = (PLAIN.replace(b"/k ", b"/%b " % key) for key in (b"missing", b"other"))
        one.writer.write(PLAIN + other + missing + PLAIN + other)
        found = [await one.read() for _ in range(5)]
        assert [(one.status, one.body[:1]) for one in found] == [
            (200, b"K"), (200, b"O"), (404, b"{"), (200, b"K"), (200, b"O"),
        ]  # fmt: skip
    assert len(by_lane) == 1 + 5


async def test_an_answer_that_is_not_taken_is_waited_for(site: Site, by_lane: list[bytes]) -> None:
    site.hold("k", b"K" * 20_000)
    async with client(site) as one:
        for _ in range(3):
            await one.ask(PLAIN)
        for _ in range(60):
            one.writer.write(PLAIN * 10)
            await asyncio.sleep(0)
        await until(lambda: site.web.in_flight.held > 0)
        waiting = site.web.in_flight.held
        assert listener.LANE_BYTES < waiting < (1 << 20)
        assert len(by_lane) < 600
        assert [(await one.read()).status for _ in range(600)] == [200] * 600
        await until(lambda: not site.web.in_flight.held)


async def test_an_answer_of_the_lane_is_a_sign_of_life(site: Site, by_lane: list[bytes]) -> None:
    async with client(site) as one:
        for _ in range(2):
            await one.ask(PLAIN)
        (connection,) = next(iter(site.web.data.connections._by_peer.values()))
        await until(lambda: connection.idle_since is not None)
        since = connection.idle_since
        await asyncio.sleep(0.01)
        await one.ask(PLAIN)
        assert by_lane
        assert since is not None
        assert connection.idle_since is not None
        assert connection.idle_since > since


async def test_a_failure_is_answered_and_logged_once(
    site: Site, by_lane: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    async with client(site) as one:
        for _ in range(3):
            await one.ask(PLAIN)
        site.reader.fails_with = RuntimeError("broken")
        assert (await one.ask(PLAIN)).status == 500
        assert (await one.ask(MISSING)).status == 500
        site.reader.fails_with = None
        assert (await one.ask(PLAIN)).status == 200
    assert sum("failed: get in namespace" in line for line in caplog.messages) == 2
    assert site.metrics.counts.requests["pages", "get", "failed"] == 2
    assert site.web.overload.in_progress == 0


# reads that go on -----------------------------------------------------------------------------------


async def test_a_fast_peer_comes_to_the_lane_at_once(site: Site, by_lane: list[bytes]) -> None:
    """Its next request is there before the task of the last one has ended."""
    async with client(site) as one:
        await one.ask(PLAIN)
        await one.ask(PLAIN)
        for _ in range(10):
            assert (await one.ask(MISSING)).status == 404
            assert (await one.ask(PLAIN)).status == 200
    assert len(by_lane) == 20


SLOW = [
    [MISSING, PLAIN],
    [MISSING + PLAIN + MISSING + PLAIN],
    [PLAIN + MISSING + PLAIN[:10], PLAIN[10:] + MISSING[:30], MISSING[30:], PLAIN],
    [MISSING, b"PUT /v1/pages/k HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nn", b"ew", PLAIN],
    [MISSING.replace(b"/missing ", b"/huge ") + MISSING.replace(b"/missing ", b"/failing ") + PLAIN],
    [MISSING, b"GARBAGE\r\n\r\n", PLAIN],
    [MISSING, PLAIN * 2000, MISSING],
]
"""Pieces whose read goes on for a while."""


@pytest.mark.parametrize("pieces", SLOW, ids=range(len(SLOW)))
async def test_while_a_read_goes_on_what_comes_waits(
    pieces: list[bytes], by_lane: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair(monkeypatch) as both:
        for site in both.sites:
            site.hold("k", b"K")
        await both.same([PLAIN, PLAIN])
        before = len(by_lane)
        found = []
        for site in both.sites:
            hangs = site.reader.hangs = asyncio.Event()
            asking = asyncio.create_task(answers(site, pieces))
            await site.reader.asked.wait()
            for _ in range(20):
                await asyncio.sleep(0)
            assert site.web.overload.in_progress == 1
            hangs.set()
            found.append(await asking)
        (fast, _), (slow, _) = found
        assert ID.sub(rb"\1-", fast) == ID.sub(rb"\1-", slow)
        await until(lambda: counted(both.fast) == counted(both.slow))
        assert by_lane[before:].count(b"") > 0
        assert both.fast.web.in_flight.held == 0


async def test_a_peer_that_leaves_is_counted_as_ever(
    by_lane: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair(monkeypatch) as both:
        for site in both.sites:
            site.hold("k")
            for key in (b"missing", b"failing"):
                async with client(site) as one:
                    await one.ask(PLAIN)
                    await one.ask(PLAIN)
                    site.reader.asked.clear()
                    hangs = site.reader.hangs = asyncio.Event()
                    one.writer.write(MISSING.replace(b"missing", key) + PLAIN)
                    await site.reader.asked.wait()
                    link = one.writer.get_extra_info("socket")
                    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
                    one.writer.transport.abort()
                    await until(lambda: not site.web.data.connections.open)  # noqa: B023
                    hangs.set()
                    site.reader.hangs = None
            await until(lambda: not site.web.overload.in_progress)  # noqa: B023
            await until(lambda: site.metrics.counts.requests["pages", "get", "left"] == 1)  # noqa: B023
            assert site.web.in_flight.held == 0
        assert counted(both.fast) == counted(both.slow)
    assert by_lane.count(b"") == 2


@pytest.mark.parametrize("key", [b"missing", b"huge"])
async def test_a_stop_waits_for_reads_that_go_on(
    key: bytes, by_lane: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are answered, with `Connection: close`; what came behind them is not."""
    async with pair(monkeypatch) as both:
        found = []
        for site in both.sites:
            async with client(site) as one, client(site) as idle:
                for other in (one, idle):
                    await other.ask(PLAIN)
                    await other.ask(PLAIN)
                hangs = site.reader.hangs = asyncio.Event()
                site.reader.asked.clear()
                one.writer.write(MISSING.replace(b"missing", key) + PLAIN)
                await site.reader.asked.wait()
                stopping = asyncio.create_task(site.web.stop())
                await idle.reader.read()
                one.writer.write(PLAIN)
                await asyncio.sleep(0.01)
                assert not stopping.done()
                hangs.set()
                found.append(ID.sub(rb"\1-", await one.reader.read()))
                await stopping
        assert found[0] == found[1]
        assert b"\r\nConnection: close\r\n" in found[0]
        assert found[0].count(b"HTTP/1.1 ") == 1
        assert by_lane[-1] == b""


async def test_a_stop_waits_no_longer_than_it_may(by_lane: list[bytes]) -> None:
    async with (
        running_site(limits=replace(LIMITS, shutdown_timeout=Duration(50_000))) as site,
        client(site) as one,
    ):
        await one.ask(PLAIN)
        await one.ask(PLAIN)
        hangs = site.reader.hangs = asyncio.Event()
        one.writer.write(MISSING)
        await until(lambda: site.web.overload.in_progress > 0)
        await site.web.stop()
        assert await one.reader.read() == b""
        hangs.set()
        await until(lambda: not site.web.overload.in_progress)
    assert by_lane == [b""]


async def test_a_read_that_goes_on_is_not_idle(by_lane: list[bytes]) -> None:
    async with (
        running_site(limits=replace(LIMITS, idle_timeout=Duration(50_000))) as site,
        client(site) as one,
    ):
        await one.ask(PLAIN)
        await one.ask(PLAIN)
        hangs = site.reader.hangs = asyncio.Event()
        one.writer.write(MISSING)
        await until(lambda: site.web.overload.in_progress > 0)
        (connection,) = next(iter(site.web.data.connections._by_peer.values()))
        assert connection.idle_since is None
        await asyncio.sleep(0.15)
        hangs.set()
        assert (await one.read()).status == 404
        assert await one.reader.read() == b"", "now it is"
    assert by_lane == [b""]


async def test_what_waits_behind_a_read_that_goes_on_is_bounded(site: Site, by_lane: list[bytes]) -> None:
    async with client(site) as one:
        await one.ask(PLAIN)
        await one.ask(PLAIN)
        hangs = site.reader.hangs = asyncio.Event()
        one.writer.write(MISSING)
        await until(lambda: site.web.overload.in_progress > 0)
        one.writer.write(PLAIN * 200_000)
        await until(lambda: site.web.in_flight.held > listener.MOST_WAITING_BYTES)
        for _ in range(100):
            await asyncio.sleep(0)
        assert site.web.in_flight.held < (1 << 20)
        hangs.set()
        assert (await one.read()).status == 404
        assert [(await one.read()).status for _ in range(5000)] == [200] * 5000
    await until(lambda: not site.web.in_flight.held)


async def test_a_slow_read_that_goes_on_says_what_it_cost(
    site: Site, by_lane: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    site.paths.homes.ways = {"c1": 0.25}
    monkeypatch.setattr(server, "FROM_SECONDS", -1.0)
    async with client(site) as one:
        await one.ask(PLAIN)
        await one.ask(PLAIN)
        said = (await one.ask(MISSING)).headers["server-timing"]
    assert re.fullmatch(r'cache;dur=[0-9.]+, home;desc="c1";dur=250.0', said)
    assert site.paths.homes.asked == ["missing"]
    assert by_lane == [b""]


async def test_a_revoked_token_opens_nothing(by_lane: list[bytes]) -> None:
    async with running_site(callers=callers("a")) as site:
        site.hold("k")
        ask = f"GET /v1/users/k HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
        async with client(site) as one:
            assert [(await one.ask(ask)).status for _ in range(4)] == [200] * 4
            assert len(by_lane) == 2
            site.web.door.take(callers())
            assert (await one.ask(ask)).status == 401
            site.web.door.take(callers("a"))
            assert [(await one.ask(ask)).status for _ in range(2)] == [200] * 2
            assert len(by_lane) == 3
            site.clock.advance(seconds=60)
            assert (await one.ask(ask)).status == 401
    assert len(by_lane) == 3


async def test_a_service_that_stops_and_a_connection_too_many_have_no_lane(by_lane: list[bytes]) -> None:
    async with running_site(limits=replace(LIMITS, max_connections=1)) as site:
        site.hold("k")
        async with client(site) as one:
            for _ in range(3):
                await one.ask(PLAIN)
            site.reader.hangs = asyncio.Event()
            one.writer.write(PLAIN.replace(b"/k ", b"/missing "))
            await site.reader.asked.wait()
            async with client(site) as other:
                crowded = await other.ask(PLAIN)
            assert (crowded.status, crowded.headers["connection"]) == (503, "close")
            site.reader.hangs.set()
            assert (await one.read()).status == 404
            before = len(by_lane)
            site.web.data._listener.is_stopping = True
            assert (await one.ask(PLAIN)).headers["connection"] == "close"
            assert len(by_lane) == before


async def test_with_another_aiohttp_there_is_no_lane_and_one_line_says_so(
    by_lane: list[bytes], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listener, "_OF_AIOHTTP", (*listener._OF_AIOHTTP, "_of_tomorrow"))
    async with running_site() as site:
        site.hold("k")
        async with client(site) as one:
            assert [(await one.ask(PLAIN)).status for _ in range(4)] == [200] * 4
    assert by_lane == []
    assert [line for line in caplog.messages if "lane" in line] == [
        "this aiohttp has no _of_tomorrow: plain reads have no fast lane"
    ]


def test_so_many_blocks_are_known_and_no_more() -> None:
    lane = Lane(lambda *_: None, ["pages"], Hosts("::"))
    for number in range(MOST_BLOCKS + 1):
        name = f"agent-{number}".encode()
        head = b"GET /v1/pages/k HTTP/1.1\r\nHost: x\r\nUser-Agent: %b\r\n\r\n" % name
        headers = CIMultiDict({"Host": "x"})
        message = RawRequestMessage(
            "GET", "/v1/pages/k", HttpVersion11, CIMultiDictProxy(headers),
            ((b"Host", b"x"), (b"User-Agent", name)), False, None, False, False, URL("/v1/pages/k"),
        )  # fmt: skip
        lane.learn(head, message)
        assert lane.read(head, 0) is not None
    assert repr(lane) == "<Lane [1 blocks known]>"
