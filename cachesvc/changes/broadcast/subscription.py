"""One subscriber of the fences: a place in the log, and the events to be sent from there."""

from collections.abc import Collection, Mapping
from typing import Protocol

from cachesvc.changes.broadcast.events import Event, vector_text
from cachesvc.changes.contract import position_of


class Source(Protocol):
    """The broadcast, as a subscription uses it."""

    def take(self, subscription: "Subscription") -> bytes: ...

    async def news(self) -> None: ...

    def leave(self, subscription: "Subscription", *, lost: bool) -> None: ...


class Subscription:
    """One subscriber's place in the log. Made by `Broadcast.subscribe`; used by one task."""

    def __init__(
        self,
        broadcast: Source,
        place: int,
        *,
        joined: int,
        after: Mapping[str, str] | None = None,
        opening: bytes = b"",
        seen: Collection[str] | None = None,
    ) -> None:
        """Makes a subscription that begins with `opening`, then the event with the number `place`.

        It names no namespaces but those of `seen` (None: all).

        `joined` is the number of the next event at the time of subscribing. Of the events before it, the
        subscriber may have had some from another instance: those up to the vector `after`.
        """
        self._broadcast = broadcast
        self._joined = joined
        self._vector = dict(after or {})
        self._opening = opening
        self._seen = seen
        self.place = place
        """The number of the subscriber's next event."""
        self.beats = -1
        """The number of the heartbeat that the subscriber had last."""
        self.is_over = False

    def __repr__(self) -> str:
        return f"<Subscription [{'over' if self.is_over else f'next is {self.place}'}]>"

    async def next(self) -> bytes:
        """Returns the next events, ready to be sent; the first ones at once.

        Empty if the subscription is over, closed or lost. A cancelled call has taken nothing.
        """
        while not self.is_over:
            if events := self._broadcast.take(self):
                return events
            if not self.is_over:
                await self._broadcast.news()
        return b""

    def take_opening(self) -> bytes:
        """Returns the bytes that the subscription begins with; empty after the first call."""
        opening, self._opening = self._opening, b""
        return opening

    def advance(self, event: Event) -> bytes:
        """Returns the bytes to send for the event at this place, and moves the place.

        Empty if the subscriber has that event already.
        """
        self.place += 1
        if self.place > self._joined:
            return event.text_for(self._seen)
        if position_of(event.position) <= position_of(self._vector.get(event.region, "")):
            return b""
        self._vector[event.region] = event.position
        return event.stamped(event.text_for(self._seen), vector_text(self._vector))

    def close(self) -> None:
        """Ends the subscription; a waiting `next` returns."""
        self.is_over = True
        self._broadcast.leave(self, lost=False)

    def lose(self) -> None:
        """Ends the subscription because the subscriber is too slow: it has to connect again."""
        self.is_over = True
        self._broadcast.leave(self, lost=True)
