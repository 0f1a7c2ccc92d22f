"""Replies of a Redis server, read with bounds.

hiredis, which parses them, believes every length. It keeps the bytes of a value of 4 GB until the
time limit ends the exchange, and makes a list as long as its header says before there is anything
in it: a list of 10⁹ parts costs nothing to make and nine seconds of the event loop to take down.

So the headers of a reply are looked at before hiredis gets them. A reply that comes in one piece,
as nearly all do, is only searched for a header with a long number (0.3 µs for 500 bytes). If such a
number is found, or the reply comes in several pieces, the headers are walked over one by one. The
bytes of values are skipped, so that a value may contain anything.
"""

import re
from typing import Any, Final

from redis._parsers.hiredis import NOT_ENOUGH_DATA, _AsyncHiredisParser
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse

MOST_BYTES: Final = 64 << 20
"""Bytes of one reply at most.

`read.lua` and the other scripts end their answers after 1 MiB and one more value or item.
"""
MOST_PARTS: Final = 1_000_000
"""The longest list in a reply, and the most values and lists in it altogether."""
LONGEST_LINE: Final = 1 << 16
"""Bytes of the longest line: an error, a number, or the header of a value or of a list."""

_LISTS = frozenset(b"*%~>|")
_VALUES = frozenset(b"$=!")
_LONG = re.compile(rb"\r\n[*%~>|][0-9]{6}")
_LONG_AT_FIRST = re.compile(rb"[*%~>|][0-9]{6}")


class _Walk:
    """A walk over the headers of a stream of replies, in the pieces in which it comes."""

    def __init__(self) -> None:
        self.parts = 0
        """Headers since the last reset of this number."""
        self._skip = 0
        """Bytes of a value that are still to come."""
        self._line = b""
        """The beginning of a line that has not ended."""

    def over(self, piece: bytes) -> None:
        """Walks over the next piece. Raises `InvalidResponse` if it is out of bounds."""
        if self._line:
            piece, self._line = self._line + piece, b""
        at, size = self._skip, len(piece)
        while at < size:
            end = piece.find(b"\r\n", at)
            if end < 0:
                self._line, at = piece[at:], size
                break
            kind, after = piece[at], end + 2
            if kind in _VALUES:
                after += max(_length(piece[at + 1 : end]) + 2, 0)
            elif kind in _LISTS and _length(piece[at + 1 : end]) > MOST_PARTS:
                raise InvalidResponse("a list that is too long")
            self.parts += 1
            at = after
        if self.parts > MOST_PARTS or len(self._line) > LONGEST_LINE:
            raise InvalidResponse("more parts than a reply has, or a line that is too long")
        self._skip = at - size


def _length(digits: bytes) -> int:
    """Returns the length in a header; 0 for one that hiredis will refuse."""
    try:
        return int(digits[:20])
    except ValueError:
        return 0


class BoundedParser(_AsyncHiredisParser):
    """redis-py's parser, for replies of at most `MOST_BYTES` and `MOST_PARTS`.

    A reply beyond that raises `InvalidResponse`: the connection has to be closed.
    """

    _reader: Any
    _stream: Any

    def on_connect(self, connection: Any) -> None:
        super().on_connect(connection)  # type: ignore[no-untyped-call]  # redis-py has no types here
        self._walk: _Walk | None = None
        self._pieces: list[bytes] = []
        """The first pieces of a reply, if they were not walked over."""
        self.taken_bytes = 0
        """Bytes that have come of the reply that is read now."""

    def feed(self, piece: bytes) -> None:
        """Takes bytes that have come, beside `read_response`. Raises `InvalidResponse`."""
        if not self._reader.has_data():
            self._begin()
        self._look_at(piece)
        self._reader.feed(piece)

    def taken(self) -> list[Any]:
        """Returns the replies and pushes that have come whole since the last call."""
        found: list[Any] = []
        while (one := self._reader.gets(False)) is not NOT_ENOUGH_DATA:
            found.append(one)
        return found

    async def read_response(self, disable_decoding: bool = False, push_request: bool = False) -> Any:
        self._begin()
        return await super().read_response(disable_decoding, push_request)

    def _begin(self) -> None:
        self.taken_bytes = 0
        if not self._reader.has_data():
            self._walk, self._pieces = None, []
        elif self._walk is not None:
            self._walk.parts = 0

    async def read_from_socket(self) -> bool:
        piece = await self._stream.read(self._read_size)
        if not piece:
            raise RedisConnectionError("the server closed the connection")
        self._look_at(piece)
        self._reader.feed(piece)
        return True

    def _look_at(self, piece: bytes) -> None:
        """Looks at the headers of a piece before hiredis gets it. Raises `InvalidResponse`."""
        self.taken_bytes += len(piece)
        if self.taken_bytes > MOST_BYTES:
            raise InvalidResponse("a reply that is too large")
        if self._walk is not None:
            self._walk.over(piece)
            return
        self._pieces.append(piece)
        if len(self._pieces) == 1 and not (_LONG_AT_FIRST.match(piece) or _LONG.search(piece)):
            return
        self._walk = _Walk()
        for one in self._pieces:
            self._walk.over(one)
        self._pieces = []
