"""Origins, peers and receivers over HTTP that answer anything: the failure of one call, in bounds."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import partial

import aiohttp
import pytest
import requests
from cachesvc_client.aio.clean_connector import CleanConnector as CleanConnectorOfTheSdk
from hypothesis import given, settings
from hypothesis import strategies as st

from cachesvc.config.topology import Origin
from cachesvc.explain.answer import Question
from cachesvc.explain.peers import MOST_ANSWER_BYTES, HttpPeers
from cachesvc.model.clock import SystemClock
from cachesvc.model.entry import Key
from cachesvc.model.errors import OriginError
from cachesvc.model.problems import ProblemKind
from cachesvc.model.units import Size
from cachesvc.telemetry.otlp_http import BoundedSession, NotTakenError, Receiver
from cachesvc.tiers.clean_connector import MOST_BESIDE_BODY, CleanConnector
from cachesvc.tiers.origin.contract import Loaded
from cachesvc.tiers.origin.http import HttpLoader
from tests.doubles.hostile_server import HostileServer, endless, hostile, trickle
from tests.doubles.talkative_server import http_request

KEY = Key.of("pages", "k")
WITHOUT_END = aiohttp.ClientTimeout()
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nvalue"


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    with hostile(lambda requests: None if http_request(requests) is None else GOOD) as running:
        yield running


async def loaded(server: HostileServer, seconds: float = 5) -> Loaded | OriginError:
    """The outcome of one load; the next load is answered, and its value is whole."""
    url = f"http://127.0.0.1:{server.port}/{{key}}"
    loader = HttpLoader("pages", Origin(url, max_body=Size.parse("64KiB")), clock=SystemClock())
    await loader.start()
    try:
        try:
            found: Loaded | OriginError = await loader.load(KEY, known=None, timeout_seconds=seconds)
        except OriginError as error:
            found = error
        server.lies.clear()
        server.always = None
        assert (await loader.load(KEY, known=None, timeout_seconds=5)).value == b"value"
        assert loader.failures + loader.refusals == isinstance(found, OriginError)
    finally:
        await loader.stop()
    return found


STATUS_LINES = [
    b"HTTP/1.1 200 OK",
    b"HTTP/1.1 204 No",
    b"HTTP/1.1 304 X",
    b"HTTP/9.9 200 OK",
    b"HTTP/1.1 2000 OK",
    b"HTTP/1.1 -1",
    b"ICY 200",
    b"",
]
HEADERS = [
    b"Content-Length: 5",
    b"Content-Length: -5",
    b"Content-Length: 99999999999999999999",
    b"Content-Length: five",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Content-Encoding: gzip",
    b"Content-Encoding: \xff",
    b"Content-Type: text/html\x00",
    b"Content-Type: \x1b[2J",
    b'ETag: "\x7f"',
    b"Cache-Control: max-age=99999999999999999999999",
    b"Age: -99999999999999999999999999",
    b"Date: yesterday",
    b"Expires: Fri, 99 Foo 99999 99:99:99 GMT",
    b"Retry-After: 1e99",
    b'Cache-Groups: "' + b"x" * 500 + b'"',
    b"Cache-Groups: \xe2\x80\xae",
    b"Vary: *",
    b"no colon",
    b": empty",
    b" folded",
]
BODIES = [
    b"",
    b"value",
    b"5\r\nvalue\r\n0\r\n\r\n",
    b"-5\r\nvalue",
    b"zz\r\n",
    b"fffffffffffffffff\r\nx",
    b"5;" + b"x" * 9000 + b"\r\nvalue",
    b"\x1f\x8b\x08garbage",
]
ANSWERS = st.one_of(
    st.binary(min_size=1, max_size=200),
    st.builds(
        lambda status, headers, body: b"\r\n".join([status, *headers, b"", b""]) + body,
        st.sampled_from(STATUS_LINES),
        st.lists(st.sampled_from(HEADERS), max_size=5),
        st.sampled_from(BODIES),
    ),
)


def cut_off(server: HostileServer, answer: bytes) -> Iterator[bytes]:
    """The answer, and the end of the connections that are there before it."""
    there = [*server.connections]
    yield answer
    server.close(there)


@settings(max_examples=80, deadline=None)
@given(ANSWERS)
def test_any_answer_of_an_origin_is_a_value_or_the_failure_of_its_load(
    server: HostileServer, answer: bytes
) -> None:
    server.always = partial(cut_off, server, answer)
    found = asyncio.run(loaded(server))
    if isinstance(found, Loaded):
        assert found.content_type.isascii()
        assert found.content_type.isprintable()
        assert found.etag is None or found.etag.isprintable()
        assert all(tag.isascii() and tag.isprintable() and len(tag) <= 256 for tag in found.tags)
    else:
        assert str(found).isprintable()


def headed(head: bytes, piece: bytes) -> Iterator[bytes]:
    yield head
    yield from endless(piece)


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"", b"x"),
        (b"HTTP/1.1 200 ", b"x"),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"y"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\nvalue\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"y"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1;" + b"x" * 4000 + b"\r\nv\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"),
        (b"", b"\r\n"),
    ],
    ids=range(15),
)
async def test_an_endless_answer_of_an_origin_is_bounded_in_bytes(
    server: HostileServer, head: bytes, piece: bytes
) -> None:
    before = server.sent_bytes
    server.always = partial(headed, head, piece)
    found = await loaded(server, seconds=3)
    assert isinstance(found, OriginError)
    assert found.kind is not ProblemKind.ORIGIN_TIMEOUT, "bytes bound it, not time"
    assert server.sent_bytes - before < 32 << 20  # most of it in the kernel


@pytest.mark.parametrize("connector", [CleanConnector, CleanConnectorOfTheSdk])
@pytest.mark.parametrize("end", [b"0\r\nX: " + b"y" * (1 << 16), b"not a size\r\n", b"5\r\nvalueX"])
async def test_a_body_that_breaks_after_its_head_was_read_ends_at_once(
    server: HostileServer, connector: type[aiohttp.TCPConnector], end: bytes
) -> None:
    """The parser that failed has nothing to say at the end of the connection."""
    is_head_read = threading.Event()

    def broken() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nv\r\n"
        is_head_read.wait(30)
        yield end

    server.lies = [broken()]
    async with (
        aiohttp.ClientSession(connector=connector()) as session,
        session.get(f"http://127.0.0.1:{server.port}/k", timeout=WITHOUT_END) as response,
    ):
        is_head_read.set()
        with pytest.raises(aiohttp.ClientPayloadError):
            await asyncio.wait_for(response.read(), 30)


async def test_a_body_in_chunks_of_one_byte_is_taken(server: HostileServer) -> None:
    """It has five bytes of framing for each byte: more than an answer has beside its body."""
    value = b"v" * (1 << 16)
    chunks = b"1\r\nv\r\n" * len(value)
    assert len(chunks) < MOST_BESIDE_BODY < 2 * len(chunks)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: " + b"y" * 8000 + b"\r\n"
    server.lies = [[head + b"Y: " + b"z" * 30_000 + b"\r\n\r\n", chunks, b"0\r\n\r\n"]]
    found = await loaded(server)
    assert isinstance(found, Loaded)
    assert found.value == value


async def test_an_answer_of_an_origin_that_trickles_ends_with_its_time(server: HostileServer) -> None:
    server.always = partial(
        trickle, b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000, server.stopping
    )
    assert "no complete answer within 0.3 s" in str(await loaded(server, seconds=0.3))


# Peers --------------------------------------------------------------------------------------------


async def seen(server: HostileServer) -> str:
    """What a peer is said to lack, after it was asked once."""
    peers = HttpPeers({("eu", "eu-b"): f"http://127.0.0.1:{server.port}"})
    await peers.start()
    try:
        (found,) = await peers.ask(KEY, Question())
    finally:
        await peers.stop()
        server.lies.clear()
        server.always = None
    assert (found.region, found.instance) == ("eu", "eu-b")
    assert found.unavailable.isprintable()
    assert len(found.unavailable) < 400
    return found.unavailable


def answered(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


@pytest.mark.parametrize(
    "answer",
    [
        answered(b"{}"),
        answered(b"[" * 50_000),
        answered(b'{"region": "us", "instance": "another"}'),
        answered(b'{"region": "eu", "instance": "eu-b", "\x1b[2J": 1}'[:-2]),
        answered(b"\xff"),
        answered(b" " * (MOST_ANSWER_BYTES + 1)),
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 \x1b[2J\r\nContent-Length: -1\r\n\r\n",
        b"\x1b[2J\r\n\r\n",
    ],
    ids=range(9),
)
async def test_a_peer_that_answers_anything_is_named_with_the_reason(
    server: HostileServer, answer: bytes
) -> None:
    server.lies = [[answer]]
    assert await seen(server)


async def test_an_endless_answer_of_a_peer_is_bounded_in_bytes(server: HostileServer) -> None:
    before = server.sent_bytes
    server.always = partial(headed, b"HTTP/1.1 200 OK\r\n\r\n", b"x")
    assert await seen(server)
    assert server.sent_bytes - before < 32 << 20


# Receivers of traces ------------------------------------------------------------------------------


def session_of_metrics(url: str) -> Callable[[], object]:
    session = BoundedSession()
    return lambda: session.post(url, b"metrics", timeout=3).text


def receiver_of_spans(url: str) -> Callable[[], object]:
    receiver = Receiver(url, {})
    return lambda: receiver.post(b"spans")


@pytest.mark.parametrize("client", [session_of_metrics, receiver_of_spans])
@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\nvalue\r\n"),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        (b"", b"x"),
    ],
    ids=range(6),
)
async def test_an_endless_answer_of_a_receiver_is_bounded_in_bytes(
    server: HostileServer, head: bytes, piece: bytes, client: Callable[[str], Callable[[], object]]
) -> None:
    send = client(f"http://127.0.0.1:{server.port}/v1/traces")
    before = server.sent_bytes
    server.always = partial(headed, head, piece)
    with contextlib.suppress(NotTakenError, requests.RequestException):
        await asyncio.wait_for(asyncio.to_thread(send), 5)
    server.always = None
    assert server.sent_bytes - before < 32 << 20
    await asyncio.to_thread(send)
