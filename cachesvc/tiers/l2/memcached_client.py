"""pymemcache's client with exchanges made for batches.

pymemcache's own `get_many` reads 4 KiB at a time and checks every key: 2.5 µs of CPU per key,
against 0.8 µs here. Worse, each of those reads releases the interpreter lock, and a busy event loop
gives it back only after a switch interval. Here a batch is one send and, nearly always, one
receive. pymemcache's own `set_many` gives up a whole batch at the first entry that the server
refuses; here replies are matched with entries, and a refusal is the answer for that entry only.

Any exception from here leaves the stream at an unknown place: the caller must `close()`, and the
next exchange connects again.

A connection on which anything arrived between two exchanges is closed before the next one: a
surplus reply would be read as the reply to it, and every later reply as that of the next exchange.

Opening a connection, and the first exchange on it, have `connect_timeout` each, because nobody
knows yet how far the server is. The first exchange measures it (`round_trip_seconds`): all later
ones have the time of a round trip on top of `timeout`.
"""

import contextlib
from collections.abc import Sequence
from time import perf_counter
from typing import Any

from pymemcache.exceptions import (
    MemcacheClientError,
    MemcacheServerError,
    MemcacheUnexpectedCloseError,
    MemcacheUnknownError,
)

from cachesvc.tiers.arrivals import Arrivals, arrivals
from cachesvc.tiers.l2.any_address import AnyAddressClient

_RECEIVE_BYTES = 1 << 18
_REPLIES_IN_FLIGHT = 128
"""Commands that are sent before their replies are read. memcached writes each reply by
itself, which costs the kernel 0.8 KB of socket buffer however short the reply is: after
about 270 unread replies memcached waits for this client to read, while this client
waits for memcached to read the rest of the commands."""

MOST_ROUND_TRIP_SECONDS = 1.0
"""The most that a round trip adds to a time limit, for a server that was slow at first."""

_END = b"END"
_REFUSED = b"SERVER_ERROR"


class PipelinedClient(AnyAddressClient):
    """One connection, made when it is first needed. Blocking; one thread at a time."""

    _arrivals: Arrivals
    """The look at the socket of the open connection."""
    is_learning = True
    """True until the first exchange on a connection has ended."""
    round_trip_seconds = 0.0
    """The shortest exchange on the connection; 0 before the first one ever."""
    _began = 0.0

    def fetch(self, names: Sequence[bytes]) -> dict[bytes, bytes]:
        """Returns the values held under `names`, which must be legal (`wire_name`).

        A name without a value is absent from the result.
        """
        self._begin()
        self._send(b"get %b\r\n" % b" ".join(names))
        found: dict[bytes, bytes] = {}
        unread = self._receive(5)
        at = 0
        while True:
            end_of_line = unread.find(b"\r\n", at)
            if end_of_line < 0:
                unread, at = unread[at:] + self._receive(1), 0
                continue
            header = unread[at:end_of_line].split(b" ")  # VALUE <name> <flags> <bytes>, or END
            if len(header) != 4:
                if header != [_END] or end_of_line + 2 != len(unread):
                    raise MemcacheUnknownError(unread[at : at + 80])
                return found
            start = end_of_line + 2
            end = start + int(header[3])
            lacking = end + 7 - len(unread)  # after the value comes at least \r\nEND\r\n
            if lacking > 0:
                unread = unread[at:] + self._receive(lacking)
                start, end, at = start - at, end - at, 0
            found[header[1]] = unread[start:end]
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

    def stats(self, *args: object) -> dict[bytes, Any]:
        """Returns the server's statistics by name."""
        self._begin()
        said: dict[bytes, Any] = super().stats(*args)
        return said

    def report(self) -> dict[bytes, Any]:
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
            received += self._receive(1)
        replies = received.split(b"\r\n")
        if replies.pop() or len(replies) != len(commands):
            raise MemcacheUnknownError(received[-80:])
        for reply in replies:
            # The server has read other commands than those that were meant.
            if reply.startswith((b"ERROR", b"CLIENT_ERROR")):
                raise MemcacheUnknownError(reply)
        return replies

    def _begin(self) -> None:
        """Makes sure of a connection on which the next bytes to read answer the next command."""
        if self.sock is None or self._arrivals():
            self._connect()
        self._began = perf_counter()

    def _connect(self) -> None:
        super()._connect()
        self.sock.settimeout(self.connect_timeout)
        self._arrivals = arrivals(self.sock.fileno())

    def exchanged(self) -> None:
        """Notes that an exchange ended with its replies: that measures the way to the server."""
        seconds = min(perf_counter() - self._began, MOST_ROUND_TRIP_SECONDS)
        if self.sock is None or not (self.is_learning or seconds < self.round_trip_seconds):
            return
        self.is_learning, self.round_trip_seconds = False, seconds
        if self.timeout is not None:
            self.sock.settimeout(self.timeout + seconds)

    def close(self) -> None:
        """Closes the connection. The next exchange makes a new one, and measures the way anew."""
        self.is_learning = True
        super().close()

    def _send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def _receive(self, at_least: int) -> bytes:
        received: bytes = self.sock.recv(_RECEIVE_BYTES)
        missing = at_least - len(received)
        if received and missing <= 0:
            return received
        parts = [received]
        while parts[-1]:
            if missing <= 0:
                return b"".join(parts)
            parts.append(self.sock.recv(_RECEIVE_BYTES))
            missing -= len(parts[-1])
        raise MemcacheUnexpectedCloseError


def is_refusal(reply: bytes) -> bool:
    """True if the server is in step and did not keep this entry.

    The entry is larger than the server's `-I`, or the server is out of memory.
    """
    return reply.startswith(_REFUSED)
