"""pymemcache's client with exchanges made for batches.

pymemcache's own `get_many` reads 4 KiB at a time and checks every key: 2.5 µs of CPU per key,
against 0.8 µs here. Worse, each of those reads releases the interpreter lock, and a busy event loop
gives it back only after a switch interval. Here a batch is one send and, nearly always, one
receive. pymemcache's own `set_many` gives up a whole batch at the first entry that the server
refuses; here replies are matched with entries, and a refusal is the answer for that entry only.

Nothing that the server says is believed. pymemcache's own parsers take lines without an end, any
name, any number of values and any length; with a negative length, the reading of `VALUE` went back
to the same line for ever. Here a line has at most `LONGEST_LINE` bytes and a value at most
`LARGEST_VALUE`, each name comes once and only if it was asked for, and the time limit is that of
the whole exchange: a server that sends a byte now and then does not get it anew with each byte.
Anything else raises `MemcacheUnknownError`.

Any exception from here leaves the stream at an unknown place: the caller must `close()`, and the
next exchange connects again.

A connection on which anything arrived between two exchanges is closed before the next one: a
surplus reply would be read as the reply to it, and every later reply as that of the next exchange.

Opening a connection, and the first exchange on it, have `connect_timeout` each, because nobody
knows yet how far the server is. The exchanges measure it (`round_trip.py`): all later ones have the
time of the way on top of `timeout`. An exchange of many bytes has the time that
these take at an honest pace on top (`fair_timeout.py`), as far as they have been moved.
"""

import contextlib
from collections.abc import Sequence
from time import perf_counter
from typing import Any, Final

from pymemcache.exceptions import (
    MemcacheClientError,
    MemcacheServerError,
    MemcacheUnexpectedCloseError,
    MemcacheUnknownError,
)

from cachesvc.tiers.arrivals import Arrivals, arrivals
from cachesvc.tiers.fair_timeout import seconds_for
from cachesvc.tiers.l2.any_address import AnyAddressClient
from cachesvc.tiers.l2.memcached_access import DEFAULT_ACCESS, MemcachedAccess
from cachesvc.tiers.round_trip import SMALL_BYTES, RoundTrip

_RECEIVE_BYTES = 1 << 18
_SEND_BYTES = 1 << 16
"""Bytes that are sent at once; after each such piece the exchange has more time."""
_REPLIES_IN_FLIGHT = 128
"""Commands that are sent before their replies are read. memcached writes each reply by
itself, which costs the kernel 0.8 KB of socket buffer however short the reply is: after
about 270 unread replies memcached waits for this client to read, while this client
waits for memcached to read the rest of the commands."""

MOST_WAY_SECONDS = 1.0
"""The most that the way adds to a time limit unless the client is told otherwise."""
_SOME_SECONDS = 0.005
"""The socket's time limit follows the way when it is off by this and by a tenth."""

LARGEST_VALUE: Final = 1 << 20
"""Bytes of the longest value that an answer may have.

memcached keeps items of 1 MiB at most, and a larger one, which needs its `-I`, is none of ours.
"""
LONGEST_LINE = 1024
"""Bytes of the longest line that an answer may have; a name has 250 at most."""
MOST_DIGITS = 18
"""Digits of the longest number in a report that is read as one: it fits into 64 bits."""
LONGEST_REPORT = 1 << 18
"""Bytes of the longest answer to `stats`: a hundred times that of a memcached 1.6."""

_END = b"END"
_REFUSED = b"SERVER_ERROR"
_REPLIES = frozenset((b"STORED", b"NOT_STORED", b"EXISTS", b"DELETED", b"NOT_FOUND"))


