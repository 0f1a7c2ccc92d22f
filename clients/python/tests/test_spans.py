"""One trace goes from the caller's span to the request and the loader.

There are no spans in a trace that nobody keeps.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest
from cachesvc_client import Cache, CacheError, NearSettings
from cachesvc_client.near.near import Shelf
from opentelemetry.trace import get_current_span

from clients.python.tests.fake_service import FakeService
from clients.python.tests.recorded_spans import RecordedSpans


@pytest.fixture
def spans() -> RecordedSpans:
    return RecordedSpans()


@pytest.fixture
async def traced(service: FakeService, spans: RecordedSpans) -> AsyncIterator[Cache]:
    async with Cache.from_url(service.url, default_timeout="5s", tracer_provider=spans.provider) as opened:
        yield opened


async def test_a_get_is_a_call_and_its_request_whose_context_the_service_is_told(
    service: FakeService, traced: Cache, spans: RecordedSpans
) -> None:
    service.hold("a", b"1")
    with spans.page():
        await traced.namespace("pages").get("a")
    assert spans.tree() == [
        "page internal",
        "  cache.get internal cache.hit=True cache.tier=l1 cachesvc.lag_ms=100.0 cachesvc.outcome=hit",
        "    cache.get client",
    ]
    call, request = spans.named("cache.get")[::-1]
    assert call.attributes is not None
    assert call.attributes["cachesvc.namespace"] == "pages"
    assert request.attributes is not None
    assert request.attributes["server.address"] == "127.0.0.1"
    assert service.saw[-1].headers["traceparent"].split("-")[1:3] == [
        f"{request.context.trace_id:032x}",
        f"{request.context.span_id:016x}",
    ]


async def test_a_batch_is_beneath_its_first_sampled_caller_and_the_others_are_linked_to_it(
    service: FakeService, traced: Cache, spans: RecordedSpans
) -> None:
    pages = traced.namespace("pages")

    async def ask(key: str, *, sampled: bool = True) -> None:
        with spans.page(key, sampled=sampled):
            await pages.get(key)

    await asyncio.gather(ask("unsampled", sampled=False), ask("first"), ask("second"))
    (request,) = service.calls(":get")
    assert request.body["keys"] == ["unsampled", "first", "second"]
    assert [line for line in spans.tree() if "miss" not in line] == [
        "first internal",
        "    cache.get client cachesvc.batch.size=3",
        "second internal",
    ]
    linked = [line for line in spans.tree() if "→" in line]
    assert [line.partition(" → ")[2] for line in linked] == ["cache.get"]


async def test_a_load_has_a_span_in_which_the_loader_runs_and_a_fill(
    service: FakeService, traced: Cache, spans: RecordedSpans
) -> None:
    seen: list[str] = []

    async def load(_: str) -> bytes:
        seen.append(getattr(get_current_span(), "name", ""))
        return b"1"

    with spans.page():
        await traced.namespace("pages").get_or_load("a", load)
    assert seen == ["cache.load"]
    assert spans.tree() == [
        "page internal",
        "  cache.get_or_load internal"
        " cache.hit=False cachesvc.lag_ms=100.0 cachesvc.lease=granted cachesvc.outcome=miss",
        "    cache.get client",
        "    cache.load internal",
        "    cache.set internal",
        "      cache.set client",
    ]


async def test_a_caller_that_waits_for_the_load_of_another_is_collapsed(
    traced: Cache, spans: RecordedSpans
) -> None:
    loading, go = asyncio.Event(), asyncio.Event()

    async def load(_: str) -> bytes:
        loading.set()
        await go.wait()
        return b"1"

    async def ask(page: str) -> None:
        with spans.page(page):
            await pages.get_or_load("a", load)

    pages = traced.namespace("pages")
    first = asyncio.create_task(ask("first"))
    await loading.wait()
    second = asyncio.create_task(ask("second"))
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(first, second)
    assert len(spans.named("cache.load")) == 1
    assert "  cache.get_or_load internal cachesvc.collapsed=True" in spans.tree()


async def test_writes_and_invalidations_have_spans(traced: Cache, spans: RecordedSpans) -> None:
    pages = traced.namespace("pages")
    with spans.page():
        await pages.set("a", b"1")
        await pages.set_many({"b": b"2", "c": b"3"})
        await pages.invalidate(["a"])
        await pages.delete("b")
        await pages.get_many(["a", "b"])
    assert spans.tree() == [
        "page internal",
        "  cache.set internal",
        "    cache.set client",
        "  cache.set internal cachesvc.batch.size=2",
        "    cache.set client cachesvc.batch.size=2",
        "  cache.invalidate internal",
        "    cache.invalidate client",
        "  cache.invalidate internal",
        "    cache.invalidate client",
        "  cache.get internal cachesvc.batch.size=2",
        "    cache.get client cachesvc.batch.size=2",
    ]


async def test_a_failure_is_told_by_its_type_and_never_by_its_message(
    service: FakeService, traced: Cache, spans: RecordedSpans
) -> None:
    service.problem = (
        400,
        {"type": "https://cachesvc.dev/problems/bad-key", "detail": "a-key-of-a-user", "status": 400},
        {},
    )
    with spans.page(), pytest.raises(CacheError):
        await traced.namespace("pages").get("a-key-of-a-user")
    call = spans.named("cache.get")[-1]
    assert call.attributes is not None
    assert (call.attributes["error.type"], call.status.is_ok) == ("bad-key", False)
    assert not any("a-key-of-a-user" in span.to_json() for span in spans.named("cache.get"))


async def test_a_trace_that_nobody_keeps_is_handed_on_and_has_no_spans(
    service: FakeService, traced: Cache, spans: RecordedSpans
) -> None:
    with spans.page(sampled=False) as page:
        await traced.namespace("pages").get("a")
    await traced.namespace("pages").get("b")
    assert spans.ended == ()
    context = page.get_span_context()
    unsampled = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    assert [request.headers.get("traceparent") for request in service.calls(":get")] == [unsampled, None]


async def test_what_a_near_cache_answers_has_no_span(
    traced: Cache, spans: RecordedSpans, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = traced.namespace("pages", near=NearSettings())
    monkeypatch.setattr(Shelf, "value", lambda *_: b"held")
    with spans.page():
        assert await pages.get("a") == b"held"
    assert spans.tree() == ["page internal"]


async def test_a_call_that_runs_out_of_its_own_time_ends_its_span_with_that_error(
    service: FakeService, traced: Cache, spans: RecordedSpans
) -> None:
    service.gate.clear()
    with spans.page(), pytest.raises(CacheError):
        await traced.namespace("pages").get("a", timeout="0.05s")
    service.gate.set()
    (span,) = spans.named("cache.get")[-1:]
    assert (span.attributes or {})["error.type"] == "deadline"
