"""The trace of one read through the whole service.

memcached, Redis and the OTLP receiver are real.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pymemcache.client.base import Client

from cachesvc.app.instance import App
from cachesvc.config.service import Server, Service, Telemetry
from cachesvc.config.topology import Cell, MemcachedServer, Namespace, Origin, Region, Topology
from cachesvc.model.entry import Key
from cachesvc.model.units import Duration
from cachesvc.telemetry.traces.trace import SpanContext, new_span_id, new_trace_id
from cachesvc.tiers.l2.memcached import wire_name
from tests.doubles.otlp import OtlpReceiver
from tests.doubles.servers import RealServer
from tests.doubles.waiting import until

HIDDEN = frozenset(
    {
        "cachesvc.lag_ms",
        "cachesvc.namespace",
        "db.operation.name",
        "db.system.name",
        "http.request.method",
        "server.address",
        "server.port",
    }
)
"""The attributes that vary from run to run, and those that every line would repeat."""

VALUE = b"what the origin answers"

LOADED = """\
  client get m1
  client read c1
  internal cache.load cachesvc.lease=granted
    client GET http.response.status_code=200
    client fill c1
    client set m1"""
"""Below a read that loads."""


class GatedOrigin:
    """Answers every GET when the gate is open; the key `stale` may be answered only while it is refreshed. Keeps the
    `traceparent`s it was sent."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.traceparents: list[str] = []
        app = web.Application()
        app.router.add_get("/{key}", self._answer)
        self.server = TestServer(app)

    async def _answer(self, request: web.Request) -> web.Response:
        self.traceparents.append(request.headers.get("traceparent", ""))
        await self.gate.wait()
        lifetime = (
            "max-age=0, stale-while-revalidate=60" if request.match_info["key"] == "stale" else "max-age=300"
        )
        return web.Response(body=VALUE, headers={"Cache-Control": lifetime})


class Bench:
    """Two instances of one region, and an origin. `get` is a read of a caller who is traced, or is not."""

    def __init__(self, receiver: OtlpReceiver, memcached: RealServer, origin: GatedOrigin) -> None:
        self.receiver = receiver
        self.origin = origin
        self.apps: list[App] = []
        self.urls: list[str] = []
        self.http = aiohttp.ClientSession()
        self._memcached = memcached

    async def get(self, key: str, *, instance: int = 0, traced: bool = True) -> str:
        """The id of the caller's trace."""
        caller = SpanContext(new_trace_id(), new_span_id(), traced)
        async with self.http.get(
            f"{self.urls[instance]}/v1/docs/{key}", headers={"traceparent": str(caller)}
        ) as answer:
            assert answer.status == 200, await answer.text()
        return f"{caller.trace_id:032x}"

    async def tree(self, trace_id: str, *names: str) -> str:
        """The trace, as soon as spans of these names have come."""
        await self.receiver.until(
            lambda received: {span.name for span in received.spans(trace_id)} >= set(names)
        )
        return self.receiver.tree(trace_id, hide=HIDDEN)

    async def settled(self) -> None:
        """The fences with which instances begin are behind us: what is loaded is kept."""
        key = f"settled-{new_span_id()}"
        async with asyncio.timeout(15):
            while not self._is_in_l2(key):
                await self.get(key, traced=False)
        self.origin.traceparents.clear()

    async def loaded(self, key: str) -> None:
        """By the first instance, for nobody who is traced; the copies in all tiers are there."""
        await self.get(key, traced=False)
        await until("L2 has the copy", lambda: self._is_in_l2(key), seconds=15)

    async def drop_from_l2(self, key: str) -> None:
        with closing(Client(self._memcached.where)) as client:
            client.delete(wire_name(Key.of("docs", key).id), noreply=False)

    def _is_in_l2(self, key: str) -> bool:
        with closing(Client(self._memcached.where)) as client:
            return client.get(wire_name(Key.of("docs", key).id)) is not None


def topology_of(memcached: RealServer, redis: RealServer, origin: str) -> Topology:
    docs = Namespace(
        owner="tests",
        early_refresh=0.0,
        jitter=0.0,
        origin=Origin(f"{origin}/{{key}}", soft_deadline=Duration.parse("3s")),
    )
    return Topology(
        version=1,
        regions={"here": Region(queue=redis.redis_url, pool={"m1": MemcachedServer(memcached.address)})},
        cells={"c1": Cell("here", redis.redis_url.replace("db=0", "db=1"))},
        namespaces={"docs": docs},
    )


@pytest.fixture
async def bench(receiver: OtlpReceiver, memcached: RealServer, redis: RealServer) -> AsyncIterator[Bench]:
    origin = GatedOrigin()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(origin.server)
        found = Bench(receiver, memcached, origin)
        await stack.enter_async_context(found.http)
        topology = topology_of(memcached, redis, str(origin.server.make_url("")).rstrip("/"))
        for name in ("one", "two"):
            telemetry = Telemetry(otlp=receiver.url, trace_ratio=0.0)
            service = Service("here", name, Server(port=0), telemetry=telemetry)
            app = await asyncio.to_thread(App, service, topology)  # it reads its own version from a file
            found.apps.append(app)
            found.urls.append(f"http://127.0.0.1:{await app.start()}")
            stack.push_async_callback(app.stop)
        await until("both are ready", lambda: all(app.readiness()[0] for app in found.apps), seconds=15)
        await found.settled()
        yield found


