"""Ended spans on their way to an OTLP receiver, in a thread of their own.

    the loop: record ──► queue, bounded ──► the thread: as the SDK has them ──► OTLPSpanExporter (encodes, sends, tries again)

The SDK's own `BatchSpanProcessor` wants SDK spans on the loop (15 µs each, where a record here costs two), tells nobody how many
it dropped, and waits up to 30 s in `shutdown`. Hence this queue; resource, encoding and sending are the SDK's.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Sequence

from msgspec import Struct
from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanKind, TraceFlags
from opentelemetry.trace import SpanContext as SdkContext
from opentelemetry.trace.status import Status, StatusCode

from cachesvc.outage import Outage
from cachesvc.trace import Span, SpanContext

log = logging.getLogger(__name__)

MOST_WAITING = 8192
"""Spans. More are dropped and counted: 4 MB, or what a busy instance makes in a second while the receiver is away."""
BATCH = 512
PAUSE_SECONDS = 0.25
"""Until spans are sent although they are few. The encoder holds the interpreter meanwhile: few at a time are better, a second's
worth would delay requests by milliseconds."""
SEND_SECONDS = 3.0
"""For one batch with all attempts; then it is dropped."""
STOP_SECONDS = 2.0

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_SCOPE = InstrumentationScope("cachesvc")
_FINE, _FAILED = Status(StatusCode.UNSET), Status(StatusCode.ERROR)
_KINDS = {kind.name.lower(): kind for kind in SpanKind}


class SpanTally(Struct):
    exported: int = 0
    """Taken by the receiver."""
    dropped: int = 0
    """The queue was full, or the receiver did not take them."""


class Tracing:
    """A `Recorder`. `start` once, then `stop` once."""

    def __init__(self, otlp: str, resource: Resource, *, exporter: SpanExporter | None = None) -> None:
        """`otlp`: base URL of the receiver."""
        # It logs every attempt of every batch; the outage is said once, below.
        logging.getLogger(trace_exporter.__name__).setLevel(logging.CRITICAL)
        self.tally = SpanTally()
        self._resource = resource
        self._exporter = exporter or trace_exporter.OTLPSpanExporter(f"{otlp.rstrip('/')}/v1/traces", timeout=SEND_SECONDS)
        self._outage = Outage(f"the receiver of traces at {otlp}", log)
        self._waiting: deque[Span] = deque()
        self._wake = threading.Event()
        self._is_stopping = False
        # A daemon: one that hangs in a receiver's connection does not keep the process.
        self._thread = threading.Thread(target=self._run, name="export of spans", daemon=True)

    def __repr__(self) -> str:
        return f"<Tracing [{len(self._waiting)} waiting, {self.tally!r}, {self._outage!r}]>"

    def record(self, span: Span) -> None:
        waiting = len(self._waiting)
        if waiting >= MOST_WAITING:
            self.tally.dropped += 1
            return
        self._waiting.append(span)
        if waiting == BATCH:
            self._wake.set()

    async def start(self) -> None:
        self._thread.start()

    async def stop(self) -> None:
        """Send what is waiting. After `STOP_SECONDS` the rest is dropped."""
        self._is_stopping = True
        self._wake.set()
        await asyncio.to_thread(self._thread.join, STOP_SECONDS)
        self._exporter.shutdown()

    # the thread -------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._is_stopping:
            self._wake.wait(PAUSE_SECONDS)
            self._wake.clear()
            self._send_waiting()
        self._send_waiting()

    def _send_waiting(self) -> None:
        """In batches; a failure ends it until the next pause, or for good when stopping."""
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            if not self._send(batch):
                return

    def _send(self, batch: Sequence[Span]) -> bool:
        try:
            sent = self._exporter.export([self._readable(span) for span in batch])
        except Exception:
            log.exception("spans could not be exported")  # a mistake of ours; this thread goes on
            sent = SpanExportResult.FAILURE
        if sent is not SpanExportResult.SUCCESS:
            self.tally.dropped += len(batch)
            self._outage.failed("spans are dropped")
            return False
        self.tally.exported += len(batch)
        self._outage.worked()
        return True

    def _readable(self, span: Span) -> ReadableSpan:
        return ReadableSpan(
            span.name,
            _sdk(span.context),
            _parent(span),
            self._resource,
            {**span.attributes, "error.type": span.error} if span.error else span.attributes.copy(),
            links=[Link(_sdk(link, is_remote=True)) for link in span.links],
            kind=_KINDS[span.kind],
            status=_FAILED if span.error else _FINE,
            start_time=span.started_ns,
            end_time=span.ended_ns,
            instrumentation_scope=_SCOPE,
        )


def _parent(span: Span) -> SdkContext | None:
    if not span.parent_id:
        return None
    return SdkContext(span.context.trace_id, span.parent_id, span.kind in ("server", "consumer"), _SAMPLED)


def _sdk(context: SpanContext, *, is_remote: bool = False) -> SdkContext:
    return SdkContext(context.trace_id, context.span_id, is_remote, _SAMPLED)
