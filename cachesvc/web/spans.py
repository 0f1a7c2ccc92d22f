"""The server span of a request: whether there is one, its name, and its attributes."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import TypeAlias

from cachesvc.config.service import Telemetry
from cachesvc.config.topology import Namespace
from cachesvc.model.requests import Answer, Outcome
from cachesvc.telemetry.traces.sampling import Sampling
from cachesvc.telemetry.traces.trace import Attribute, Recorder, Span, SpanContext, new_span_id, new_trace_id
from cachesvc.web.replies.reply import Reply
from cachesvc.web.routing import Place

RawHeaders: TypeAlias = Sequence[tuple[bytes, bytes]]
_NAMES = {
    "get": "cache.get",
    "head": "cache.get",
    "get_many": "cache.get",
    "put": "cache.set",
    "put_many": "cache.set",
    "delete": "cache.invalidate",
    "invalidate": "cache.invalidate",
}
"""The name of each operation's span. Probes, metrics and streams have no span."""
_READS = ("get", "head", "get_many")
_L1_HIT: Mapping[str, Attribute] = {"cache.hit": True, "cache.tier": "l1"}


class ServerSpans:
    """Makes and ends the server spans: `begin` is called before the work, `end` after it.

    Neither raises anything, whatever a request brings.
    """

    def __init__(
        self,
        recorder: Recorder,
        settings: Telemetry,
        namespaces: Mapping[str, Namespace],
        lag_us: Callable[[], int | None],
        rng: Random,
    ) -> None:
        self.sampling = Sampling(settings.trace_ratio, settings.slow.seconds, rng)
        self._recorder = recorder
        self._namespaces = namespaces
        self._has_digests = settings.hashed_keys
        self._lag_us = lag_us

    def begin(self, operation: str, place: Place, traceparent: bytes) -> Span | None:
        """Returns the span of a request that is sampled.

        `traceparent` is the header's value, empty if there is none. None if the header turns out to be
        malformed, and chance does not take the request either; and for an operation that has no spans.
        """
        if operation not in _NAMES:
            return None
        caller = _parsed(traceparent)
        if caller is None and traceparent and not self.sampling.takes(b""):
            return None
        span = self._made(operation, place.namespace, caller)
        if self._has_digests and place.key.id:
            span.attributes["cachesvc.key_digest"] = f"{place.key.digest:016x}"
        return span

    def begin_any(self, operation: str, place: Place, raw_headers: RawHeaders) -> Span | None:
        """Returns the result of `begin` if the request is sampled, else that of `passing`."""
        traceparent = _traceparent(raw_headers)
        return (
            self.begin(operation, place, traceparent)
            if self.sampling.takes(traceparent)
            else passing(traceparent)
        )

    def end(
        self,
        span: Span | None,
        operation: str,
        namespace: str,
        reply: Reply,
        seconds: float,
        raw_headers: RawHeaders,
    ) -> None:
        """Ends the span and records it.

        A request that was not sampled, and failed or was slow, gets a span after the fact.
        """
        if operation not in _NAMES:
            return
        if span is None or span.recorder is None:
            if not (self._is_kept(reply, seconds)):
                return
            span = self._made(operation, namespace, _parsed(_traceparent(raw_headers)))
            span.started_ns = time.time_ns() - int(seconds * 1e9)
        self._describe(span, operation, reply)
        span.end(error=reply.problem if reply.outcome == "failed" else "")

    def _is_kept(self, reply: Reply, seconds: float) -> bool:
        is_slow = seconds > self.sampling.slow_seconds and not reply.has_waited
        return (is_slow or reply.outcome == "failed") and self.sampling.keeps(time.monotonic())

    def _made(self, operation: str, namespace: str, caller: SpanContext | None) -> Span:
        contract = self._namespaces.get(namespace)
        is_loading = operation in _READS and contract is not None and contract.origin is not None
        name = "cache.get_or_load" if is_loading else _NAMES[operation]
        context = SpanContext(caller.trace_id if caller else new_trace_id(), new_span_id(), True)
        span = Span(name, "server", context, self._recorder, caller.span_id if caller else 0)
        if namespace:
            span.attributes["cachesvc.namespace"] = namespace
        return span

    def _describe(self, span: Span, operation: str, reply: Reply) -> None:
        attributes = span.attributes
        attributes["cachesvc.outcome"] = reply.outcome
        if operation in _READS:
            lag = self._lag_us()
            if lag is not None:
                attributes["cachesvc.lag_ms"] = lag // 1000
            # The reply to a plain hit of L1 has no attributes: it is made on the hottest path.
            attributes.update(_L1_HIT if reply.attributes is None and reply.outcome == "hit" else {})
        if reply.attributes is not None:
            attributes.update(reply.attributes())


def passing(traceparent: bytes) -> Span | None:
    """Returns the caller's context, of a request that is not sampled, as an unrecorded span.

    It is handed on to the servers that are called in turn. None if the caller sent no context.
    """
    caller = _parsed(traceparent)
    return None if caller is None else Span("", "server", caller, None)


def of_answer(answer: Answer) -> Mapping[str, Attribute]:
    """Returns the attributes of the span of a read of one key."""
    found: dict[str, Attribute] = {
        "cache.hit": answer.entry is not None and answer.tier not in ("", "origin")
    }
    if answer.tier:
        found["cache.tier"] = answer.tier
    if answer.outcome is Outcome.STALE:
        found["cachesvc.stale"] = True
    if answer.lease:
        found["cachesvc.lease"] = "granted"
    if any(step.collapsed for step in answer.trail):
        found["cachesvc.collapsed"] = True
    return found


def of_batch(outcomes: Iterable[str], *, reading: bool) -> Mapping[str, Attribute]:
    """Returns the attributes of the span of a batch: the number of keys, and of each outcome."""
    counts = Counter(outcomes)
    found: dict[str, Attribute] = {"cachesvc.batch.size": counts.total()}
    found.update((f"cachesvc.batch.{outcome}", count) for outcome, count in sorted(counts.items()))
    if reading:
        found["cache.hit"] = not counts.keys() - {"hit", "stale", "absent"}
    return found


def _traceparent(raw_headers: RawHeaders) -> bytes:
    for name, value in raw_headers:
        if len(name) == 11 and name.lower() == b"traceparent":
            return value
    return b""


def _parsed(traceparent: bytes) -> SpanContext | None:
    return SpanContext.parse(traceparent.decode("latin-1")) if traceparent else None
