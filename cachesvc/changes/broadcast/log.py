"""The log of a broadcast: the newest events, in order, bounded by fences and by bytes."""

from collections import deque

from cachesvc.changes.broadcast.events import Event

LOG_FENCES = 200_000
"""Fences that the log keeps at most."""


LOG_BYTES = 16 << 20
"""Bytes that the log keeps at most."""


class EventLog:
    """Events, numbered in order. Over a bound the oldest are dropped; the newest always stays."""

    def __init__(self, most_fences: int, most_bytes: int) -> None:
        self._most_fences = most_fences
        self._most_bytes = most_bytes
        self._events: deque[Event] = deque()
        self._bytes = 0
        self.first = 0
        """The number of the oldest event in the log."""
        self.fences = 0
        """Fences in the events of the log."""

    @property
    def end(self) -> int:
        """The number that the next event gets."""
        return self.first + len(self._events)

    def __getitem__(self, number: int) -> Event:
        return self._events[number - self.first]

    def append(self, event: Event) -> list[Event]:
        """Adds an event and returns the events that were dropped for it, the oldest first."""
        self._count(event, 1)
        self._events.append(event)
        dropped = []
        while len(self._events) > 1 and (self.fences > self._most_fences or self._bytes > self._most_bytes):
            dropped.append(self._events.popleft())
            self._count(dropped[-1], -1)
        self.first += len(dropped)
        return dropped

    def _count(self, event: Event, sign: int) -> None:
        self.fences += sign * event.fences
        self._bytes += sign * event.cost
