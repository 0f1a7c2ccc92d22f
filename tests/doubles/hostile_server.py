"""`HostileServer`: a server on a real socket that sends whatever a test gives it.

It reads requests correctly and answers them correctly, until a test sets `lies`: then the next
answers are those, with nothing checked. An answer is a series of pieces, each sent by itself, and
may be endless: it ends when the client has closed the connection.
"""

import itertools
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, BinaryIO

import hiredis

from tests.doubles.talkative_server import redis_command
from tests.doubles.threaded_server import Answer, ThreadedServer, running

Pieces = Iterable[bytes]


def trickle(data: bytes, stop: threading.Event, seconds: float = 0.02) -> Iterator[bytes]:
    """One byte after the other, with a pause after each."""
    for one in data:
        yield bytes([one])
        if stop.wait(seconds):
            return


def endless(data: bytes) -> Iterator[bytes]:
    """The same bytes again and again, in pieces of 64 KiB or more."""
    return itertools.repeat(data * (1 + (1 << 16) // len(data)))


class HostileServer(ThreadedServer):
    """A thread per connection; a test sets what it says from its own thread."""

    def __init__(self, answer: Answer, port: int = 0) -> None:
        super().__init__(answer, port)
        self.lies: list[Pieces] = []
        """The answers to the next requests; when there is none left, the truth is answered."""
        self.always: Callable[[], Pieces] | None = None
        """If set, the answer to every request. An answer of no pieces is the truth."""
        self.stopping = threading.Event()
        self.sent_bytes = 0
        """Bytes of lies that were taken by the kernel."""

    def _converse(self, link: socket.socket, requests: BinaryIO) -> None:
        while (truth := self._answer(requests)) is not None:
            if self.always is not None:
                self._lie(link, self.always() or [truth])
            elif self.lies:
                self._lie(link, self.lies.pop(0))
            else:
                link.sendall(truth)

    def _lie(self, link: socket.socket, pieces: Pieces) -> None:
        for piece in pieces:
            if self.stopping.is_set():
                return
            link.sendall(piece)
            self.sent_bytes += len(piece)

    def stop(self) -> None:
        self.stopping.set()
        super().stop()


def hostile(answer: Answer, port: int = 0) -> AbstractContextManager[HostileServer]:
    """A running server."""
    return running(HostileServer(answer, port))


class Relay:
    """Answers of a real Redis server: `answer` is that of a `HostileServer` in front of it."""

    def __init__(self, where: str) -> None:
        """`where` is the path of the server's unix socket."""
        self._where = where
        self._behind: dict[BinaryIO, tuple[socket.socket, Any]] = {}

    def answer(self, requests: BinaryIO) -> bytes | None:
        """Reads one command, and returns the bytes of the real server's reply to it."""
        command = redis_command(requests)
        if command is None:
            if known := self._behind.pop(requests, None):
                known[0].close()
            return None
        if requests not in self._behind:
            link = socket.socket(socket.AF_UNIX)
            link.connect(self._where)
            self._behind[requests] = link, hiredis.Reader(notEnoughData=self)
        link, reader = self._behind[requests]
        link.sendall(b"*%d\r\n" % len(command) + b"".join(map(resp, command)))
        reply = b""
        while reader.gets(False) is self:
            reply += (piece := link.recv(1 << 16))
            reader.feed(piece)
        return reply


def resp(said: Any) -> bytes:
    """Returns a reply of Redis's protocol: lists, numbers, values, and texts as errors."""
    match said:
        case list():
            return b"*%d\r\n" % len(said) + b"".join(map(resp, said))
        case bool():
            return b"#t\r\n" if said else b"#f\r\n"
        case int():
            return b":%d\r\n" % said
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(said), said)
        case str():
            return b"-%b\r\n" % said.encode()
        case float():
            return b",%f\r\n" % said
        case _:
            return b"_\r\n"
