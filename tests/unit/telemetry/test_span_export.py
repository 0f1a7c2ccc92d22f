"""`Tracing`: ended spans reach the receiver from a thread; whatever the receiver does, the loop does not wait."""

import asyncio
import threading
import time
from typing import get_args

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Message
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from opentelemetry.sdk.resources import Resource

from cachesvc.telemetry.otlp_http import NotTakenError
from cachesvc.telemetry.traces import export as module
from cachesvc.telemetry.traces.export import BATCH, MOST_WAITING, SpanTally, Tracing
from cachesvc.telemetry.traces.trace import Kind, Span, SpanContext

RESOURCE = Resource({"service.name": "cachesvc"})


class RecordingReceiver:
    def __init__(self, *fails_with: NotTakenError) -> None:
        self.batches: list[list[Message]] = []
        """Taken."""
        self.threads: set[str] = set()
        self.posted = threading.Event()
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self._failures = list(fails_with)

    @property
    def spans(self) -> list[Message]:
        return [span for batch in self.batches for span in batch]

    def post(self, message: bytes, /) -> None:
        self.threads.add(threading.current_thread().name)
        self.posted.set()
        self.may_go_on.wait(30)
        if self._failures:
            raise self._failures.pop(0)
        (resource,) = ExportTraceServiceRequest.FromString(message).resource_spans
        assert {pair.key: pair.value.string_value for pair in resource.resource.attributes} == {
            "service.name": "cachesvc"
        }
        (scope,) = resource.scope_spans
        self.batches.append(list(scope.spans))


AWAY = NotTakenError("connection refused", is_final=False)
REFUSED = NotTakenError("400 bad request", is_final=True)


def tracing_to(receiver: RecordingReceiver) -> Tracing:
    return Tracing("http://receiver", RESOURCE, receiver=receiver)


def ended(number: int = 8, parent_id: int = 0) -> Span:
    return Span("cache.get", "server", SpanContext(7, number, True), None, parent_id, 1000, 2000)


async def exported(*spans: Span) -> list[Message]:
    receiver = RecordingReceiver()
    tracing = tracing_to(receiver)
    await tracing.start()
    for span in spans:
        tracing.record(span)
    await tracing.stop()
    assert tracing.tally == SpanTally(exported=len(spans))
    assert receiver.threads == {"export of spans"}
    return receiver.spans


class TestASpan:
    async def test_is_exported_as_it_ended_and_stopping_sends_what_is_waiting(self) -> None:
        given = ended(parent_id=9)
        given.attributes.update(
            {"cache.hit": True, "cachesvc.batch.size": 1, "cachesvc.share": 0.5, "cache.tier": "l1"}
        )
        (span,) = await exported(given)
        ids = [int.from_bytes(each, "big") for each in (span.trace_id, span.span_id, span.parent_span_id)]
        assert ids == [7, 8, 9]
        assert (span.name, span.kind, span.start_time_unix_nano, span.end_time_unix_nano) == (
            "cache.get",
            Message.SPAN_KIND_SERVER,
            1000,
            2000,
        )
        hit, size, share, tier = span.attributes
        assert (hit.key, hit.value.bool_value, hit.value.WhichOneof("value")) == (
            "cache.hit",
            True,
            "bool_value",
        )
        assert (size.value.int_value, share.value.double_value, tier.value.string_value) == (1, 0.5, "l1")
        assert span.status.code == Status.STATUS_CODE_UNSET

    async def test_true_and_one_are_different_attributes(self) -> None:
        one, true = ended(), ended()
        one.attributes["any"], true.attributes["any"] = 1, True
        first, second = await exported(one, true)
        assert [span.attributes[0].value.WhichOneof("value") for span in (first, second)] == [
            "int_value",
            "bool_value",
        ]

    async def test_that_failed_has_the_error_as_attribute_and_status(self) -> None:
        failed = ended()
        failed.error = "deadline"
        (span,) = await exported(failed)
        assert [(pair.key, pair.value.string_value) for pair in span.attributes] == [
            ("error.type", "deadline")
        ]
        assert span.status.code == Status.STATUS_CODE_ERROR
        assert span.parent_span_id == b""

    async def test_keeps_its_links(self) -> None:
        linking = ended()
        linking.link(SpanContext(70, 80, True))
        (span,) = await exported(linking)
        (link,) = span.links
        assert (int.from_bytes(link.trace_id, "big"), int.from_bytes(link.span_id, "big")) == (70, 80)

    async def test_of_every_kind_has_its_counterpart(self) -> None:
        spans = await exported(*(Span("any", kind, SpanContext(1, 2, True), None) for kind in get_args(Kind)))
        names = [Message.SpanKind.Name(span.kind) for span in spans]
        assert names == [f"SPAN_KIND_{kind.upper()}" for kind in get_args(Kind)]


class TestTheQueue:
    async def test_leaves_in_batches_in_order(self) -> None:
        receiver = RecordingReceiver()
        tracing = tracing_to(receiver)
        for number in range(3 * BATCH):
            tracing.record(ended(number + 1))
        await tracing.start()
        await tracing.stop()
        assert [len(batch) for batch in receiver.batches] == [BATCH] * 3
        assert [int.from_bytes(span.span_id, "big") for span in receiver.spans] == list(
            range(1, 3 * BATCH + 1)
        )

    async def test_drops_and_counts_what_does_not_fit(self) -> None:
        tracing = tracing_to(RecordingReceiver())
        for _ in range(MOST_WAITING + 5):
            tracing.record(ended())
        assert tracing.tally == SpanTally(dropped=5)


class TestAReceiver:
    async def test_that_is_away_for_a_while_gets_everything_later(self) -> None:
        receiver = RecordingReceiver(AWAY)
        tracing = tracing_to(receiver)
        for number in range(BATCH + 1):
            tracing.record(ended(number + 1))
        await tracing.start()
        await asyncio.to_thread(receiver.posted.wait, 10)
        await tracing.stop()
        assert tracing.tally == SpanTally(exported=BATCH + 1)
        assert [int.from_bytes(span.span_id, "big") for span in receiver.spans] == list(range(1, BATCH + 2))

    async def test_that_refuses_spans_is_not_sent_them_again(self) -> None:
        receiver = RecordingReceiver(REFUSED)
        tracing = tracing_to(receiver)
        for number in range(BATCH + 1):
            tracing.record(ended(number + 1))
        await tracing.start()
        await tracing.stop()
        assert tracing.tally == SpanTally(exported=1, dropped=BATCH)

    async def test_that_never_answers_does_not_keep_the_service_from_stopping(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "STOP_SECONDS", 0.1)
        receiver = RecordingReceiver()
        receiver.may_go_on.clear()
        tracing = tracing_to(receiver)
        tracing.record(ended())
        await tracing.start()
        began = time.monotonic()
        await tracing.stop()
        assert time.monotonic() - began < 2
        receiver.may_go_on.set()

    async def test_that_is_away_is_said_once(self, caplog: pytest.LogCaptureFixture) -> None:
        tracing = tracing_to(RecordingReceiver(REFUSED, REFUSED, REFUSED))
        for _ in range(3 * BATCH):
            tracing.record(ended())
        await tracing.start()
        await tracing.stop()
        assert caplog.messages == ["the receiver of traces at http://receiver fails: 400 bad request"]
