"""The bytes of bodies that are on their way, counted over the whole process.

Four kinds are counted together, under one limit (`server.max_bytes_in_flight`): heads that have not
ended and requests that wait behind another one of their connection, request bodies that arrive in
pieces, values that a `:get` has gathered and not encoded yet, and answers that their peers have not
taken yet. A body that fits into one piece, or into the buffers of its connection, is not counted:
64 KiB per connection at most; nor is a head in one piece of up to 16 KiB.
"""

import logging

from cachesvc.model.errors import RequestError
from cachesvc.model.problems import ProblemKind
from cachesvc.telemetry.outage import Outage

log = logging.getLogger(__name__)


class BytesInFlight:
    """The bytes that are on their way now, and what was refused because they are too many."""

    __slots__ = ("_full", "held", "most", "refused")

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0
        self.refused = 0
        """Requests that were refused for want of room since the start."""
        self._full = Outage("room for bodies (server.max_bytes_in_flight)", log)

    def __repr__(self) -> str:
        return f"<BytesInFlight [{self.held} of {self.most} bytes]>"

    @property
    def is_full(self) -> bool:
        return self.held >= self.most

    def has_room(self, size: int) -> bool:
        """True if one more body of this size fits; one fits in any case."""
        return not self.held or (self.held < self.most and self.held + size <= self.most)

    def admit(self, size: int = 0) -> None:
        """Raises `RequestError` (`overloaded`) if there is no room for one more body of this size."""
        if not self.has_room(size):
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

    __slots__ = ("_in_flight", "size")

    def __init__(self, in_flight: BytesInFlight) -> None:
        self._in_flight = in_flight
        self.size = 0

    def __enter__(self) -> "Held":
        return self

    def __exit__(self, *_: object) -> None:
        self._in_flight.held -= self.size
        self.size = 0

    def take(self, size: int) -> None:
        """Counts bytes that are in memory already. Raises nothing: what comes next is refused."""
        self.size += size
        self._in_flight.held += size

    def admit(self) -> None:
        """Raises `RequestError` (`overloaded`) if there is no room for more."""
        self._in_flight.admit()