async def test_a_hit_in_l1_is_one_span(bench: Bench) -> None:
    await bench.loaded("l1")
    trace_id = await bench.get("l1")
    tree = await bench.tree(trace_id, "cache.get_or_load")
    assert tree == "server cache.get_or_load cache.hit=true cache.tier=l1 cachesvc.outcome=hit"


async def test_a_hit_in_l2(bench: Bench) -> None:
    await bench.loaded("l2")
    trace_id = await bench.get("l2", instance=1)
    assert await bench.tree(trace_id, "cache.get_or_load", "get m1") == (
        """\
server cache.get_or_load cache.hit=true cache.tier=l2 cachesvc.outcome=hit
  client get m1"""
    )


async def test_a_hit_in_l3_is_copied_to_l2(bench: Bench) -> None:
    await bench.loaded("l3")
    await bench.drop_from_l2("l3")
    trace_id = await bench.get("l3", instance=1)
    assert await bench.tree(trace_id, "cache.get_or_load", "set m1") == (
        """\
server cache.get_or_load cache.hit=true cache.tier=l3 cachesvc.outcome=hit
  client get m1
  client read c1
  client set m1"""
    )


async def test_a_coalesced_miss_is_one_load_and_who_joined_it_is_linked_to_it(bench: Bench) -> None:
    bench.origin.gate.clear()
    first = asyncio.ensure_future(bench.get("miss"))
    await until("the origin is asked", lambda: bool(bench.origin.traceparents), seconds=15)
    second = asyncio.ensure_future(bench.get("miss"))
    await until("the other one has joined", lambda: bench.apps[0].paths.tally.joined == 1, seconds=15)
    bench.origin.gate.set()
    one, two = await asyncio.gather(first, second)
    assert await bench.tree(one, "cache.get_or_load", "cache.load") == (
        f"server cache.get_or_load cache.hit=false cache.tier=origin cachesvc.lease=granted cachesvc.outcome=loaded\n{LOADED}"
    )
    assert await bench.tree(two, "cache.get_or_load") == (
        "server cache.get_or_load cache.hit=false cache.tier=origin cachesvc.collapsed=true cachesvc.outcome=loaded → cache.load"
    )
    (load,) = [span for span in bench.receiver.spans(one) if span.name == "cache.load"]
    (reader,) = bench.receiver.spans(two)
    assert reader.links == [(one, load.span_id)]


async def test_the_origin_is_told_of_the_span_that_asks_it(bench: Bench) -> None:
    trace_id = await bench.get("asked")
    await bench.tree(trace_id, "GET", "cache.load")
    (get,) = [span for span in bench.receiver.spans(trace_id) if span.name == "GET"]
    assert bench.origin.traceparents == [f"00-{trace_id}-{get.span_id}-01"]


async def test_the_refresh_behind_a_stale_answer_is_in_the_trace_of_who_got_it(bench: Bench) -> None:
    await bench.loaded("stale")
    trace_id = await bench.get("stale")
    assert await bench.tree(trace_id, "cache.get_or_load", "cache.load") == (
        f"server cache.get_or_load cache.hit=true cache.tier=l1 cachesvc.outcome=stale cachesvc.stale=true\n{LOADED}"
    )


async def test_a_wait_for_another_instances_load_says_so(bench: Bench) -> None:
    bench.origin.gate.clear()
    first = asyncio.ensure_future(bench.get("waited"))
    await until("the origin is asked", lambda: bool(bench.origin.traceparents), seconds=15)
    second = asyncio.ensure_future(bench.get("waited", instance=1))
    await until("the other one waits", lambda: bench.apps[1].paths.tally.lease_waits == 1, seconds=15)
    bench.origin.gate.set()
    _, trace_id = await asyncio.gather(first, second)
    tree = await bench.tree(trace_id, "cache.get_or_load", "read c1")
    assert tree.startswith(
        "server cache.get_or_load cache.hit=true cache.tier=l3 cachesvc.lease=waited cachesvc.outcome=hit"
    )
    assert "cache.load" not in tree


async def test_a_put_shows_its_home_and_its_copy(bench: Bench) -> None:
    caller = SpanContext(new_trace_id(), new_span_id(), True)
    url = f"{bench.urls[0]}/v1/docs/put"
    async with bench.http.put(url, data=b"value", headers={"traceparent": str(caller)}) as answer:
        assert answer.status < 300, await answer.text()
    tree = await bench.tree(f"{caller.trace_id:032x}", "cache.set", "put c1", "set m1")
    assert "\n  client put c1" in tree
    assert "\n  client set m1" in tree
    assert len({line for line in tree.splitlines() if line.startswith("server")}) == 1


async def test_a_server_that_is_silent_is_named_with_what_is_wrong(
    bench: Bench, memcached: RealServer
) -> None:
    await bench.loaded("silent")
    await asyncio.to_thread(memcached.pause)
    try:
        trace_id = await bench.get("silent", instance=1)
    finally:
        memcached.resume()
    tree = await bench.tree(trace_id, "cache.get_or_load", "get m1")
    assert tree.startswith(
        """\
server cache.get_or_load cache.hit=true cache.tier=l3 cachesvc.outcome=hit
  client get m1 failed error.type=timeout
  client read c1"""
    )


async def test_no_key_and_no_value_leaves_the_service(bench: Bench) -> None:
    trace_id = await bench.get("jane.doe@example.com")
    await bench.tree(trace_id, "cache.get_or_load", "cache.load")
    bodies = b"".join(bench.receiver.bodies)
    assert b"cache.load" in bodies
    assert b"jane" not in bodies
    assert VALUE not in bodies
