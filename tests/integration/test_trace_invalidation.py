"""One invalidation across two regions, as an OTLP receiver sees it: real instances, cells and queues, each its own process."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from redis.asyncio import Redis

from cachesvc.changes.events.cloudevents import encode
from cachesvc.model.change import Change
from cachesvc.telemetry.traces.trace import SpanContext
from loadtests.fleet import Fleet
from tests.doubles.otlp import OtlpReceiver, ReceivedSpan
from tests.doubles.spans import Recording

pytestmark = pytest.mark.slow

DOCUMENT = Path(__file__).parents[2] / "config" / "two-regions.yaml"
INSTANCES = ["eu/eu-a", "eu/eu-b", "us/us-a", "us/us-b"]
KEY = "{ws-7}:secret-name-of-a-page"
VARYING = {"server.address", "server.port", "cachesvc.lag_ms"}
"""The attributes that differ from run to run."""

INVALIDATED = """\
server cache.invalidate cachesvc.all=false cachesvc.namespace=pages cachesvc.outcome=applied cachesvc.targets=1
  client append changes of eu db.operation.name=append db.system.name=redis
  internal cache.apply cachesvc.cells=eu-2 cachesvc.changes=1 cachesvc.namespace=pages
    client fence eu-2 db.operation.name=fence db.system.name=redis
  producer cache.publish
    client publish fences of eu db.operation.name=publish db.system.name=redis
  client delete eu-m2 db.operation.name=delete db.system.name=memcached"""
APPLIED = """\
consumer cache.apply cachesvc.cells=eu-2 cachesvc.changes=1 cachesvc.namespace=pages → {producer}
  client fence eu-2 db.operation.name=fence db.system.name=redis
  producer cache.publish
    client publish fences of us db.operation.name=publish db.system.name=redis"""
MERGED = "consumer cache.merge cachesvc.feed=eu cachesvc.fences=1"


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as listening:
        yield listening


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, receiver: OtlpReceiver) -> Iterator[Fleet]:
    """Nothing is traced but what a caller or a producer samples."""
    environ = {
        "CACHESVC_TELEMETRY_OTLP": receiver.url,
        "CACHESVC_TELEMETRY_TRACE_RATIO": "0",
        "CACHESVC_TELEMETRY_SLOW": "60s",
    }
    with Fleet(DOCUMENT, tmp_path_factory.mktemp("fleet") / "run", environ=environ) as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def a_trace() -> SpanContext:
    """Returns the context of a sampled span of a caller."""
    return Recording().root().context


def linked_to(context: SpanContext, receiver: OtlpReceiver, name: str) -> list[ReceivedSpan]:
    """Spans of this name with a link into the trace."""
    trace_id = f"{context.trace_id:032x}"
    return [
        span
        for span in receiver.spans()
        if span.name == name and any(trace == trace_id for trace, _ in span.links)
    ]


def says_no_key(receiver: OtlpReceiver) -> bool:
    return not any(b"secret-name" in body for body in receiver.bodies)


def instances(spans: list[ReceivedSpan]) -> list[str]:
    return sorted(str(span.resource["service.instance.id"]) for span in spans)


async def test_an_invalidation_is_one_trace_and_every_instance_of_both_regions_links_its_merge_to_it(
    fleet: Fleet, receiver: OtlpReceiver, http: aiohttp.ClientSession
) -> None:
    caller = a_trace()
    change = {"namespace": "pages", "keys": [KEY]}
    url = f"{fleet.url('eu-a')}/v1/invalidations"
    async with http.post(url, json=change, headers={"traceparent": str(caller)}) as answer:
        assert answer.status == 200
    trace_id = f"{caller.trace_id:032x}"
    await receiver.until(
        lambda r: len(linked_to(caller, r, "cache.merge")) == 4 and len(r.spans(trace_id)) == 7
    )
    assert receiver.tree(trace_id, hide=VARYING) == INVALIDATED
    merges = linked_to(caller, receiver, "cache.merge")
    assert instances(merges) == INSTANCES
    for merge in merges:
        assert receiver.tree(merge.trace_id, hide=VARYING) == MERGED + " → cache.invalidate"
        assert 0 <= float(merge.attributes["cachesvc.lag_ms"]) < 1000
    assert says_no_key(receiver)


async def test_what_a_producer_announces_in_one_region_is_linked_to_its_trace_in_both(
    fleet: Fleet, receiver: OtlpReceiver
) -> None:
    """With an `XADD`, as any producer may."""
    producer = a_trace()
    event = encode(Change("pages", keys=(KEY,)), id_="1", source="/orders", traceparent=str(producer))
    async with Redis.from_url(fleet.topology.regions["us"].queue) as queue:
        await queue.xadd("changes", {"event": event})
    await receiver.until(
        lambda r: (
            len(linked_to(producer, r, "cache.merge")) == 4 and bool(linked_to(producer, r, "cache.apply"))
        )
    )
    (applying,) = linked_to(producer, receiver, "cache.apply")
    linked = f"{producer.trace_id:032x}:{producer.span_id:016x}"
    assert receiver.tree(applying.trace_id, hide=VARYING) == APPLIED.format(producer=linked)
    assert instances(linked_to(producer, receiver, "cache.merge")) == INSTANCES
    assert instances([applying])[0].startswith("us/")
    assert says_no_key(receiver)
