"""A request belongs to the trace of the caller it is for."""

import asyncio
import sys
from contextvars import ContextVar
from types import SimpleNamespace

import pytest
from cachesvc_client import Cache
from cachesvc_client.aio.batching import LANES
from cachesvc_client.tracing.traceparent import opentelemetry_traceparent, trace_headers

from clients.python.tests.fake_service import FakeService

CURRENT: ContextVar[str | None] = ContextVar("current", default=None)


def traceparent(nth: int) -> str:
    return f"00-{nth:032x}-{nth:016x}-01"


async def test_each_request_carries_the_trace_of_who_asked(service: FakeService) -> None:
    async with Cache.from_url(service.url, traceparent=CURRENT.get) as cache:
        pages = cache.namespace("pages")
        await pages.get("a")
        CURRENT.set(traceparent(1))
        await pages.invalidate(["a"])
    assert [request.headers.get("traceparent") for request in service.saw] == [None, traceparent(1)]


async def test_a_batch_carries_the_trace_of_its_first_caller_also_when_it_had_to_wait(
    service: FakeService,
) -> None:
    """Such a batch departs from the callback of another batch, whose trace it must not have."""
    service.gate.clear()
    async with Cache.from_url(service.url, traceparent=CURRENT.get, default_timeout="5s") as cache:
        pages = cache.namespace("pages")

        async def ask(nth: int) -> None:
            CURRENT.set(traceparent(nth))
            await pages.get(f"k{nth}")

        asking = []
        for nth in range(1, LANES + 1):
            asking.append(asyncio.create_task(ask(nth)))
            await service.arrived.acquire()
        asking += [asyncio.create_task(ask(nth)) for nth in (8, 9)]
        await asyncio.sleep(0)
        service.gate.set()
        await asyncio.gather(*asking)
    assert [request.headers["traceparent"] for request in service.saw] == [
        traceparent(nth) for nth in (*range(1, LANES + 1), 8)
    ]
    assert service.saw[-1].body["keys"] == ["k8", "k9"]


@pytest.mark.parametrize("value", [None, "", "x", "00-1-2-3", traceparent(1) + "\r\nx: y"])
def test_what_is_no_traceparent_is_not_sent(value: str | None) -> None:
    assert trace_headers(lambda: value) == {}


def test_opentelemetrys_current_span_is_taken_if_the_process_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "opentelemetry.trace", raising=False)
    assert opentelemetry_traceparent() is None
    span = SimpleNamespace(trace_id=10, span_id=11, trace_flags=1, is_valid=True)
    fake = SimpleNamespace(get_current_span=lambda: SimpleNamespace(get_span_context=lambda: span))
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", fake)
    assert opentelemetry_traceparent() == "00-" + "a".rjust(32, "0") + "-" + "b".rjust(16, "0") + "-01"
    span.is_valid = False
    assert opentelemetry_traceparent() is None
