"""The built-in load: one thread over raw sockets, without a framework.

It is so light that the server is the limit.

Closed loop: every connection sends its next request when its answer is complete. This finds the
saturation rate.

Open loop: requests arrive by a schedule that is made before, whether or not the server keeps up.
An arrival that finds every connection taken waits, and its latency counts from the moment at
which it was *meant* to be sent. A closed loop would stop asking while the server stalls, and so
leave out the very requests that suffered (Gil Tene's "coordinated omission").
"""

import gc
import random
import selectors
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from urllib.parse import urlsplit

from loadtests.bench.figures import BenchError

_RECEIVE_BYTES = 262_144
_GIVE_UP_SECONDS = 10.0


class Connection:
    """One keep-alive connection with at most one request under way."""

    __slots__ = ("_expected", "_least_body", "_pending", "_received", "_socket", "intended")

    def __init__(self, address: tuple[str, int], least_body: int, *, is_encrypted: bool = False) -> None:
        self._socket = socket.create_connection(address, timeout=_GIVE_UP_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pending: Callable[[], int] | None = None
        """Returns the bytes of the answer that TLS has taken from the socket already."""
        if is_encrypted:
            encrypted = unverified_context().wrap_socket(self._socket)
            self._socket, self._pending = encrypted, encrypted.pending
        self._least_body = least_body
        self._received: bytearray | None = None
        self._expected = 0
        self.intended = 0.0

    def fileno(self) -> int:
        """The socket's descriptor, so that a selector accepts the connection."""
        return self._socket.fileno()

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()

    def send(self, request: bytes) -> None:
        """Sends a request. The last answer must be complete."""
        # This blocking call never waits: the peer has read the last request, and one request fits into the
        # buffer of the socket.
        self._socket.sendall(request)

    def receive(self) -> bool:
        """Takes what arrived; True when the answer is complete.

        Raises `BenchError` if the answer is not a 200 with a whole body.
        """
        data = self._socket.recv(_RECEIVE_BYTES)
        while self._pending is not None and self._pending():
            data += self._socket.recv(_RECEIVE_BYTES)
        if not data:
            raise BenchError("the server closed a connection")
        if self._received is None:
            self._expected = self._length(data)
            if len(data) == self._expected:
                return True
            self._received = bytearray(data)
            return False
        self._received += data
        if self._expected == 0:
            self._expected = self._length(self._received)
        if len(self._received) != self._expected:
            return False
        self._received = None
        return True

    def _length(self, data: bytes | bytearray) -> int:
        """Bytes of the whole answer; 0 while its head is not complete."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return 0
        if data[9:12] != b"200":
            raise BenchError(f"an answer that is not a 200: {bytes(data[:300])!r}")
        at = data.find(b"Content-Length: ", 0, end) + 16
        body = int(data[at : data.index(b"\r", at)]) if at >= 16 else 0
        if body < self._least_body:
            raise BenchError(
                f"a body of {body} bytes where at least {self._least_body} were due: {bytes(data[:300])!r}"
            )
        return end + 4 + body


def unverified_context() -> ssl.SSLContext:
    """A context for servers of this machine, whose certificates are made for one run."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@contextmanager
def connected(base_url: str, count: int, least_body: int) -> Iterator[list[Connection]]:
    """Opens `count` connections, and closes them at the end."""
    url = urlsplit(base_url)
    address = (url.hostname or "127.0.0.1", url.port or 80)
    connections: list[Connection] = []
    try:
        is_encrypted = url.scheme == "https"
        connections.extend(Connection(address, least_body, is_encrypted=is_encrypted) for _ in range(count))
        yield connections
    finally:
        for connection in connections:
            connection.close()


@contextmanager
def _quiet_gc() -> Iterator[None]:
    """Turns the garbage collector off.

    A collection in the driver would be measured as the server's latency.
    """
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def _readable(connections: Sequence[Connection]) -> Iterator[selectors.BaseSelector]:
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ, connection)
        yield selector


def closed_loop(
    base_url: str, requests: Sequence[bytes], *, connections: int, seconds: float, least_body: int
) -> float:
    """Answers per second that the server gave.

    Raises `BenchError` at the first answer that is not a whole 200.
    """
    following = cycle(requests)
    answered = 0
    with connected(base_url, connections, least_body) as opened, _readable(opened) as selector, _quiet_gc():
        started = time.perf_counter()
        end = started + seconds
        for connection in opened:
            connection.send(next(following))
        while (now := time.perf_counter()) < end:
            for ready, _ in selector.select(1.0):
                connection = ready.data
                if connection.receive():
                    answered += 1
                    connection.send(next(following))
        return answered / (now - started)


def poisson_arrivals(rate: float, seconds: float, rng: random.Random) -> list[float]:
    """Seconds after the start at which requests are meant to be sent.

    They are ascending and independent of one another.
    """
    arrivals: list[float] = []
    at = rng.expovariate(rate)
    while at < seconds:
        arrivals.append(at)
        at += rng.expovariate(rate)
    return arrivals


class Timings:
    """Seconds, one value per answer, in the order of the answers."""

    def __init__(self) -> None:
        self.latencies: list[float] = []
        """From the moment at which the request was meant to be sent to the answer's last byte."""
        self.send_lags: list[float] = []
        """From that moment to the real sending, where a connection was free.

        This is the lateness of the driver itself.
        """


def open_loop(
    base_url: str, requests: Sequence[bytes], arrivals: Sequence[float], *, connections: int, least_body: int
) -> Timings:
    """Sends at `arrivals` (seconds from now, ascending) and times every request.

    Raises as `closed_loop` does. It polls without sleeping, so it needs a core of its own: a sleep in
    epoll has steps of a millisecond, longer than what is measured.
    """
    with connected(base_url, connections, least_body) as opened, _readable(opened) as selector, _quiet_gc():
        return _follow(arrivals, cycle(requests), opened, selector)


def _follow(
    arrivals: Sequence[float],
    following: Iterator[bytes],
    opened: Sequence[Connection],
    selector: selectors.BaseSelector,
) -> Timings:
    timings = Timings()
    clock = time.perf_counter
    free = deque(opened)
    waiting: deque[float] = deque()
    total, upcoming = len(arrivals), 0
    started = clock()
    patience = started + (arrivals[-1] if arrivals else 0.0) + _GIVE_UP_SECONDS
    while len(timings.latencies) < total:
        now = clock()
        if now > patience:
            raise BenchError(f"{total - len(timings.latencies)} of {total} scheduled requests have no answer")
        while upcoming < total and started + arrivals[upcoming] <= now:
            intended = started + arrivals[upcoming]
            upcoming += 1
            if not free:
                waiting.append(intended)
                continue
            connection = free.popleft()
            connection.intended = intended
            connection.send(next(following))
            timings.send_lags.append(clock() - intended)
        for ready, _ in selector.select(0):
            connection = ready.data
            if not connection.receive():
                continue
            timings.latencies.append(clock() - connection.intended)
            if waiting:
                connection.intended = waiting.popleft()
                connection.send(next(following))
            else:
                free.append(connection)
    return timings
