"""Ended spans encoded for OTLP, built from OpenTelemetry's own messages.

The format: https://opentelemetry.io/docs/specs/otlp/

The SDK's encoder takes the SDK's spans: making one of these and encoding it costs 27 µs of a core
that also serves requests; an L1 hit costs 36 µs in all. The encoding here costs 7 µs, most of it
in C. What repeats, and nearly every attribute does, is built once and cached.
"""

from collections.abc import Iterable
from functools import lru_cache

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.sdk.resources import Resource

from cachesvc.telemetry.traces.trace import Attribute, Span

LONGEST_REMEMBERED = 128
"""Characters of an attribute whose message is remembered: 4,096 of them are 2 MB."""

_KINDS = {
    "internal": trace_pb2.Span.SPAN_KIND_INTERNAL,
    "server": trace_pb2.Span.SPAN_KIND_SERVER,
    "client": trace_pb2.Span.SPAN_KIND_CLIENT,
    "producer": trace_pb2.Span.SPAN_KIND_PRODUCER,
    "consumer": trace_pb2.Span.SPAN_KIND_CONSUMER,
}
_SCOPE = InstrumentationScope(name="cachesvc")
_FAILED = trace_pb2.Status(code=trace_pb2.Status.STATUS_CODE_ERROR)


def resource_message(resource: Resource) -> resource_pb2.Resource:
    """The resource as the message that every export carries."""
    pairs = [
        _pair(name, value) for name, value in resource.attributes.items() if isinstance(value, Attribute)
    ]
    return resource_pb2.Resource(attributes=pairs)


def encoded(spans: Iterable[Span], resource: resource_pb2.Resource) -> bytes:
    """The body of one export request."""
    scope = trace_pb2.ScopeSpans(scope=_SCOPE, spans=map(_message, spans))
    made = trace_pb2.ResourceSpans(resource=resource, scope_spans=[scope])
    body: bytes = ExportTraceServiceRequest(resource_spans=[made]).SerializeToString()
    return body


def _message(span: Span) -> trace_pb2.Span:
    found = trace_pb2.Span(
        trace_id=_trace_id(span.context.trace_id),
        span_id=_span_id(span.context.span_id),
        name=span.name,
        kind=_KINDS[span.kind],
        start_time_unix_nano=span.started_ns,
        end_time_unix_nano=span.ended_ns,
        # A copy, made at once: code on the loop that holds the span may still add attributes.
        attributes=[_attribute(name, value) for name, value in span.attributes.copy().items()],
    )
    if span.parent_id:
        found.parent_span_id = _span_id(span.parent_id)
    for link in tuple(span.links):
        found.links.add(trace_id=_trace_id(link.trace_id), span_id=_span_id(link.span_id))
    if span.error:
        found.attributes.append(_pair("error.type", span.error))
        found.status.CopyFrom(_FAILED)
    return found


def _attribute(name: str, value: Attribute) -> KeyValue:
    if isinstance(value, str) and len(value) > LONGEST_REMEMBERED:
        return KeyValue(key=name, value=_value(value))
    return _pair(name, value)


@lru_cache(maxsize=4096, typed=True)  # without `typed`, True and 1 would be the same
def _pair(name: str, value: Attribute) -> KeyValue:
    return KeyValue(key=name, value=_value(value))


def _value(value: Attribute) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    return AnyValue(double_value=value) if isinstance(value, float) else AnyValue(string_value=value)


def _trace_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def _span_id(number: int) -> bytes:
    return number.to_bytes(8, "big")
