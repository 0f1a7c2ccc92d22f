"""Sends ended spans to an OTLP receiver, in a thread of its own.

    the loop:    record ──► a bounded queue
    the thread:  takes a batch from the queue, encodes it, sends it;
                 a batch that was not accepted goes back into the queue, and the pauses get longer

The SDK's processor and exporter are not used. They take SDK spans, which cost the loop 15 µs each
(a record here costs 2 µs) and 27 µs to encode. They do not tell how many spans they dropped, and
their `shutdown` waits up to 30 s.
"""

import asyncio
import logging
import ssl
import threading
from collections import deque

from msgspec import Struct
from opentelemetry.sdk.resources import Resource

from cachesvc.telemetry.loops import Loop
from cachesvc.telemetry.otlp_http import NotTakenError, Receiver, Receiving
from cachesvc.telemetry.outage import Outage
from cachesvc.telemetry.traces.otlp_spans import encoded, resource_message
from cachesvc.telemetry.traces.trace import Span

log = logging.getLogger(__name__)

MOST_WAITING = 8192
"""The most spans that wait; further ones are dropped and counted.

They take about 8 MB, or what a busy instance makes in one second while the receiver is away.
"""
BATCH = 512
"""Spans of one message."""
PAUSE_SECONDS = 1.0
"""How long the thread waits for a full batch before it sends fewer spans.

Waiting is worth it because each message takes the interpreter from the loop a few times.
"""
LONGEST_PAUSE_SECONDS = 8.0
"""The longest pause between two attempts while the receiver is away."""
STOP_SECONDS = 2.0
"""Time that `stop` gives to the spans that wait."""


class SpanTally(Struct):
    """Counts of spans."""

    exported: int = 0
    """Spans that the receiver accepted."""
    dropped: int = 0
    """Spans for which the queue was full, or that the receiver refused for good."""


class Tracing:
    """A `Recorder` that exports. Call `start` once, then `stop` once."""

    def __init__(
        self,
        otlp: str,
        resource: Resource,
        *,
        receiver: Receiving | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`otlp` is the receiver's base URL; `tls` is for a receiver of https."""
        self.tally = SpanTally()
        self._resource = resource_message(resource)
        self._receiver = receiver or Receiver(f"{otlp.rstrip('/')}/v1/traces", tls=tls)
        self._outage = Outage(f"the receiver of traces at {otlp}", log)
        self.loop = Loop("export of spans")
        self._waiting: deque[Span] = deque()
        self._wake = threading.Event()
        self._is_stopping = False
        # A daemon thread: one that hangs in the receiver's connection does not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="export of spans", daemon=True)

    def __repr__(self) -> str:
        return f"<Tracing [{len(self._waiting)} waiting, {self.tally!r}, {self._outage!r}]>"

    def record(self, span: Span) -> None:
        """Queues an ended span for export, or drops and counts it if the queue is full."""
        waiting = len(self._waiting)
        if waiting >= MOST_WAITING:
            self.tally.dropped += 1
            return
        self._waiting.append(span)
        if waiting == BATCH:
            self._wake.set()

    async def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    async def stop(self) -> None:
        """Sends what is waiting, as far as that can be done in `STOP_SECONDS`."""
        self._is_stopping = True
        self._wake.set()
        await asyncio.to_thread(self._thread.join, STOP_SECONDS)

    # the thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        pause = PAUSE_SECONDS
        with self.loop.alive():
            while not self._is_stopping:
                self._wake.wait(pause)
                self._wake.clear()
                is_there = False
                with self.loop.step():
                    is_there = self._send_waiting()
                pause = PAUSE_SECONDS if is_there else min(2 * pause, LONGEST_PAUSE_SECONDS)
            self._send_waiting()

    def _send_waiting(self) -> bool:
        """Sends batches until the queue is empty; False if the receiver is away."""
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            try:
                self._receiver.post(encoded(batch, self._resource))
            except NotTakenError as failure:
                self._outage.failed(failure)
                if not failure.is_final:
                    self._waiting.extendleft(reversed(batch))
                    return False
                self.tally.dropped += len(batch)
            except Exception:
                log.exception("spans could not be exported")  # a defect of this code: the thread goes on
                self.tally.dropped += len(batch)
            else:
                self.tally.exported += len(batch)
                self._outage.worked()
        return True
