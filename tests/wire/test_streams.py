"""GET /v1/fences on a real socket: what a subscriber reads, and how a stream ends."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from cachesvc.changes.broadcast.broadcast import Broadcast
from cachesvc.config.service import Server, Service
from cachesvc.model.errors import RequestError
from cachesvc.model.fence import Fence
from cachesvc.model.units import Duration
from cachesvc.telemetry.metrics.metrics import Metrics
from cachesvc.web.handlers import fence_stream as streams
from cachesvc.web.routing import Kind, Place
from cachesvc.web.server import Web
from tests.doubles.clocks import ManualClock
from tests.doubles.paths import FakePaths
from tests.wire.conftest import SKEW_US, TOPOLOGY, Site

LONGEST_EVENT = 1 << 20


class Subscriber:
    """Reads one stream, event by event."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self.head = ""

    async def begin(self, headers: str = "") -> str:
        self.writer.write(f"GET /v1/fences HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
        self.head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        return self.head

    async def event(self) -> tuple[str, str, Any]:
        text = (await self._reader.readuntil(b"\n\n")).decode()
        fields = dict(line.split(": ", 1) for line in text.rstrip("\n").split("\n"))
        return fields["event"], fields["id"], json.loads(fields["data"])

    async def event_of(self, kind: str) -> tuple[str, Any]:
        while True:
            found, id_, data = await self.event()
            if found == kind:
                return id_, data

    async def rest(self) -> bytes:
        return await self._reader.read()


@pytest.fixture
async def subscriber(site: Site) -> AsyncIterator[Subscriber]:
    site.broadcast.reset("eu", "100-0", 0, "begun")
    made = Subscriber(*await asyncio.open_connection("127.0.0.1", site.port, limit=LONGEST_EVENT))
    yield made
    made.writer.close()


async def test_a_new_subscriber_is_answered_at_once_and_hears_what_is_merged(
    site: Site, subscriber: Subscriber
) -> None:
    head = await subscriber.begin()
    assert head.startswith("HTTP/1.1 200 OK\r\n")
    for line in ("Content-Type: text/event-stream", "Cache-Control: no-store", "Connection: close", "Date: "):
        assert line in head
    assert "Content-Length" not in head
    assert (await subscriber.event())[:2] == ("reset", "eu=100-0")
    assert (await subscriber.event())[:2] == ("heartbeat", "eu=100-0")
    site.broadcast.fences("eu", "101-0", [Fence(7, 8)])
    assert await subscriber.event_of("fences") == ("eu=101-0", {"fences": "AAAAAAAAAAcAAAAAAAAACA"})
    site.broadcast.reset("eu", "200-0", 5, "lost")
    assert await subscriber.event_of("reset") == ("eu=200-0", {"floor": 5, "reason": "lost"})


async def test_a_subscriber_resumes_where_it_was(site: Site, subscriber: Subscriber) -> None:
    for number in (1, 2, 3):
        site.broadcast.fences("eu", f"{100 + number}-0", [Fence(number, number)])
    await subscriber.begin("Last-Event-ID: eu=101-0\r\n")
    events = [await subscriber.event() for _ in range(3)]
    assert [(kind, id_) for kind, id_, _ in events] == [
        ("fences", "eu=102-0"),
        ("fences", "eu=103-0"),
        ("heartbeat", "eu=103-0"),
    ]


@pytest.mark.parametrize(
    ("id_", "first"),
    [
        ("eu=101-0@5f3a9c01", "fences"),
        ("eu=101-0@07d1e2b4", "reset"),
        ("eu=101-0", "reset"),
    ],
    ids=["of the same queue", "of another queue of its name", "of an old form"],
)
async def test_a_position_is_resumed_only_in_its_own_epoch(
    site: Site, subscriber: Subscriber, id_: str, first: str
) -> None:
    site.broadcast.reset("eu", "100-0@5f3a9c01", 0, "fences of eu were lost")
    for number in (1, 2):
        site.broadcast.fences("eu", f"{100 + number}-0@5f3a9c01", [Fence(number, number)])
    await subscriber.begin(f"Last-Event-ID: {id_}\r\n")
    kind, told, _ = await subscriber.event()
    assert (kind, told) == (first, "eu=102-0@5f3a9c01")


async def test_heartbeats_come_though_nothing_happens(site: Site, subscriber: Subscriber) -> None:
    loop = asyncio.get_running_loop()
    await subscriber.begin()
    await subscriber.event_of("heartbeat")
    before = loop.time()
    await subscriber.event_of("heartbeat")
    assert loop.time() - before < 2 * streams.BEAT_SECONDS + 0.1


async def test_no_request_timeout_ends_a_stream() -> None:
    clock = ManualClock()
    paths = FakePaths(clock)
    broadcast = Broadcast(clock, SKEW_US, TOPOLOGY.regions)
    limits = Server(request_timeout=Duration(1_000))
    web = Web(
        Service(server=limits),
        TOPOLOGY,
        paths,
        broadcast,
        lambda: (True, {}),
        Metrics(),
    )
    port = await web.start("127.0.0.1", 0)
    subscriber = Subscriber(*await asyncio.open_connection("127.0.0.1", port))
    await subscriber.begin("Cachesvc-Timeout: 1ms\r\n")
    for _ in range(3):
        await subscriber.event_of("heartbeat")
    subscriber.writer.close()
    await web.stop()


@pytest.mark.parametrize("id_", ["eu", "eu=1", "eu=1-0,", "EU=1-0", "eu=1-0@", "eu=1-0@5F3A9C01"])
async def test_an_id_that_is_none_is_a_400(site: Site, id_: str) -> None:
    response = await site.ask("GET", "/v1/fences", {"Last-Event-ID": id_})
    problem = json.loads(response.body)
    assert (response.status, problem["type"].rpartition("/")[2], problem["field"]) == (
        400,
        "bad-header",
        "Last-Event-ID",
    )


async def test_an_empty_id_is_a_new_subscription(subscriber: Subscriber) -> None:
    """A subscriber sends back what an instance that had read nothing yet gave it."""
    await subscriber.begin("Last-Event-ID: \r\n")
    assert (await subscriber.event())[0] == "reset"


async def test_head_has_the_head_and_no_subscription(site: Site) -> None:
    response = await site.ask("HEAD", "/v1/fences")
    assert (response.status, response.headers["content-type"]) == (200, "text/event-stream")
    assert site.broadcast.statistics().subscribers == 0


async def test_one_subscriber_too_many_is_told_to_come_later(site: Site, subscriber: Subscriber) -> None:
    await subscriber.begin()
    held = site.broadcast.subscribe()
    response = await site.ask("GET", "/v1/fences")
    assert (response.status, response.headers["retry-after"]) == (503, "1")
    assert json.loads(response.body)["type"].endswith("/too-many-subscribers")
    held.close()


async def until_left(site: Site) -> None:
    """Until nobody is subscribed any more: at the latest with the heartbeat that cannot be sent."""
    async with asyncio.timeout(5):
        while site.broadcast.statistics().subscribers:
            await site.broadcast.news()


async def test_a_subscriber_that_leaves_is_noticed(
    site: Site, subscriber: Subscriber, caplog: pytest.LogCaptureFixture
) -> None:
    await subscriber.begin()
    subscriber.writer.close()
    await until_left(site)
    assert caplog.records == []
    assert site.broadcast.statistics().lost == 0


async def test_a_reset_connection_is_no_error(
    site: Site, subscriber: Subscriber, caplog: pytest.LogCaptureFixture
) -> None:
    await subscriber.begin()
    subscriber.writer.transport.abort()
    await until_left(site)
    assert caplog.records == []


def stuff(site: Site, events: int) -> None:
    """More than the buffers of a connection hold."""
    fences = [Fence(number, number) for number in range(9_000)]
    start = 1_000_000 + site.broadcast.statistics().events
    for number in range(events):
        site.broadcast.fences("eu", f"{start + number}-0", fences)


async def sleepy(site: Site) -> socket.socket:
    """A subscriber that asks and does not read."""
    loop = asyncio.get_running_loop()
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    await loop.sock_connect(client, ("127.0.0.1", site.port))
    await loop.sock_sendall(client, b"GET /v1/fences HTTP/1.1\r\nHost: x\r\n\r\n")
    while not site.broadcast.statistics().subscribers:
        await site.broadcast.news()
    return client


async def test_a_subscriber_that_does_not_read_is_cut_off_and_the_others_are_not(
    site: Site, subscriber: Subscriber
) -> None:
    site.broadcast.reset("eu", "999-0", 0, "begun")
    client = await sleepy(site)
    await subscriber.begin()
    heard = 0
    async with asyncio.timeout(20):
        while not site.broadcast.statistics().lost:
            stuff(site, 5)
            for _ in range(5):
                await subscriber.event_of("fences")
                heard += 1
    assert site.broadcast.statistics().subscribers == 1
    client.close()


async def test_a_peer_that_takes_nothing_for_long_is_cut_off(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the log has all that it has not taken."""
    monkeypatch.setattr(streams, "STALL_SECONDS", 0.1)
    client = await sleepy(site)
    stuff(site, 20)
    await until_left(site)
    assert site.broadcast.statistics().lost == 1
    client.close()


@pytest.mark.parametrize("reads", [True, False])
async def test_stop_ends_streams_at_once(site: Site, subscriber: Subscriber, reads: bool) -> None:
    loop = asyncio.get_running_loop()
    await subscriber.begin()
    client = None if reads else await sleepy(site)
    if not reads:
        stuff(site, 20)
        await subscriber.event_of("fences")
    before = loop.time()
    await site.web.stop()
    assert loop.time() - before < 0.5, "shutdown_timeout is 2 s here"
    assert site.broadcast.statistics().subscribers == 0
    rest = await subscriber.rest()
    assert (b"event: heartbeat" in rest and rest.endswith(b"event: stopping\ndata: {}\n\n")) or not reads
    if client is not None:
        client.close()


async def test_an_instance_that_stops_takes_no_new_subscriber(site: Site) -> None:
    """One more request may be on its way when the streams have been ended."""
    closing = streams.Streams(site.broadcast, 2, site.web.door)
    closing.stop()
    with pytest.raises(RequestError, match="ask another one") as caught:
        await closing.fences(make_mocked_request("GET", "/v1/fences"), Place(Kind.FENCES))
    assert (caught.value.status, caught.value.kind) == (503, "stopping")
    assert repr(closing) == "<Streams [0 open]>"
