"""What `GET /v1/fences` sends: the fences this instance has merged, as server-sent events (clients/PROTOCOL.md).

    the feeds, after merging ──► fences · reset ──► the log: in order, rendered once, bounded ──► each subscriber, from its place
                             └─► heartbeat ───────► not in the log: a subscriber that has caught up gets the newest one

A subscriber is a place in the log and nothing more, so a slow one costs no memory. When the log has dropped what it has not
taken yet it is lost: it is disconnected, and comes again with the id of its last event.

An id is a vector: the position in each region's stream after the event. The streams are the same for all instances, so another
instance's id is as good as ours. It is resumed from if this instance has followed every region without a gap since then and still
has all of it in the log. Everything else begins with a `reset`: whatever was loaded before now is to be dropped.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from cachesvc.changes.broadcast_events import (
    Vector,
    _encode,
    _Event,
    _Heartbeat,
    _is_beyond,
    _pairs,
    _rendered,
    _Reset,
    vector_text,
)
from cachesvc.changes.broadcast_log import LOG_BYTES, LOG_FENCES, _Log
from cachesvc.changes.contract import position_of
from cachesvc.model.clock import Clock
from cachesvc.model.errors import RequestError
from cachesvc.model.fence import Fence
from cachesvc.model.problems import ProblemKind

MAX_SUBSCRIBERS = 1_000
CHUNK_BYTES = 1 << 16
"""What a subscriber takes at once, if there is as much."""
UNWATCHED_FENCES = 10_000
"""A batch of more comes when an instance catches up. Without a subscriber it is not worth rendering: a million fences that a new
instance starts from would keep its loop busy for half a second."""


class BroadcastStatistics(Struct, frozen=True):
    subscribers: int
    """Connected now."""
    lost: int
    """Cut off because they were too slow."""
    events: int
    """Of fences and resets."""
    fences: int
    """In the log now, to resume from."""


class Broadcast:
    """On the event loop only. The feeds call `fences`, `heartbeat` and `reset` after merging, in the order of the stream."""

    def __init__(
        self,
        clock: Clock,
        skew_us: int,
        regions: Iterable[str],
        *,
        log_fences: int = LOG_FENCES,
        log_bytes: int = LOG_BYTES,
        max_subscribers: int = MAX_SUBSCRIBERS,
        unwatched_fences: int = UNWATCHED_FENCES,
    ) -> None:
        self._clock = clock
        self._lead_us = 2 * skew_us + 1000
        self._max_subscribers = max_subscribers
        self._unwatched_fences = unwatched_fences
        self._log = _Log(log_fences, log_bytes)
        self._vector: Vector = dict.fromkeys(regions, "")
        self._since = dict(self._vector)
        """Per region: whoever has everything up to here finds the rest in the log."""
        self._replayed_from = 0
        """Earlier events stand before a reset: for those only who have not taken them yet, not to resume from."""
        self._complete_to = dict.fromkeys(self._vector, 0)
        self._floor = 0
        self._subscriptions: set[Subscription] = set()
        self._news = asyncio.Event()
        self._beats = 0
        self._is_quiet = False
        """No heartbeat since the last `beat`."""
        self._heartbeat = b""
        """The newest one; empty while nobody has asked for it."""
        self._lost = 0
        self._events = 0

    def __repr__(self) -> str:
        return f"<Broadcast [{len(self._subscriptions)} subscribers] at {vector_text(self._vector) or 'no position'}>"

    def statistics(self) -> BroadcastStatistics:
        return BroadcastStatistics(len(self._subscriptions), self._lost, self._events, self._log.fences)

    # what the feeds say -----------------------------------------------------------------------------------------------

    def fences(self, region: str, position: str, fences: Sequence[Fence]) -> None:
        """These are merged, and with them everything up to `position`."""
        self._move(region, position)
        if not fences:
            return
        if len(fences) > self._unwatched_fences and not self._subscriptions:
            self._since[region] = position
        else:
            self._append("fences", region, _encode(_pairs(fences)), len(fences))

    def heartbeat(self, region: str, position: str, complete_to: int) -> None:
        """Every change accepted before `complete_to` (µs) is merged."""
        self._move(region, position)
        self._complete_to[region] = max(self._complete_to[region], complete_to)
        self._beat()

    def reset(self, region: str, position: str, floor: int, reason: str) -> None:
        """The region is read from `position` on, and fences before it may be missing: no copy with `as_of <= floor` is good."""
        self._move(region, position)
        self._floor = max(self._floor, floor)
        self._append("reset", region, _encode(_Reset(self._floor, reason)), 0)
        # Nobody resumes from before: what the stream says since may go by positions that mean something else.
        self._since = dict(self._vector)
        self._replayed_from = self._log.end

    def _move(self, region: str, position: str) -> None:
        if not self._vector[region]:
            self._since[region] = position
        self._vector[region] = position
        self._heartbeat = b""

    def _append(self, kind: str, region: str, data: bytes, fences: int) -> None:
        id_ = vector_text(self._vector)
        oldest = self._log.first
        dropped = self._log.append(
            _Event(region, self._vector[region], id_, _rendered(kind, id_, data), fences)
        )
        for number, event in enumerate(dropped, start=oldest):
            if number >= self._replayed_from:
                # A batch that was not rendered may have moved it further.
                self._since[event.region] = max(self._since[event.region], event.position, key=position_of)
        self._events += 1
        self._wake()

    # heartbeats -------------------------------------------------------------------------------------------------------

    def beat(self) -> None:
        """To be called at a steady pace, whatever the feeds do: if none of them said anything since the last time, subscribers
        get a heartbeat all the same. Subscribers whose place the log has dropped are lost."""
        if self._is_quiet:
            self._beat()
        self._is_quiet = True
        for subscription in [one for one in self._subscriptions if one.place < self._log.first]:
            subscription.lose()

    def _beat(self) -> None:
        self._beats += 1
        self._is_quiet = False
        self._heartbeat = b""
        self._wake()

    def _wake(self) -> None:
        """Those who wait now. Who comes later looks first."""
        self._news.set()
        self._news.clear()

    def _newest_heartbeat(self) -> bytes:
        if not self._heartbeat:
            data = _encode(_Heartbeat(self._complete_to, self._floor, self._clock.now_us()))
            self._heartbeat = _rendered("heartbeat", vector_text(self._vector), data)
        return self._heartbeat

    # subscribers ------------------------------------------------------------------------------------------------------

    def subscribe(self, after: Mapping[str, str] | None = None) -> "Subscription":
        """From the event with the id `after` on, if that can be resumed, else with a reset first. To be closed by the caller.

        Raises `RequestError` 503 if there are too many.
        """
        if len(self._subscriptions) >= self._max_subscribers:
            why = f"{self._max_subscribers} subscribers are connected to this instance already"
            raise RequestError(ProblemKind.TOO_MANY_SUBSCRIBERS, why)
        if after is not None and self._follows(after):
            subscription = Subscription(self, self._place_of(after), joined=self._log.end, after=after)
        else:
            reason = (
                "this subscription is new"
                if after is None
                else "what came after Last-Event-ID is not here any more"
            )
            subscription = Subscription(
                self, self._log.end, joined=self._log.end, opening=self._first_reset(reason)
            )
        self._subscriptions.add(subscription)
        return subscription

    def _follows(self, after: Mapping[str, str]) -> bool:
        since, vector = self._since, self._vector
        return after.keys() <= vector.keys() and all(
            position_of(since[region]) <= position_of(after.get(region, "")) <= position_of(vector[region])
            for region in vector
        )

    def _place_of(self, after: Mapping[str, str]) -> int:
        """The number of the first event that `after` does not cover. Our vectors only grow along the log."""
        numbers = range(max(self._log.first, self._replayed_from), self._log.end)
        return numbers.start + bisect_left(
            numbers, True, key=lambda number: _is_beyond(self._log[number].id, after)
        )

    def _first_reset(self, reason: str) -> bytes:
        # Ahead of everything that a clock within S of ours gave before now (COHERENCE.md, "Gap").
        floor = max(self._floor, self._clock.now_us() + self._lead_us)
        return _rendered("reset", vector_text(self._vector), _encode(_Reset(floor, reason)))

    def take(self, subscription: "Subscription") -> bytes:
        """What a subscriber has not had yet, up to `CHUNK_BYTES`; empty if nothing. Moves its place."""
        log, found, size = self._log, [subscription.take_opening()], 0
        if subscription.place < log.first:
            subscription.lose()
            return b""
        while subscription.place < log.end and size < CHUNK_BYTES:
            found.append(subscription.advance(log[subscription.place]))
            size += len(found[-1])
        # Behind the last event only: it says that everything up to its id has been sent.
        if subscription.place == log.end and subscription.beats != self._beats:
            subscription.beats = self._beats
            found.append(self._newest_heartbeat())
        return b"".join(found)

    async def news(self) -> None:
        """Until something may have happened. What is asked for synchronously before is not missed."""
        await self._news.wait()

    def leave(self, subscription: "Subscription", *, lost: bool) -> None:
        """For `Subscription`: it is over."""
        if subscription in self._subscriptions:
            self._subscriptions.discard(subscription)
            self._lost += lost
            self._wake()


class Subscription:
    """One subscriber's place. Made by `Broadcast.subscribe`; taken from by one task."""

    def __init__(
        self,
        broadcast: Broadcast,
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

    def advance(self, event: _Event) -> bytes:
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
