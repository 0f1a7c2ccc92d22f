"""Many connections: their limits, the room for probes, and peers that close their side."""

import asyncio
import logging
import resource
from contextlib import AsyncExitStack, suppress

import pytest
from msgspec.structs import replace

from cachesvc.config.service import Server
from cachesvc.model.requests import Answer, Outcome
from cachesvc.web.bytes_in_flight import BytesInFlight
from cachesvc.web.connections import Connections
from tests.wire.conftest import LIMITS, Site, read_response, running_site, until

CROWDED = replace(LIMITS, max_connections=16, max_connections_per_peer=16)
KEY = b"GET /v1/pages/k HTTP/1.1\r\nHost: x\r\n\r\n"


class Peers(AsyncExitStack):
    """Connections that are closed at the end of the test."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site

    async def connect(self, sent: bytes = b"") -> asyncio.StreamReader:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.site.port)
        self.callback(writer.close)
        writer.write(sent)
        return reader


async def test_idle_connections_make_room_for_new_ones(caplog: pytest.LogCaptureFixture) -> None:
    async with running_site(limits=CROWDED) as site, Peers(site) as peers:
        site.hold("k")
        answered = [await read_response(await peers.connect(KEY), "GET") for _ in range(40)]
        assert {one.status for one in answered} == {200}
        assert site.web.data.connections.open <= 16
        assert site.web.data.connections.closed_idle >= 24
        assert site.web.data.connections.refused == 0
        assert (await site.ask("GET", "/livez")).status == 200
        assert caplog.records == []


async def test_the_one_that_was_idle_longest_goes_first() -> None:
    async with running_site(limits=CROWDED) as site, Peers(site) as peers:
        site.hold("k")
        readers = []
        for _ in range(16):
            readers.append(await peers.connect(KEY))
            await read_response(readers[-1], "GET")
            await asyncio.sleep(0.002)
        await read_response(await peers.connect(KEY), "GET")
        assert await readers[0].read() == b""
        assert not readers[1].at_eof()


async def test_probes_are_answered_when_every_connection_has_a_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running_site(limits=CROWDED) as site, Peers(site) as peers:
        site.reader.hangs = asyncio.Event()
        busy = [await peers.connect(KEY) for _ in range(16)]
        await until(lambda: len(site.reader.saw) == 16)
        for path in ("/livez", "/readyz?verbose", "/metrics"):
            assert (await site.ask("GET", path)).status == 200
        refused = await site.ask("GET", "/v1/pages/k")
        assert (refused.status, refused.headers["connection"]) == (503, "close")
        assert b"overloaded" in refused.body
        assert site.web.data.connections.refused == 4
        (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert "room for connections (server.max_connections) fails: 16 are open, 16 of them from" in line
        site.reader.hangs.set()
        assert {(await read_response(reader, "GET")).status for reader in busy} == {404}


async def test_beyond_the_reserve_a_connection_is_closed_at_once() -> None:
    async with running_site(limits=CROWDED) as site, Peers(site) as peers:
        site.reader.hangs = asyncio.Event()
        for _ in range(16):
            await peers.connect(KEY)
        await until(lambda: len(site.reader.saw) == 16)
        extra = [await peers.connect() for _ in range(8)]
        ended = [reader for reader in extra if await is_ended(reader)]
        assert len(ended) >= 6
        site.reader.hangs.set()


async def is_ended(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(0.1):
            return await reader.read() == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


class Idle:
    """A connection that has been idle since a moment."""

    namespace = ""

    def __init__(self, since: float | None) -> None:
        self.idle_since = since
        self.ended = ""

    def close_idle(self) -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended = "aborted"

    def end_head(self) -> None:
        self.ended = "late"

    def unsent(self) -> int:
        return 0


def test_a_peer_with_many_connections_makes_room_and_others_keep_theirs() -> None:
    limits = Server(max_connections=20, max_connections_per_peer=12)
    crowd = Connections(limits, BytesInFlight(1))
    quiet = [Idle(float(n)) for n in range(8)]
    loud = [Idle(100.0 + n) for n in range(12)]
    assert all(crowd.opened(one, "quiet") for one in quiet)
    assert all(crowd.opened(one, "loud") for one in loud)
    assert crowd.opened(Idle(1.0), "quiet")
    assert crowd.opened(Idle(200.0), "loud")
    assert [one.ended for one in quiet] == [""] * 8
    assert [one.ended for one in loud[:3]] == ["closed", "closed", ""]
    assert crowd.open == 20


@pytest.mark.parametrize(
    ("soft", "most", "of_peer"), [(1024, 768, 384), (300, 150, 75), (1 << 20, 16_000, 8_000)]
)
def test_the_limit_is_what_the_descriptors_allow(
    monkeypatch: pytest.MonkeyPatch, soft: int, most: int, of_peer: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, soft))
    crowd = Connections(Server(), BytesInFlight(1))
    crowd.start()
    assert (crowd.most, crowd._most_of_peer) == (most, of_peer)


async def test_a_peer_that_closes_its_side_is_answered(site: Site) -> None:
    """As `nc -N` and some proxies do; the request is complete."""
    site.reader.hangs = asyncio.Event()
    put = b"PUT /v1/pages/k HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nv"
    for sent, statuses in ((KEY, [404]), (KEY + KEY + put, [404, 404, 204])):
        site.reader.hangs.clear()
        site.reader.asked.clear()
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(sent)
        writer.write_eof()
        await site.reader.asked.wait()
        await asyncio.sleep(0.02)
        site.reader.hangs.set()
        assert [
            (await read_response(reader, "GET" if n < 2 else "HEAD")).status for n in range(len(statuses))
        ] == statuses
        assert await reader.read() == b""
        writer.close()


async def test_a_lease_that_may_not_have_been_read_is_given_back(site: Site) -> None:
    """Whether a peer that closed its side still reads, nobody can tell."""
    site.reader.answers["k"] = Answer(Outcome.MISS, lease="lease of k")
    site.reader.hangs = asyncio.Event()
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(b"GET /v1/pages/k HTTP/1.1\r\nHost: x\r\nPrefer: lease\r\n\r\n")
    writer.write_eof()
    await site.reader.asked.wait()
    await asyncio.sleep(0.02)
    site.reader.hangs.set()
    assert (await read_response(reader, "GET")).headers["cachesvc-lease"] == "lease of k"
    assert await reader.read() == b""
    assert site.reader.given_back == [("k", "lease of k")]
    writer.close()


async def test_one_address_takes_not_all_streams() -> None:
    async with running_site(limits=replace(LIMITS, max_streams_per_peer=1)) as site, Peers(site) as peers:
        stream = b"GET /v1/fences HTTP/1.1\r\nHost: x\r\n\r\n"
        first = await peers.connect(stream)
        assert (await first.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        second = await site.ask("GET", "/v1/fences")
        assert (second.status, b"too-many-subscribers" in second.body) == (503, True)


@pytest.mark.parametrize(
    "headers",
    [
        b"".join(b"X-%d: 1\r\n" % n for n in range(200)),
        b"".join(b"X-%d: %s\r\n" % (n, b"x" * 8000) for n in range(5)),
    ],
)
async def test_the_headers_of_a_request_are_bounded_together(site: Site, headers: bytes) -> None:
    sent = b"GET /v1/pages/k HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n"
    (response,) = await site.exchange(sent, "GET")
    assert (response.status, b"head-too-large" in response.body) == (431, True)


def _endless(lines: int, size: int = 8000) -> bytes:
    """The beginning of a request whose headers have not ended."""
    return b"GET /v1/pages/k HTTP/1.1\r\nHost: x\r\n" + b"".join(
        b"X-%d: %s\r\n" % (n, b"x" * size) for n in range(lines)
    )


async def test_heads_that_do_not_end_are_counted_until_they_end(site: Site) -> None:
    """100 lines of 8.5 KB each were held by every connection: 5,000 of them took 8 GB."""
    async with Peers(site) as peers:
        in_flight = site.web.in_flight
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        peers.callback(writer.close)
        sent = _endless(10)
        writer.write(sent)
        await until(lambda: in_flight.held == 2 * len(sent))
        writer.write(b"\r\n")
        assert (await read_response(reader, "GET")).status == 431
        assert in_flight.held == 0


async def test_a_head_without_an_end_ends_its_connection(site: Site) -> None:
    async with Peers(site) as peers:
        reader = await peers.connect(_endless(60))
        with suppress(ConnectionError):
            assert await reader.read() == b""
        assert site.web.data.connections.heads >= 1
        assert site.web.in_flight.held == 0
        assert (await site.ask("GET", "/livez")).status == 200


async def test_heads_that_find_no_room_end_their_connections() -> None:
    limits = replace(LIMITS, max_body=100_000, max_answer=100_000, max_bytes_in_flight=1_000_000)
    async with running_site(limits=limits) as site, Peers(site) as peers:
        for _ in range(30):
            await peers.connect(_endless(10))
        await until(lambda: site.web.data.connections.heads > 0)
        await until(lambda: site.web.in_flight.held <= 1_000_000)
        assert 0 < site.web.data.connections.open <= 7
        assert (await site.ask("GET", "/livez")).status == 200


async def test_requests_that_wait_behind_a_slow_one_are_counted_and_bounded(site: Site) -> None:
    """A request in progress, and behind it on the same connection as many as the peer can send."""
    site.reader.hangs = asyncio.Event()
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    request = _endless(3) + b"\r\n"
    writer.write(KEY)
    await site.reader.asked.wait()
    writer.write(request * 100)
    await until(lambda: site.web.in_flight.held > 0)
    await asyncio.sleep(0.05)
    assert site.web.in_flight.held <= 2 * ((1 << 16) + (1 << 18) + (1 << 14))
    site.reader.hangs.set()
    assert [(await read_response(reader, "GET")).status for _ in range(101)] == [404] * 101
    assert site.web.in_flight.held == 0
    writer.close()


async def test_bodies_are_not_counted_as_heads() -> None:
    async with running_site(limits=replace(LIMITS, max_body=300_000)) as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        body = b"x" * 200_000
        head = b"PUT /v1/pages/k HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        for _ in range(3):
            writer.write(head + body)
            assert b"value-too-large" in (await read_response(reader, "PUT")).body  # it was read
        assert (site.web.in_flight.held, site.web.data.connections.heads) == (0, 0)
        writer.close()
