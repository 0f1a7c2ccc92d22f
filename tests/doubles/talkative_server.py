"""`TalkativeServer`: a server on a real socket that can send more than it was asked for.

It answers each request correctly. Besides, it sends what a test tells it to, when the test tells it
to: with an answer in one packet, before an answer, or while its connection idles.
"""

import socket
from contextlib import AbstractContextManager, suppress
from typing import BinaryIO

from tests.doubles.threaded_server import Answer, ThreadedServer, running


class TalkativeServer(ThreadedServer):
    """A thread per connection; a test talks from its own thread."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer)
        self.behind = b""
        """Sent with the next answer, behind it, in the same packet."""
        self._before: dict[socket.socket, bytes] = {}
        self._requests = self._answers = 0

    def say(self, data: bytes) -> None:
        """Sends bytes on every open connection: they are in the client's kernel when this returns."""
        for link in self.connections:
            with suppress(OSError):
                link.sendall(data)

    def say_at_the_next_request(self, data: bytes) -> None:
        """Sends bytes before the answer to the next request on each connection that is open now."""
        self._before = dict.fromkeys(self.connections, data)

    @property
    def has_answered(self) -> bool:
        """True if every request that has come was answered: the answers have arrived."""
        return self._answers == self._requests

    def _converse(self, link: socket.socket, requests: BinaryIO) -> None:
        while (answer := self._answer(requests)) is not None:
            self._requests += 1
            if before := self._before.pop(link, b""):
                link.sendall(before)
            answer, self.behind = answer + self.behind, b""
            link.sendall(answer)
            self._answers += 1


def talkative(answer: Answer) -> AbstractContextManager[TalkativeServer]:
    """A running server."""
    return running(TalkativeServer(answer))


def http_request(requests: BinaryIO) -> str | None:
    """Reads an HTTP request and returns its path; None at the end."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = requests.readline()
        if not line:
            return None
        head += line
    length = 0
    for field in head.decode().split("\r\n"):
        name, _, value = field.partition(":")
        if name.lower() == "content-length":
            length = int(value)
    requests.read(length)
    return head.decode().split(" ")[1]


def redis_command(requests: BinaryIO) -> list[bytes] | None:
    """Reads a command of Redis's protocol; None at the end."""
    line = requests.readline()
    if not line:
        return None
    return [requests.read(int(requests.readline()[1:]) + 2)[:-2] for _ in range(int(line[1:]))]
