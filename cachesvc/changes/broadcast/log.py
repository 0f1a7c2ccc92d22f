from collections import deque

from cachesvc.changes.broadcast.events import Event

LOG_FENCES = 200_000


LOG_BYTES = 16 << 20


class EventLog:
    """Events, numbered in order. Over its bounds the oldest go; the newest always stays."""

    def __init__(self, most_fences: int, most_bytes: int) -> None:
        self._most_fences = most_fences
        self._most_bytes = most_bytes
        self._events: deque[Event] = deque()
        self._bytes = 0
        self.first = 0
        """The number of the oldest one kept."""
        self.fences = 0

    @property
    def end(self) -> int:
        """The number that the next one gets."""
        return self.first + len(self._events)

    def __getitem__(self, number: int) -> Event:
        return self._events[number - self.first]

    def append(self, event: Event) -> list[Event]:
        """What was dropped for it, oldest first."""
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
