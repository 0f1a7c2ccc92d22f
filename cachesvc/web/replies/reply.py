"""A response that is one piece of bytes, written in one go.

It uses aiohttp's public seam only: `StreamResponse.prepare` and `write_eof` are overridden, and the
bytes leave through `request.writer`. aiohttp's own `Response` builds a multidict, completes it and
serialises it: 10 µs, a quarter of a request. Here the header lines arrive as bytes; this class adds
those that depend on the connection, and leaves out the body for HEAD.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion10

from cachesvc.model.change import Target
from cachesvc.telemetry.traces.trace import Attribute

if TYPE_CHECKING:
    from aiohttp.web_request import BaseRequest

END_OF_LINES = b"\r\n"
_CLOSE = b"Connection: close\r\n"
_KEEP = b"Connection: keep-alive\r\n"
CURRENT = -1
"""The watermark of a reply whose values were judged just now."""
JOIN_UP_TO = 65536
"""The largest body, in bytes, that is copied behind its head: for a small body that is
cheaper than a second write."""


class Reply(web.StreamResponse):
    """An answer: its head, its body, and its values for counters and spans."""

    # Few replies set these six; all others read them from the class.
    problem: str = ""
    """The kind of the problem in the body; empty if there is none."""
    has_waited: bool = False
    """True: it may have taken long because the caller asked to wait."""
    attributes: Callable[[], Mapping[str, Attribute]] | None = None
    """Returns the attributes of its span beyond the outcome; called only if there is a span."""
    watermark: int = CURRENT
    """The watermark, µs, with which the oldest of its values was judged."""
    concerns: Callable[[], Iterable[Target]] | None = None
    """Returns the targets whose home cells the request needed; None: those of its place."""
    undelivered: Callable[[], None] | None = None
    """Takes back what was granted; called if the peer has gone, or has closed its side."""

    def __init__(self, status: int, head: bytes, body: bytes = b"", *, outcome: str = "ok") -> None:
        """`head`: the status line and complete header lines, without the empty line.

        It includes `Content-Length` where there may be a body.
        """
        super().__init__(status=status)
        self._head = head
        self.payload = body
        self.outcome = outcome
        """The end of the request in one word, for counting."""
        self.request_id = ""
        """The value of `X-Request-Id`; empty if the caller sent none and needs none."""
        self._closes = False
        self._keeps = False
        self._request: BaseRequest | None = None

    @property
    def keep_alive(self) -> bool:
        return self._keeps

    @property
    def head(self) -> bytes:
        return self._head

    def add_lines(self, lines: bytes) -> None:
        """Adds complete header lines to the head."""
        self._head += lines

    def close_after(self) -> None:
        """Makes this the last answer on its connection."""
        self._closes = True

    @property
    def is_last(self) -> bool:
        """True: its connection is closed after it."""
        return self._closes

    def whole(self) -> bytes:
        """Returns all bytes of the answer to a `GET` over HTTP/1.1 that keeps the connection."""
        return self._head + (_CLOSE if self._closes else b"") + END_OF_LINES + self.payload

    async def prepare(self, request: "BaseRequest") -> AbstractStreamWriter:
        self._request = request
        self._keeps = request.keep_alive and not self._closes
        return request.writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Writes the whole response; waits while the peer reads too slowly.

        Raises `ConnectionError` if the peer has gone.
        """
        request = self._request
        if request is None:
            return
        self._request = None
        head = self._head
        if not self._keeps:
            head += _CLOSE
        elif request.version == HttpVersion10:
            head += _KEEP
        try:
            await self._write(request, head)
        except ConnectionError:
            if self.undelivered is not None:
                self.undelivered()
            raise
        # A peer that sends no more may have gone: nobody can tell whether it reads what was granted.
        if self.undelivered is not None and has_left(request):
            self.undelivered()

    async def _write(self, request: "BaseRequest", head: bytes) -> None:
        body = self.payload
        writer = request.writer
        if not body or request.method == "HEAD":
            await writer.write_eof(head + END_OF_LINES)
        elif len(body) <= JOIN_UP_TO:
            await writer.write_eof(head + END_OF_LINES + body)
        else:
            await writer.write(head + END_OF_LINES)
            await writer.write_eof(body)


def has_left(request: "BaseRequest") -> bool:
    """True if the peer has gone, or sends no more and may have gone."""
    return request.transport is None or getattr(request.protocol, "is_half_closed", False)
