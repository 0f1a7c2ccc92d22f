"""`Tracing`: ended spans reach the exporter from a thread; whatever the receiver does, the loop does not wait."""

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import get_args

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind
from opentelemetry.trace.status import StatusCode

from cachesvc.telemetry import tracing as module
from cachesvc.telemetry.tracing import BATCH, MOST_WAITING, SpanTally, Tracing
from cachesvc.trace import Kind, Span, SpanContext

RESOURCE = Resource({"service.name": "cachesvc"})


class RecordingExporter(SpanExporter):
    def __init__(self, result: SpanExportResult = SpanExportResult.SUCCESS) -> None:
        self.batches: list[Sequence[ReadableSpan]] = []
        self.threads: set[str] = set()
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.was_shut_down = False
        self._result = result

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.threads.add(threading.current_thread().name)
        self.batches.append(spans)
        self.may_go_on.wait(30)
        return self._result

    def shutdown(self) -> None:
        self.was_shut_down = True
        self.may_go_on.set()


def ended(name: str = "cache.get", parent_id: int = 0) -> Span:
    return Span(name, "server", SpanContext(7, 8, True), None, parent_id, 1000, 2000, {"cache.hit": True})


async def exported(*spans: Span) -> list[ReadableSpan]:
    exporter = RecordingExporter()
    tracing = Tracing("http://receiver", RESOURCE, exporter=exporter)
    await tracing.start()
    for span in spans:
        tracing.record(span)
    await tracing.stop()
    assert tracing.tally == SpanTally(exported=len(spans))
    assert exporter.threads == {"export of spans"}
    assert exporter.was_shut_down
    return [span for batch in exporter.batches for span in batch]


async def test_a_span_is_exported_as_it_ended_and_stopping_sends_what_is_waiting() -> None:
    (span,) = await exported(ended(parent_id=9))
    context, parent = span.get_span_context(), span.parent
    assert context is not None
    assert parent is not None
    assert (context.trace_id, context.span_id, parent.trace_id, parent.span_id) == (7, 8, 7, 9)
    assert (span.name, span.kind, span.start_time, span.end_time) == ("cache.get", SpanKind.SERVER, 1000, 2000)
    assert dict(span.attributes or {}) == {"cache.hit": True}
    assert span.status.status_code is StatusCode.UNSET
    assert span.resource is RESOURCE


async def test_an_error_is_an_attribute_and_a_status() -> None:
    failed = ended()
    failed.error = "deadline"
    (span,) = await exported(failed)
    assert dict(span.attributes or {}) == {"cache.hit": True, "error.type": "deadline"}
    assert span.status.status_code is StatusCode.ERROR
    assert span.parent is None


async def test_links_are_kept() -> None:
    linking = ended()
    linking.link(SpanContext(70, 80, True))
    (span,) = await exported(linking)
    assert [(link.context.trace_id, link.context.span_id) for link in span.links] == [(70, 80)]


async def test_every_kind_has_its_counterpart() -> None:
    kinds = get_args(Kind)
    spans = await exported(*(Span("any", kind, SpanContext(1, 2, True), None) for kind in kinds))
    assert [span.kind.name.lower() for span in spans] == list(kinds)


async def test_many_leave_in_batches_without_waiting_for_the_pause() -> None:
    exporter = RecordingExporter()
    tracing = Tracing("http://receiver", RESOURCE, exporter=exporter)
    for _ in range(3 * BATCH):
        tracing.record(ended())
    await tracing.start()
    await tracing.stop()
    assert [len(batch) for batch in exporter.batches] == [BATCH] * 3


async def test_what_does_not_fit_is_dropped_and_counted() -> None:
    tracing = Tracing("http://receiver", RESOURCE, exporter=RecordingExporter())
    for _ in range(MOST_WAITING + 5):
        tracing.record(ended())
    assert tracing.tally == SpanTally(dropped=5)


async def test_what_the_receiver_does_not_take_is_dropped_and_counted() -> None:
    tracing = Tracing("http://receiver", RESOURCE, exporter=RecordingExporter(SpanExportResult.FAILURE))
    tracing.record(ended())
    await tracing.start()
    await tracing.stop()
    assert tracing.tally == SpanTally(dropped=1)


async def test_a_receiver_that_never_answers_does_not_keep_the_service_from_stopping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STOP_SECONDS", 0.1)
    exporter = RecordingExporter()
    exporter.may_go_on.clear()
    tracing = Tracing("http://receiver", RESOURCE, exporter=exporter)
    await tracing.start()
    tracing.record(ended())
    began = time.monotonic()
    async with asyncio.timeout(5):
        await tracing.stop()
    assert time.monotonic() - began < 2
    assert exporter.was_shut_down
