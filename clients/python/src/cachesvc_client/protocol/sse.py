"""Parses server-sent events from a stream's bytes as they come (WHATWG HTML, 9.2.6).

A line ends in LF, CRLF or CR, wherever the pieces were cut; an event ends with an empty line. An
event of fences can be some MiB long and come in many pieces: the pieces are joined once.
"""

from msgspec import Struct

MAX_EVENT_BYTES = 64 << 20
"""An event that is longer than this raises `SseError`."""

_BOM = b"\xef\xbb\xbf"


class SseError(ValueError):
    """The bytes are no stream of events that the parser can read."""


class ServerEvent(Struct, frozen=True):
    """One event of a stream."""

    kind: str
    """The event's type; `message` if the event named none."""
    data: bytes
    id: str
    """The newest id of the stream, also if this event named none."""


class SseParser:
    """The state of one connection's stream.

    `retry_seconds` is the pause that the server last asked for; None if it asked for none.
    """

    def __init__(self, last_id: str = "") -> None:
        self.retry_seconds: float | None = None
        self._last_id = last_id
        self._partial: list[bytes] = []
        self._size = 0
        self._after_cr = False
        self._is_first_line = True
        self._kind = ""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """Returns the events that end in this piece.

        Raises `SseError` for an event of more than `MAX_EVENT_BYTES`.
        """
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]  # the second half of a CRLF
            self._after_cr = False
        if not chunk:
            return []
        self._after_cr = chunk.endswith(b"\r")
        *lines, rest = chunk.splitlines(keepends=True)
        if rest.endswith((b"\r", b"\n")):
            lines.append(rest)
            rest = b""
        events = [event for line in lines if (event := self._line(line.rstrip(b"\r\n"))) is not None]
        if rest:
            self._grow(rest)
            self._partial.append(rest)
        return events

    def _grow(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > MAX_EVENT_BYTES:
            raise SseError(f"an event of more than {MAX_EVENT_BYTES >> 20} MiB")

    def _line(self, line: bytes) -> ServerEvent | None:
        self._grow(line)
        if self._partial:
            line = b"".join([*self._partial, line])
            self._partial.clear()
        if self._is_first_line:
            line = line.removeprefix(_BOM)
            self._is_first_line = False
        if not line:
            return self._dispatched()
        name, _, value = line.partition(b":")  # a comment's name is empty
        self._field(name, value.removeprefix(b" "))
        return None

    def _field(self, name: bytes, value: bytes) -> None:
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._kind = _text(value)
        elif name == b"id" and b"\0" not in value:
            self._last_id = _text(value)
        elif name == b"retry" and value.isdigit():
            self.retry_seconds = int(value) / 1000

    def _dispatched(self) -> ServerEvent | None:
        kind, data = self._kind, self._data
        self._kind, self._data, self._size = "", [], 0
        return ServerEvent(kind or "message", b"\n".join(data), self._last_id) if data else None


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
