"""`HostileServer`: a server on a real socket that sends whatever a test gives it.

It reads requests correctly and answers them correctly, until a test sets `lies`: then the next
answers are those, with nothing checked. An answer is a series of pieces, each sent by itself, and
may be endless: it ends when the client has closed the connection.
"""

import itertools
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

import hiredis

from tests.doubles.talkative_server import redis_command

Pieces = Iterable[bytes]
Answer = Callable[[BinaryIO], bytes | None]
"""Reads one request and returns its correct answer; None at the end of the connection."""


def trickle(data: bytes, stop: threading.Event, seconds: float = 0.02) -> Iterator[bytes]:
    """One byte after the other, with a pause after each."""
    for one in data:
        yield bytes([one])
        if stop.wait(seconds):
            return


def endless(data: bytes) -> Iterator[bytes]:
    """The same bytes again and again, in pieces of 64 KiB or more."""
    return itertools.repeat(data * (1 + (1 << 16) // len(data)))


class HostileServer:
    """A thread per connection; a test sets what it says from its own thread."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.lies: list[Pieces] = []
        """The answers to the next requests; when there is none left, the truth is answered."""
        self.always: Callable[[], Pieces] | None = None
        """If set, the answer to every request."""
        self.stopping = threading.Event()
        self.sent_bytes = 0
        """Bytes of lies that were taken by the kernel."""
        self._links: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                link, _ = self._listening.accept()
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._links.append(link)
                threading.Thread(target=self._converse, args=(link,), daemon=True).start()

    def _converse(self, link: socket.socket) -> None:
        with suppress(OSError, ValueError), link.makefile("rb") as requests:
            while (truth := self._answer(requests)) is not None:
                if self.always is not None:
                    self._lie(link, self.always())
                elif self.lies:
                    self._lie(link, self.lies.pop(0))
                else:
                    link.sendall(truth)
        link.close()

    def _lie(self, link: socket.socket, pieces: Pieces) -> None:
        for piece in pieces:
            if self.stopping.is_set():
                return
            link.sendall(piece)
            self.sent_bytes += len(piece)

    def close_all(self) -> None:
        """Closes the connections that are open; new ones are taken."""
        # A blocked `accept` or `recv` does not end with `close`, but with `shutdown`.
        links, self._links = self._links, []
        for link in links:
            with suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
            link.close()

    def stop(self) -> None:
        self.stopping.set()
        self._links.append(self._listening)
        self.close_all()


@contextmanager
def hostile(answer: Answer) -> Iterator[HostileServer]:
    """A running server."""
    server = HostileServer(answer)
    threading.Thread(target=server.serve, daemon=True).start()
    try:
        yield server
    finally:
        server.stop()


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
