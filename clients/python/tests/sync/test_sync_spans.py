"""The spans of the threads' flavour: the same names, and a batch that one thread sends for others."""

from collections.abc import Iterator
from functools import partial

import pytest
from cachesvc_client import CacheError
from cachesvc_client.sync import Cache
from cachesvc_client.sync.batching import Batcher
from cachesvc_client.tracing.spans import Spans, request_span

from clients.python.tests.recorded_spans import RecordedSpans
from clients.python.tests.sync.callers import PATIENCE, calls, results, until
from clients.python.tests.sync.test_sync_batching import Line, busy, waiting
from clients.python.tests.sync.threaded_service import ThreadedService


@pytest.fixture
def spans() -> RecordedSpans:
    return RecordedSpans()


@pytest.fixture
def traced(threaded: ThreadedService, spans: RecordedSpans) -> Iterator[Cache]:
    with Cache.from_url(threaded.url, default_timeout="5s", tracer_provider=spans.provider) as opened:
        yield opened


def test_a_load_is_one_tree_and_the_service_is_told_of_its_request(
    threaded: ThreadedService, traced: Cache, spans: RecordedSpans
) -> None:
    with spans.page():
        traced.namespace("pages").get_or_load("a", lambda _: b"1")
    assert spans.tree() == [
        "page internal",
        "  cache.get_or_load internal cache.hit=False cachesvc.lag_ms=100.0 cachesvc.lease=granted cachesvc.outcome=miss",
        "    cache.get client",
        "    cache.load internal",
        "    cache.set internal",
        "      cache.set client",
    ]
    request = spans.named("cache.get")[0]
    assert (
        threaded.fake.calls(":get")[0].headers["traceparent"].split("-")[2]
        == f"{request.context.span_id:016x}"
    )


def test_each_call_has_a_span(traced: Cache, spans: RecordedSpans) -> None:
    pages = traced.namespace("pages")
    with spans.page():
        pages.set("a", b"1")
        pages.set_many({"b": b"2", "c": b"3"})
        pages.get("a")
        pages.get_many(["a", "b"])
        pages.touch("a", ttl="5m")
        pages.invalidate(["a"])
        pages.delete("b")
    assert [line.split()[0] for line in spans.tree() if line.startswith("  c")] == [
        "cache.set",
        "cache.set",
        "cache.get",
        "cache.get",
        "cache.get",
        "cache.set",
        "cache.invalidate",
        "cache.invalidate",
    ]


def test_a_failure_is_told_by_its_type(
    threaded: ThreadedService, traced: Cache, spans: RecordedSpans
) -> None:
    threaded.fake.problem = (400, {"type": "https://cachesvc.dev/problems/bad-key", "status": 400}, {})
    with spans.page(), pytest.raises(CacheError):
        traced.namespace("pages").get("a")
    assert "  cache.get internal error.type=bad-key" in spans.tree()


def test_what_a_trace_without_samples_asks_has_no_span(traced: Cache, spans: RecordedSpans) -> None:
    with spans.page(sampled=False):
        traced.namespace("pages").get("a")
    assert spans.ended == ()


def are_waiting(batcher: Batcher[str, str], callers: int) -> bool:
    return waiting(batcher) == callers


def test_a_batch_is_beneath_a_sampled_caller_whoever_leads_it(
    monkeypatch: pytest.MonkeyPatch, spans: RecordedSpans
) -> None:
    monkeypatch.setattr("cachesvc_client.sync.batching.MAX_DELAY", PATIENCE)
    line = Line(gated=1)

    def send(items: list[str], deadline: float) -> list[str | CacheError]:
        with request_span("cache.get", items=len(items)):
            return list(line(items, deadline))

    def ask(key: str, *, sampled: bool) -> str | CacheError:
        with spans.page(key, sampled=sampled), Spans(spans.provider).call("cache.get", "pages"):
            return batcher.join(key, 5)

    batcher: Batcher[str, str] = Batcher(send)
    first = busy(line, batcher)
    asking = []
    for waits, (key, sampled) in enumerate([("leads", False), ("first", True), ("second", True)], 1):
        asking += calls(partial(ask, key, sampled=sampled))
        until(partial(are_waiting, batcher, waits))
    line.open_gates()
    assert results(asking) == ["LEADS", "FIRST", "SECOND"]
    results(first)
    assert spans.tree() == [
        "first internal",
        "  cache.get internal",
        "    cache.get client cachesvc.batch.size=3",
        "second internal",
        "  cache.get internal → cache.get",
    ]
