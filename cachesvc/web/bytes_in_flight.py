"""The bytes of bodies that are on their way, counted over the whole process.

Four kinds are counted together, under one limit (`server.max_bytes_in_flight`): heads that have not
ended and requests that wait behind another one of their connection, request bodies that arrive in
pieces, values that a `:get` has gathered and not encoded yet, and answers that their peers have not
taken yet. A body that fits into one piece, or into the buffers of its connection, is not counted:
64 KiB per connection at most; nor is a head in one piece of up to 16 KiB.

Where there are several namespaces, each may hold its share of that (`shares.py`) of the bodies that
come in pieces and of the gathered values: the large answers of one do not refuse those of another.
"""

import logging

from cachesvc.model.errors import RequestError
from cachesvc.model.problems import ProblemKind
from cachesvc.telemetry.outage import Outage
from cachesvc.web.shares import has_place

log = logging.getLogger(__name__)


class BytesInFlight:
    """The bytes that are on their way now, and what was refused because they are too many."""

    __slots__ = ("_full", "_is_shared", "held", "held_by", "most", "refused")

    def __init__(self, most: int, *, is_shared: bool = False) -> None:
        """`is_shared`: there are several namespaces, and each has its share."""
        self.most = most
        self._is_shared = is_shared
        self.held = 0
        self.held_by: dict[str, int] = {}
        """The part of `held` that belongs to a namespace, for those with any."""
        self.refused = 0
        """Requests that were refused for want of room since the start."""
        self._full = Outage("room for bodies (server.max_bytes_in_flight)", log)

    def __repr__(self) -> str:
        return f"<BytesInFlight [{self.held} of {self.most} bytes]>"

    def has_room(self, size: int, namespace: str) -> bool:
        """True if one more body of this size fits, for this namespace; one alone fits in any case."""
        if not self.held:
            return True
        free = self.most - self.held
        if free <= 0 or size > free:
            return False
        own = self.held_by.get(namespace, 0) if self._is_shared else 0
        return not own or has_place(free, (own + size,))

    def admit(self, size: int, namespace: str) -> None:
        """Raises `RequestError` (`overloaded`) if there is no room for one more body of this size."""
        if not self.has_room(size, namespace):
            self.refused += 1
            self.note_full()
            raise RequestError(ProblemKind.OVERLOADED, "too many bytes of bodies are on their way here")
        if self._full.is_on:
            self._full.worked()

    def note_full(self) -> None:
        """Writes one log line when the room begins to be too small."""
        self._full.failed(f"{self.held} bytes of bodies are on their way, the limit is {self.most}")


class Held:
    """The part of `BytesInFlight` that one body takes, until the end of a `with` block."""

    __slots__ = ("_in_flight", "_namespace", "size")

    def __init__(self, in_flight: BytesInFlight, namespace: str) -> None:
        self._in_flight = in_flight
        self._namespace = namespace
        self.size = 0

    def __enter__(self) -> "Held":
        return self

    def __exit__(self, *_: object) -> None:
        if not self.size:
            return
        in_flight, namespace = self._in_flight, self._namespace
        in_flight.held -= self.size
        left = in_flight.held_by[namespace] - self.size
        if left:
            in_flight.held_by[namespace] = left
        else:
            del in_flight.held_by[namespace]
        self.size = 0

    def take(self, size: int) -> None:
        """Counts bytes that are in memory already. Raises nothing: what comes next is refused."""
        if size:
            in_flight, namespace = self._in_flight, self._namespace
            self.size += size
            in_flight.held += size
            in_flight.held_by[namespace] = in_flight.held_by.get(namespace, 0) + size

    def admit(self) -> None:
        """Raises `RequestError` (`overloaded`) if there is no room for more."""
        self._in_flight.admit(0, self._namespace)
