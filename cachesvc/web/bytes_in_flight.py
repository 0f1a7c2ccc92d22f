"""The bytes of bodies that are on their way, counted over the whole process.

Four kinds are counted together, under one limit (`server.max_bytes_in_flight`): heads that have not
ended and requests that wait behind another one of their connection, request bodies that arrive in
pieces, values that a `:get` has gathered and not encoded yet, and answers that their peers have not
taken yet. A body that fits into one piece, or into the buffers of its connection, is not counted:
64 KiB per connection at most; nor is a head in one piece of up to 16 KiB.

The values of a `:get` are counted before they come, too: a portion of its keys is asked for only
when the bytes that it is expected to bring fit under the limit, beside those that other portions
are expected to bring. Else many portions that are asked at once would each find room, and fill it
many times over. A portion without room waits for the end of another one.

Where there are several namespaces, each may hold its share of that (`shares.py`), of the bodies
that come in pieces, of values, and of answers that are not taken: the large answers of one, and its
slow readers, do not refuse those of another.
"""

import asyncio
import logging
from collections import deque

from cachesvc.model.errors import RequestError
from cachesvc.model.problems import ProblemKind
from cachesvc.telemetry.outage import Outage
from cachesvc.web.shares import PART

log = logging.getLogger(__name__)


class BytesInFlight:
    """The bytes that are on their way now, and what was refused because they are too many."""

    __slots__ = ("_full", "_waiting", "by_namespace", "expected", "held", "is_shared", "most", "refused")

    def __init__(self, most: int, *, is_shared: bool = False) -> None:
        self.most = most
        self.is_shared = is_shared
        """True if there are several namespaces, and each has its share."""
        self.by_namespace: dict[str, int] = {}
        """The held and expected bytes that belong to a namespace, for those with any."""
        self.held = 0
        self.expected = 0
        """Bytes of values that are asked for and have not come yet."""
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.refused = 0
        """Requests that were refused for want of room since the start."""
        self._full = Outage("room for bodies (server.max_bytes_in_flight)", log)

    def __repr__(self) -> str:
        return f"<BytesInFlight [{self.held} of {self.most} bytes]>"

    @property
    def is_full(self) -> bool:
        return self.held >= self.most

    def has_room(self, size: int, namespace: str) -> bool:
        """True if one more body of this size fits, for this namespace; one fits in any case."""
        if not self.held:
            return True
        left = self.most - self.held
        return left > 0 and size <= left and size <= self._share(left, namespace)

    def admit(self, size: int, namespace: str) -> None:
        """Raises `RequestError` (`overloaded`) if there is no room for one more body of this size."""
        if not self.has_room(size, namespace):
            raise self.refusal()
        if self._full.is_on:
            self._full.worked()

    def refusal(self) -> RequestError:
        """Counts a request that is refused for want of room, and returns the error to raise."""
        self.refused += 1
        self.note_full()
        return RequestError(ProblemKind.OVERLOADED, "too many bytes of bodies are on their way here")

    @property
    def free(self) -> int:
        """The bytes that are neither held nor expected."""
        return max(0, self.most - self.held - self.expected)

    def free_for(self, namespace: str) -> int:
        """The bytes that are free, as far as the namespace may have them."""
        return min(self.free, self._share(self.free, namespace))

    def _share(self, free: int, namespace: str) -> int:
        """Returns how much more the namespace may hold if so much is free; below 0: nothing."""
        own = self.by_namespace.get(namespace, 0) if self.is_shared else 0
        return PART * free - own if own else free

    def count(self, namespace: str, size: int) -> None:
        """Counts bytes for their namespace; takes them out of the count if `size` is below 0."""
        if own := self.by_namespace.get(namespace, 0) + size:
            self.by_namespace[namespace] = own
        else:
            self.by_namespace.pop(namespace, None)

    def may_expect(self, size: int, namespace: str) -> bool:
        """True if so many bytes may be asked for.

        If no others are expected, they may be more than the room that is left.
        """
        return size <= self.free_for(namespace) or (not self.expected and not self.is_full)

    def expect(self, size: int) -> None:
        """Counts bytes that are asked for from now on."""
        self.expected += size
        if self.free:
            if self._full.is_on:
                self._full.worked()
            self._wake()

    def came(self, expected: int) -> None:
        """Takes bytes out of the count that were expected, and have come or will not come."""
        self.expected -= expected
        self._wake()

    def gone(self, held: int) -> None:
        """Takes bytes out of the count that were held."""
        self.held -= held
        self._wake()

    async def turn(self, seconds: float) -> bool:
        """Waits until it is worth to look for room again; False if that is not within `seconds`."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(seconds):
                await waiter
        except BaseException as error:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            else:
                self._wake()  # the turn was given, and nobody takes it
            if isinstance(error, TimeoutError):
                return False
            raise
        return True

    def _wake(self) -> None:
        while self._waiting:
            if not (waiter := self._waiting.popleft()).done():
                waiter.set_result(None)
                return

    def note_full(self) -> None:
        """Writes one log line when the room begins to be too small."""
        self._full.failed(f"{self.held} bytes of bodies are on their way, the limit is {self.most}")


class Held:
    """The part of `BytesInFlight` that one body takes, until the end of a `with` block."""

    __slots__ = ("_expected", "_in_flight", "_namespace", "size")

    def __init__(self, in_flight: BytesInFlight, namespace: str) -> None:
        self._in_flight = in_flight
        self._namespace = namespace
        self.size = 0
        self._expected = 0

    def __enter__(self) -> "Held":
        return self

    def __exit__(self, *_: object) -> None:
        if self._expected:
            self.came(0)
        self._in_flight.count(self._namespace, -self.size)
        self._in_flight.gone(self.size)
        self.size = 0

    def take(self, size: int) -> None:
        """Counts bytes that are in memory already. Raises nothing: what comes next is refused."""
        self.size += size
        self._in_flight.held += size
        self._in_flight.count(self._namespace, size)

    def expect(self, size: int) -> None:
        """Counts bytes that are asked for, until `came`."""
        self._expected += size
        self._in_flight.count(self._namespace, size)
        self._in_flight.expect(size)

    def came(self, size: int) -> None:
        """Counts the bytes that came in place of those that were expected."""
        self.take(size)
        expected, self._expected = self._expected, 0
        self._in_flight.count(self._namespace, -expected)
        self._in_flight.came(expected)

    def admit(self) -> None:
        """Raises `RequestError` (`overloaded`) if there is no room for more."""
        self._in_flight.admit(0, self._namespace)