class PipelinedClient(AnyAddressClient):
    """One connection, made when it is first needed. Blocking; one thread at a time."""

    _arrivals: Arrivals
    """The look at the socket of the open connection."""
    is_learning = True
    """True until the first exchange on a connection has ended."""
    sent_bytes = received_bytes = 0
    """The bytes that were sent and received, ever. The event loop reads them."""
    _moved_before = 0
    """The same when the running exchange began."""
    _began = 0.0
    _limit_seconds: float | None = None
    """The time limit of one exchange; None: no limit."""
    _is_shortened = False
    """True if the socket's time limit is less than that of a whole exchange."""

    def __init__(
        self,
        address: str,
        access: MemcachedAccess = DEFAULT_ACCESS,
        *,
        round_trip_at_most: float = MOST_WAY_SECONDS,
        **settings: Any,
    ) -> None:
        super().__init__(address, access, **settings)
        self.round_trip = RoundTrip(round_trip_at_most)
        """That to the server, as the exchanges on all connections measured it."""

    @property
    def moved_bytes(self) -> int:
        """The bytes that were sent and received, ever."""
        return self.sent_bytes + self.received_bytes

    def fetch(self, names: Sequence[bytes]) -> dict[bytes, bytes]:
        """Returns the values held under `names`, which must be legal (`wire_name`).

        A name without a value is absent from the result.
        """
        self._begin()
        left = dict.fromkeys(names)
        self._send(b"get %b\r\n" % b" ".join(left))
        found: dict[bytes, bytes] = {}
        unread = self._receive(5)
        at = 0
        while True:
            end_of_line = unread.find(b"\r\n", at)
            if end_of_line < 0:
                if len(unread) - at > LONGEST_LINE:
                    raise _unknown(unread, at)
                unread, at = unread[at:] + self._receive_more(1), 0
                continue
            header = unread[at:end_of_line].split(b" ")  # VALUE <name> <flags> <bytes>, or END
            if len(header) != 4:
                if header != [_END] or end_of_line + 2 != len(unread):
                    raise _unknown(unread, at)
                return found
            name, size = header[1], header[3]
            length = int(size) if size.isdigit() and len(size) <= 7 else LARGEST_VALUE + 1
            if length > LARGEST_VALUE or left.pop(name, 1):
                raise _unknown(unread, at)
            start = end_of_line + 2
            end = start + length
            lacking = end + 7 - len(unread)  # after the value comes at least \r\nEND\r\n
            if lacking > 0:
                unread = unread[at:] + self._receive_more(lacking)
                start, end, at = start - at, end - at, 0
            found[name] = unread[start:end]
            at = end + 2

    def exchange(self, commands: Sequence[bytes]) -> list[bytes]:
        """Sends commands that are each answered by one line, and returns the lines in order.

        Raises if a reply shows that the stream is out of step.
        """
        self._begin()
        replies: list[bytes] = []
        for start in range(0, len(commands), _REPLIES_IN_FLIGHT):
            if start and self._arrivals():
                raise MemcacheUnknownError("more replies than commands")
            replies += self._exchange_window(commands[start : start + _REPLIES_IN_FLIGHT])
        return replies

    def stats(self, *what: bytes) -> dict[bytes, int | bytes]:
        """Returns the server's statistics by name, as numbers where they are whole numbers."""
        self._begin()
        self._send(b" ".join((b"stats", *what)) + b"\r\n")
        said = self._receive(5)
        while not (said == b"END\r\n" or said.endswith(b"\r\nEND\r\n")):
            if said.startswith(b"SERVER_ERROR") and said.endswith(b"\r\n"):
                raise MemcacheServerError(said[:80])
            if said.startswith((b"ERROR", b"CLIENT_ERROR")) and said.endswith(b"\r\n"):
                raise MemcacheClientError(said[:80])
            if len(said) > LONGEST_REPORT:
                raise _unknown(said, 0)
            said += self._receive_more(1)
        found: dict[bytes, int | bytes] = {}
        for line in said.split(b"\r\n")[:-2]:
            stat, name, value = [*line.split(b" ", 2), b"", b""][:3]
            if stat != b"STAT":
                raise _unknown(line, 0)
            found[name] = int(value) if value.isdigit() and len(value) <= MOST_DIGITS else value
        return found

    def report(self) -> dict[bytes, int | bytes]:
        """Returns the server's statistics and settings by name.

        The names of settings begin with `settings:`. A server that does not tell its settings (a proxy, a
        managed one) has none of them.
        """
        said = self.stats()
        with contextlib.suppress(MemcacheClientError, MemcacheServerError):
            said |= {b"settings:" + name: value for name, value in self.stats(b"settings").items()}
        return said

    def _exchange_window(self, commands: Sequence[bytes]) -> list[bytes]:
        self._send(b"".join(commands))
        received = self._receive(len(commands))
        while received.count(b"\r\n") < len(commands):
            if len(received) > len(commands) * LONGEST_LINE:
                raise _unknown(received, 0)
            received += self._receive_more(1)
        replies = received.split(b"\r\n")
        if replies.pop() or len(replies) != len(commands):
            raise _unknown(received, -80)
        for reply in replies:
            # CLIENT_ERROR, and ERROR: the server has read other commands than those that were meant.
            if reply.partition(b" ")[0] not in _REPLIES and not is_refusal(reply):
                raise _unknown(reply, 0)
        return replies

    def _begin(self) -> None:
        """Makes sure of a connection on which the next bytes to read answer the next command."""
        if self.sock is None or self._arrivals():
            self._connect()
        elif self._is_shortened:
            self._limit(self._limit_seconds)
        self._began, self._moved_before = perf_counter(), self.moved_bytes

    def _connect(self) -> None:
        super()._connect()
        self._limit(self.connect_timeout)
        self._arrivals = arrivals(self.sock.fileno())

    def exchanged(self) -> None:
        """Notes that an exchange ended with its replies: that measures the way to the server."""
        is_first, self.is_learning = self.is_learning, False
        if is_first or self.moved_bytes - self._moved_before < SMALL_BYTES:
            self.round_trip.saw(perf_counter() - self._began)
        if self.sock is None or self.timeout is None:
            return
        seconds = self.timeout + self.round_trip.way_seconds
        off = abs(seconds - (self._limit_seconds or 0))
        if is_first or off > max(_SOME_SECONDS, seconds / 10):
            self._limit(seconds)

    def close(self) -> None:
        """Closes the connection. The next exchange makes a new one, and measures the way anew."""
        self.is_learning = True
        super().close()

    def _send(self, data: bytes) -> None:
        if len(data) <= _SEND_BYTES:
            self.sock.sendall(data)
            self.sent_bytes += len(data)
            return
        with memoryview(data) as view:
            for start in range(0, len(data), _SEND_BYTES):
                self._shorten()
                piece = view[start : start + _SEND_BYTES]
                self.sock.sendall(piece)
                self.sent_bytes += len(piece)

    def _limit(self, seconds: float | None) -> None:
        """Sets the time limit of the exchanges from now on."""
        self._limit_seconds, self._is_shortened = seconds, False
        self.sock.settimeout(seconds)

    def _receive(self, at_least: int) -> bytes:
        """Returns the first bytes of an answer, at least so many."""
        received: bytes = self.sock.recv(_RECEIVE_BYTES)
        if not received:
            raise MemcacheUnexpectedCloseError
        self.received_bytes += len(received)
        missing = at_least - len(received)
        return received if missing <= 0 else received + self._receive_more(missing)

    def _receive_more(self, at_least: int) -> bytes:
        """Returns further bytes of an answer, in the rest of the exchange's time."""
        parts: list[bytes] = []
        while at_least > 0:
            self._shorten()
            parts.append(self.sock.recv(_RECEIVE_BYTES))
            if not parts[-1]:
                raise MemcacheUnexpectedCloseError
            self.received_bytes += len(parts[-1])
            at_least -= len(parts[-1])
        return b"".join(parts)

    def _shorten(self) -> None:
        """Sets the socket's time limit to the rest of the exchange's time. Raises `TimeoutError`."""
        if self._limit_seconds is None:
            return
        seconds = self._limit_seconds + seconds_for(self.moved_bytes - self._moved_before)
        left_seconds = seconds - (perf_counter() - self._began)
        if left_seconds <= 0:
            raise TimeoutError
        self._is_shortened = True
        self.sock.settimeout(left_seconds)


def _unknown(answer: bytes, at: int) -> MemcacheUnknownError:
    """Returns the error of an answer that is out of the protocol at this place."""
    return MemcacheUnknownError(answer[at:][:80])


def is_refusal(reply: bytes) -> bool:
    """True if the server is in step and did not keep this entry.

    The entry is larger than the server's `-I`, or the server is out of memory.
    """
    return reply.startswith(_REFUSED)
