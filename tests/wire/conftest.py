"""The web layer on real sockets over fake paths, on a clock that stands still."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from cachesvc.changes.broadcast.broadcast import Broadcast
from cachesvc.changes.relay.relay import Relay
from cachesvc.config.callers import Callers
from cachesvc.config.service import Server, Service, Telemetry
from cachesvc.config.topology import Cell, Namespace, Origin, Region, Topology
from cachesvc.model.clock import SECONDS
from cachesvc.model.entry import Entry
from cachesvc.model.units import Duration, Size
from cachesvc.telemetry.metrics.metrics import Metrics
from cachesvc.telemetry.traces.trace import Recorder
from cachesvc.web.rates import RateLimits
from cachesvc.web.server import Web
from tests.doubles.clocks import ManualClock
from tests.doubles.paths import FakeInvalidator, FakePaths, FakeReader, FakeWriter

TOPOLOGY = Topology(
    version=3,
    regions={"eu": Region("redis://user:secret@queue:6379/0", instances={"a": "http://a:8080"})},
    cells={"c1": Cell("eu", "redis://:secret@c1:6379/0?password=secret&db=1")},
    namespaces={
        "pages": Namespace("web", max_value=Size(1000), tags_max=2),
        "users": Namespace(
            "id",
            ttl=Duration(1_500_000),
            origin=Origin("https://u:secret@o/{key}?api_key=secret", headers={"Authorization": "secret"}),
        ),
    },
)
LIMITS = Server(
    max_body=Size(4000),
    max_batch_keys=5,
    max_inspections=1_000_000,
    request_timeout=Duration(5 * SECONDS),
    shutdown_timeout=Duration(2 * SECONDS),
)
SKEW_US = 100_000


@dataclass
class Response:
    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    version: str = "HTTP/1.1"

    def __str__(self) -> str:
        return f"{self.status} {self.headers} {self.body[:300]!r}"


@dataclass
class Site:
    """A running web layer, its fakes, and the plainest client: what it sends is what the test wrote."""

    web: Web
    port: int
    clock: ManualClock
    paths: FakePaths
    broadcast: Broadcast
    metrics: Metrics
    reasons: dict[str, object] = field(default_factory=dict)
    ready: bool = True

    @property
    def reader(self) -> FakeReader:
        return self.paths.reader

    @property
    def writer(self) -> FakeWriter:
        return self.paths.writer

    @property
    def invalidator(self) -> FakeInvalidator:
        return self.paths.invalidator

    async def ask(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Response:
        """One request on a connection of its own."""
        lines = {"Host": "test", "Connection": "close", **(headers or {})}
        if body and "Transfer-Encoding" not in lines:
            lines["Content-Length"] = str(len(body))
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        (response,) = await self.exchange(
            f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode("utf-8", "surrogateescape") + body, method
        )
        return response

    async def exchange(self, sent: bytes, *methods: str) -> list[Response]:
        """Send bytes, read one response per method until then, and then the end of the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(sent)
            await writer.drain()
            return [await read_response(reader, method) for method in methods]
        finally:
            writer.close()

    def hold(
        self, key: str, value: bytes = b"value", *, ttl: int = 42, age: int = 3, negative: bool = False
    ) -> Entry:
        now = self.clock.now_us()
        entry = Entry(
            value,
            now - age * SECONDS,
            now + ttl * SECONDS,
            60 * SECONDS,
            600 * SECONDS,
            content_type="text/plain",
            negative=negative,
        )
        self.reader.l1[key] = entry
        return entry


async def read_response(reader: asyncio.StreamReader, method: str) -> Response:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *fields = head.rstrip("\r\n").split("\r\n")
    version, status, _ = line.split(" ", 2)
    names = [one.partition(": ")[0].lower() for one in fields]
    assert len(names) == len(set(names)), f"a header stands there twice: {names}"
    headers = {one.partition(": ")[0].lower(): one.partition(": ")[2] for one in fields}
    length = 0 if method == "HEAD" or status in ("204", "304", "100") else int(headers["content-length"])
    return Response(int(status), headers, await reader.readexactly(length), version)


async def until(is_so: Callable[[], bool]) -> None:
    """Waits until this is so: what a real socket does has no event to wait for."""
    async with asyncio.timeout(30):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with running_site() as running:
        yield running


@asynccontextmanager
async def running_site(
    telemetry: Telemetry | None = None,
    recorder: Recorder | None = None,
    limits: Server = LIMITS,
    *,
    callers: Callers | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    rates: RateLimits | None = None,
    tls: ssl.SSLContext | None = None,
    relays: Mapping[str, Relay] | None = None,
) -> AsyncIterator[Site]:
    clock = ManualClock()
    paths, metrics = FakePaths(clock), Metrics()
    broadcast = Broadcast(clock, SKEW_US, TOPOLOGY.regions, max_subscribers=2)
    made: list[Site] = []
    web = Web(
        Service(server=limits, instance="a", telemetry=telemetry or Telemetry()),
        replace(TOPOLOGY, callers=callers),
        paths,
        broadcast,
        lambda: (made[0].ready, made[0].reasons),
        metrics,
        clock=clock,
        recorder=recorder,
        rates=rates,
        tls=tls,
        relays=relays,
    )
    port = await web.start(host, port)
    made.append(Site(web, port, clock, paths, broadcast, metrics))
    yield made[0]
    await web.stop()
