"""Tracing at the front door of a whole service, seen by a real OTLP receiver: what is exported, and what never is."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from cachesvc.app.instance import App
from cachesvc.config.service import Server, Service, Telemetry
from cachesvc.config.topology import STAND_IN, Cell, MemcachedServer, Namespace, Origin, Region, Topology
from cachesvc.model.units import Duration
from cachesvc.telemetry.traces.trace import SpanContext, new_span_id, new_trace_id
from tests.doubles.otlp import OtlpReceiver
from tests.doubles.servers import RealServer
from tests.doubles.waiting import until

KEY = "a-key-that-nobody-may-see"


class Caller:
    def __init__(self, app: App, url: str, http: aiohttp.ClientSession) -> None:
        self.app = app
        self.url = url
        self.http = http

    async def ask(
        self, method: str, namespace: str, *, traced: bool | None, body: bytes = b""
    ) -> tuple[SpanContext, int]:
        """`traced`: the caller's flag; None: it sends no `traceparent`."""
        caller = SpanContext(new_trace_id(), new_span_id(), bool(traced))
        headers = {} if traced is None else {"traceparent": str(caller)}
        async with self.http.request(
            method, f"{self.url}/v1/{namespace}/{KEY}", data=body, headers=headers
        ) as answer:
            await answer.read()
            return caller, answer.status


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def topology_of(redis: RealServer) -> Topology:
    nowhere = Origin(f"http://127.0.0.1:{free_port()}/{{key}}", soft_deadline=Duration.parse("1s"))
    return Topology(
        version=1,
        regions={"here": Region(queue=redis.redis_url, pool={"m1": MemcachedServer(STAND_IN)})},
        cells={"c1": Cell("here", redis.redis_url.replace("db=0", "db=1"))},
        namespaces={"pages": Namespace(owner="tests"), "loaded": Namespace(owner="tests", origin=nowhere)},
    )


@asynccontextmanager
async def serving(redis: RealServer, telemetry: Telemetry) -> AsyncIterator[Caller]:
    app = await asyncio.to_thread(
        App, Service("here", "one", Server(port=0), telemetry=telemetry), topology_of(redis)
    )
    port = await app.start()
    try:
        async with asyncio.timeout(15), aiohttp.ClientSession() as http:
            while not app.readiness()[0]:  # noqa: ASYNC110  the event is inside the service
                await asyncio.sleep(0.05)
            yield Caller(app, f"http://127.0.0.1:{port}", http)
    finally:
        await app.stop()


async def test_a_hit_of_l1_is_one_span_under_its_caller_and_says_who_answered(
    redis: RealServer, receiver: OtlpReceiver
) -> None:
    async with serving(redis, Telemetry(otlp=receiver.url, trace_ratio=0.0)) as caller:
        _, status = await caller.ask("PUT", "pages", traced=None, body=b"value")
        assert status == 204
        context, status = await caller.ask("GET", "pages", traced=True)
        assert status == 200
    trace_id = f"{context.trace_id:032x}"
    (span,) = receiver.spans(trace_id)
    assert span.parent_id == f"{context.span_id:016x}"
    assert receiver.tree(trace_id) == (
        "server cache.get cache.hit=true cache.tier=l1 cachesvc.namespace=pages cachesvc.outcome=hit"
    )
    assert span.resource["service.name"] == "cachesvc"
    assert span.resource["service.instance.id"] == "here/one"
    assert span.resource["cloud.region"] == "here"
    assert 0 < span.seconds < 1


async def test_who_is_not_traced_exports_nothing(redis: RealServer, receiver: OtlpReceiver) -> None:
    async with serving(redis, Telemetry(otlp=receiver.url, trace_ratio=1.0)) as caller:
        for method in ("PUT", "GET", "GET", "DELETE", "GET"):
            await caller.ask(method, "pages", traced=False, body=b"value")
    assert receiver.spans() == []


async def test_a_failure_is_kept_as_one_span_although_nobody_sampled_it(
    redis: RealServer, receiver: OtlpReceiver
) -> None:
    async with serving(redis, Telemetry(otlp=receiver.url, trace_ratio=0.0)) as caller:
        context, status = await caller.ask("GET", "loaded", traced=False)
        assert status == 502
    trace_id = f"{context.trace_id:032x}"
    (span,) = receiver.spans()
    assert (span.trace_id, span.parent_id, span.failed) == (trace_id, f"{context.span_id:016x}", True)
    assert receiver.tree(trace_id) == (
        "server cache.get_or_load failed cache.hit=false cachesvc.namespace=loaded cachesvc.outcome=failed "
        "error.type=origin-failed"
    )


async def test_no_key_and_no_value_is_in_what_is_exported(redis: RealServer, receiver: OtlpReceiver) -> None:
    telemetry = Telemetry(otlp=receiver.url, trace_ratio=1.0, hashed_keys=True)
    async with serving(redis, telemetry) as caller:
        for method, namespace in (
            ("PUT", "pages"),
            ("GET", "pages"),
            ("DELETE", "pages"),
            ("GET", "pages"),
            ("GET", "loaded"),
        ):
            await caller.ask(method, namespace, traced=True, body=b"a value that nobody may see")
        batch = {"keys": [KEY, f"{KEY}-2"]}
        async with caller.http.post(f"{caller.url}/v1/pages:get", json=batch) as answer:
            assert answer.status == 200
    names = {span.name for span in receiver.spans()}
    assert names >= {"cache.get", "cache.get_or_load", "cache.set", "cache.invalidate"}
    digests = {
        span.attributes["cachesvc.key_digest"]
        for span in receiver.spans()
        if "cachesvc.key_digest" in span.attributes
    }
    assert len(digests) == 2, "the key in two namespaces"
    exported = b"".join(receiver.bodies)
    assert b"nobody may see" not in exported
    assert KEY.encode() not in exported


async def test_a_receiver_that_is_down_is_counted_and_hurts_nobody(
    redis: RealServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(redis, Telemetry(otlp=f"http://127.0.0.1:{free_port()}", trace_ratio=1.0)) as caller:
        await caller.ask("PUT", "pages", traced=None, body=b"value")
        for _ in range(50):
            assert (await caller.ask("GET", "pages", traced=True))[1] == 200
        began = time.monotonic()
    # Both exports have two seconds, one after the other at worst.
    assert time.monotonic() - began < 6
    assert len([line for line in caplog.messages if "receiver of traces" in line]) <= 1
    assert not [line for line in caplog.messages if "Traceback" in line]


async def test_a_receiver_that_fails_for_a_while_gets_spans_again(
    redis: RealServer, receiver: OtlpReceiver
) -> None:
    receiver.status = 400
    async with serving(redis, Telemetry(otlp=receiver.url, trace_ratio=0.0)) as caller:
        await caller.ask("PUT", "pages", traced=True, body=b"value")
        async with asyncio.timeout(10):
            while "cachesvc_spans_dropped_total 0.0" in await metrics(caller):  # noqa: ASYNC110  another thread counts
                await asyncio.sleep(0.05)
        receiver.status = 200
        context, _ = await caller.ask("GET", "pages", traced=True)
        await receiver.until(lambda received: bool(received.spans(f"{context.trace_id:032x}")))

        async def is_counted() -> bool:
            return "cachesvc_spans_exported_total 1.0" in await metrics(caller)

        await until("the exporter has counted what the receiver took", is_counted)


async def metrics(caller: Caller) -> str:
    async with caller.http.get(f"{caller.url}/metrics") as answer:
        return await answer.text()
