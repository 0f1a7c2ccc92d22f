"""A server on a real socket with a thread per connection, which a test drives from its own thread."""

import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, TypeVar

Answer = Callable[[BinaryIO], bytes | None]
"""Reads one request and returns its correct answer; None at the end of the connection."""


class ThreadedServer(ABC):
    """Takes connections until it is stopped; `_converse` is the whole of one conversation."""

    def __init__(self, answer: Answer, port: int = 0) -> None:
        """Listens on `port` of loopback, or on a free one."""
        self._answer = answer
        self.greeting = b""
        """Sent on a new connection before any request."""
        self.connections: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listening.getsockname()[1]

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                link, _ = self._listening.accept()
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self.greeting:
                    link.sendall(self.greeting)
                self.connections.append(link)
                threading.Thread(target=self._serve_one, args=(link,), daemon=True).start()

    def _serve_one(self, link: socket.socket) -> None:
        with suppress(OSError, ValueError), link.makefile("rb") as requests:
            self._converse(link, requests)
        link.close()

    @abstractmethod
    def _converse(self, link: socket.socket, requests: BinaryIO) -> None:
        """Answers requests until the connection ends."""

    def close_all(self) -> None:
        """Closes the connections that are open; new ones are taken."""
        self.close([*self.connections])

    def close(self, links: list[socket.socket]) -> None:
        """Closes these connections."""
        self.connections = [link for link in self.connections if link not in links]
        _close(links)

    def stop(self) -> None:
        _close([self._listening, *self.connections])


def _close(links: list[socket.socket]) -> None:
    # A blocked `accept` or `recv` does not end with `close`, but with `shutdown`.
    for link in links:
        with suppress(OSError):
            link.shutdown(socket.SHUT_RDWR)
        link.close()


ServerT = TypeVar("ServerT", bound=ThreadedServer)


@contextmanager
def running(server: ServerT) -> Iterator[ServerT]:
    """The server, running while the block does."""
    threading.Thread(target=server.serve, daemon=True).start()
    try:
        yield server
    finally:
        server.stop()
