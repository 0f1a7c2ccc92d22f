"""The GET of a load in a trace: a client span by OpenTelemetry's conventions for HTTP. No URL in it: that would be the key."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from cachesvc.telemetry.traces.trace import Attribute, Span, current, under

_STATUS = "http.response.status_code"


class GetSpan:
    """What the GETs of one origin have in common. `template` is the origin's URL."""

    def __init__(self, template: str) -> None:
        parts = urlsplit(template)
        self._attributes: dict[str, Attribute] = {
            "http.request.method": "GET",
            "server.address": parts.hostname or "",
            "server.port": parts.port or (443 if parts.scheme == "https" else 80),
        }

    @contextmanager
    def around(self) -> Iterator[Span | None]:
        """The span of what runs inside; None, and nothing, where nothing is sampled."""
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
    if span is not None:
        span.attributes[_STATUS] = status


def _kind_of(error: BaseException, span: Span) -> str:
    """A status that is no answer to a load speaks for itself. 404 and 410 are answers: the key's absence."""
    status = span.attributes.get(_STATUS, 0)
    if isinstance(status, int) and status >= 300:
        return str(status)
    # Its own deadline cancels a load, and nothing else does but the end of the process.
    return "timeout" if isinstance(error, asyncio.CancelledError) else type(error).__name__
