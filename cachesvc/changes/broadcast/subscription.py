"""One subscriber of the fences: a place in the log of events, and what is still to be sent from there."""

from collections.abc import Mapping
from typing import Protocol

from cachesvc.changes.broadcast.events import Event, vector_text
from cachesvc.changes.contract import position_of


class Source(Protocol):
    """The broadcast, as a subscription uses it."""

    def take(self, subscription: "Subscription") -> bytes: ...

    async def news(self) -> None: ...

    def leave(self, subscription: "Subscription", *, lost: bool) -> None: ...


class Subscription:
    """One subscriber's place. Made by `Broadcast.subscribe`; taken from by one task."""

    def __init__(
        self,
        broadcast: Source,
        place: int,
        *,
        joined: int,
        after: Mapping[str, str] | None = None,
        opening: bytes = b"",
    ) -> None:
        """`joined`: the number of the next event when it came. Some of the earlier ones it may have had, up to `after`, from
        another instance. `opening`: what it is sent first."""
        self._broadcast = broadcast
        self._joined = joined
        self._vector = dict(after or {})
        self._opening = opening
        self.place = place
        """The number of its next event."""
        self.beats = -1
        """The heartbeat it had last."""
        self.is_over = False

    def __repr__(self) -> str:
        return f"<Subscription [{'over' if self.is_over else f'next is {self.place}'}]>"

    async def next(self) -> bytes:
        """The next events, ready to be sent, the first ones at once. Empty: it is over, closed or lost. Cancelled, it has taken
        nothing."""
        while not self.is_over:
            if events := self._broadcast.take(self):
                return events
            if not self.is_over:
                await self._broadcast.news()
        return b""

    def take_opening(self) -> bytes:
        opening, self._opening = self._opening, b""
        return opening

    def advance(self, event: Event) -> bytes:
        """What it is to be sent of the event at its place; empty if it has that already."""
        self.place += 1
        if self.place > self._joined:
            return event.text
        if position_of(event.position) <= position_of(self._vector.get(event.region, "")):
            return b""
        self._vector[event.region] = event.position
        return event.stamped(vector_text(self._vector))

    def close(self) -> None:
        self.is_over = True
        self._broadcast.leave(self, lost=False)

    def lose(self) -> None:
        """It is too slow: it has to come again."""
        self.is_over = True
        self._broadcast.leave(self, lost=True)
