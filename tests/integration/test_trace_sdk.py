"""One trace from the application's call of the SDK, through the service and its tiers, to the origin. Real sockets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cachesvc_client import Cache
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from cachesvc.app.instance import App
from cachesvc.config.service import Server, Service, Telemetry
from cachesvc.config.topology import Cell, Namespace, Origin, Region, Topology
from tests.doubles.otlp import OtlpReceiver
from tests.doubles.servers import RealServer

HIDDEN = frozenset(
    {
        "cachesvc.batch.size",
        "cachesvc.lag_ms",
        "cachesvc.namespace",
        "db.operation.name",
        "db.system.name",
        "http.request.method",
        "http.response.status_code",
        "server.address",
        "server.port",
    }
)
"""The attributes that vary from run to run, and those that every line would repeat."""


@pytest.fixture
async def origin() -> AsyncIterator[str]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=b"value", headers={"Cache-Control": "max-age=300"})

    app = web.Application()
    app.router.add_get("/{key}", answer)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


@pytest.fixture
async def url(receiver: OtlpReceiver, redis: RealServer, origin: str) -> AsyncIterator[str]:
    namespaces = {
        "docs": Namespace(owner="tests", early_refresh=0.0, origin=Origin(f"{origin}/{{key}}")),
        "pages": Namespace(owner="tests", early_refresh=0.0),
    }
    topology = Topology(
        version=1,
        regions={"here": Region(queue=redis.redis_url)},
        cells={"c1": Cell("here", redis.redis_url.replace("db=0", "db=1"))},
        namespaces=namespaces,
    )
    service = Service("here", "one", Server(port=0), telemetry=Telemetry(otlp=receiver.url, trace_ratio=0.0))
    app = await asyncio.to_thread(App, service, topology)
    async with AsyncExitStack() as stack:
        port = await app.start()
        stack.push_async_callback(app.stop)
        async with asyncio.timeout(15):
            while not app.readiness()[0]:  # noqa: ASYNC110  the event is inside the service
                await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{port}"


class Application:
    """One that exports its spans to where the service exports its own."""

    def __init__(self, receiver: OtlpReceiver) -> None:
        self._receiver = receiver
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{receiver.url}/v1/traces")))
        self._tracer = self.provider.get_tracer("application")

    async def read(self, cache: Cache, namespace: str, key: str) -> str:
        """The id of the trace in which the page was made."""
        with self._tracer.start_as_current_span("page") as page:
            found = cache.namespace(namespace)
            assert await (found.get(key) if namespace == "docs" else found.get_or_load(key, load)) == b"value"
        return f"{page.get_span_context().trace_id:032x}"

    async def tree(self, trace_id: str, spans: int) -> str:
        """As soon as so many of its spans have come."""
        await self._receiver.until(lambda received: len(received.spans(trace_id)) >= spans)
        return self._receiver.tree(trace_id, hide=HIDDEN)


async def load(_: str) -> bytes:
    return b"value"


@pytest.fixture
async def application(receiver: OtlpReceiver) -> AsyncIterator[Application]:
    running = Application(receiver)
    yield running
    await asyncio.to_thread(running.provider.shutdown)


async def test_a_read_through_is_one_trace_from_the_page_to_the_origin(
    url: str, application: Application
) -> None:
    async with Cache.from_url(url, tracer_provider=application.provider, discover=False) as cache:
        trace_id = await application.read(cache, "docs", "a-key-of-a-user")
    assert await application.tree(trace_id, 8) == (
        """\
internal page
  internal cache.get cache.hit=false cache.tier=origin cachesvc.outcome=loaded
    client cache.get
      server cache.get_or_load cache.hit=false cachesvc.batch.loaded=1 cachesvc.lease=granted cachesvc.outcome=ok
        client read c1
        internal cache.load cachesvc.lease=granted
          client GET
          client fill c1"""
    )


async def test_a_look_aside_load_is_one_trace_with_the_loader_in_the_application(
    url: str, application: Application, receiver: OtlpReceiver
) -> None:
    async with Cache.from_url(url, tracer_provider=application.provider, discover=False) as cache:
        trace_id = await application.read(cache, "pages", "a-key-of-a-user")
    assert await application.tree(trace_id, 10) == (
        """\
internal page
  internal cache.get_or_load cache.hit=false cachesvc.lease=granted cachesvc.outcome=miss
    client cache.get
      server cache.get cache.hit=false cachesvc.batch.miss=1 cachesvc.lease=granted cachesvc.outcome=ok
        client read c1
    internal cache.load
    internal cache.set
      client cache.set
        server cache.set cachesvc.batch.stored=1 cachesvc.outcome=ok
          client fill c1"""
    )
    assert not any(b"a-key-of-a-user" in body for body in receiver.bodies)
