"""The span of an origin's GET: a client span by OpenTelemetry's conventions for HTTP.

The span holds no URL, because the URL would hold the key.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from cachesvc.telemetry.traces.trace import Attribute, Span, current, under

_STATUS = "http.response.status_code"


class GetSpan:
    """Makes the spans of one origin's GETs. `template` is the origin's URL."""

    def __init__(self, template: str) -> None:
        parts = urlsplit(template)
        self._attributes: dict[str, Attribute] = {
            "http.request.method": "GET",
            "server.address": parts.hostname or "",
            "server.port": parts.port or (443 if parts.scheme == "https" else 80),
        }

    @contextmanager
    def around(self) -> Iterator[Span | None]:
        """Runs the block in a span.

        Where the trace is not sampled, the block gets None and there is no span.
        """
        parent = current()
        if parent is None:
            yield None
            return
        span = parent.child("GET", "client")
        span.attributes |= self._attributes
        try:
            with under(span):
                yield span
        except BaseException as error:
            span.end(error=_kind_of(error, span))
            raise
        span.end()


def answered(span: Span | None, status: int) -> None:
    """Writes the status of the response on the span."""
    if span is not None:
        span.attributes[_STATUS] = status


def _kind_of(error: BaseException, span: Span) -> str:
    """Returns `error.type`: the status, if the status made the load fail.

    404 and 410 are answers, the absence of the key, so no error comes with them.
    """
    status = span.attributes.get(_STATUS, 0)
    if isinstance(status, int) and status >= 300:
        return str(status)
    # A load is cancelled only by its own deadline, and by the end of the process.
    return "timeout" if isinstance(error, asyncio.CancelledError) else type(error).__name__
