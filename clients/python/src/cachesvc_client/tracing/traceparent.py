"""`traceparent` (W3C Trace Context): which trace a request to the service belongs to."""

import re
import sys
from collections.abc import Callable
from typing import TypeAlias

Traceparent: TypeAlias = Callable[[], str | None]
"""Asked once per request, in the context of the caller that the request is for (of a batch: of the one that began it)."""

_VALID = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def opentelemetry_traceparent() -> str | None:
    """The current span of OpenTelemetry's API, if this process uses it. It is not imported for that: who uses it has done so."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    span = trace.get_current_span().get_span_context()
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}" if span.is_valid else None


def trace_headers(traceparent: Traceparent) -> dict[str, str]:
    """Empty without a trace, or for what is no `traceparent`: a trace that breaks off must not fail the call."""
    value = traceparent()
    return {"traceparent": value} if value is not None and _VALID.fullmatch(value) else {}
