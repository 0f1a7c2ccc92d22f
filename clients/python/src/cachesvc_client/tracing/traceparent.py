"""`traceparent` (W3C Trace Context): the trace that a request to the service belongs to."""

import re
import sys
from collections.abc import Callable
from typing import TypeAlias

Traceparent: TypeAlias = Callable[[], str | None]
"""A function that returns the `traceparent` of a request, or None.

It is called once per request, in the context of the caller that the request is for. For a batch
this is the caller that began the batch.
"""

_VALID = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def opentelemetry_traceparent() -> str | None:
    """Returns the `traceparent` of OpenTelemetry's current span, or None.

    OpenTelemetry is not imported for that: a process that uses it has imported it.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    span = trace.get_current_span().get_span_context()
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}" if span.is_valid else None


def trace_headers(traceparent: Traceparent) -> dict[str, str]:
    """Returns the header `traceparent`, or no header if there is no valid one.

    An invalid value is dropped, because a trace that breaks off must not fail the call.
    """
    value = traceparent()
    return {"traceparent": value} if value is not None and _VALID.fullmatch(value) else {}
