"""The broadcast of `GET /v1/fences`: merged fences as server-sent events.

    the feeds, after merging ──► fences · reset ──► the log: in order, bounded, rendered if needed
                             │                      └─► each subscriber, from its own place
                             └─► heartbeat ───────► not in the log: the newest one goes to
                                                    subscribers that have caught up

clients/PROTOCOL.md has the wire format. A subscriber is only a place in the log, so a slow
subscriber costs no memory. When the log has dropped an event that a subscriber has not taken yet,
the subscriber is lost: it is disconnected, and connects again with the id of its last event.

An event id is a vector: the position in each region's stream after the event. The streams are the
same for all instances, so an id from another instance is as good as one from here, unless that one
reads another server of a queue's name. A position names its epoch, which says so. A subscriber
resumes from an id if its positions are of the epochs that this instance reads, this instance has
followed every region without a gap since then, and the log still has all events since then. In
every other case the subscription begins with a `reset`: every value that was loaded before is to be
dropped.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence

from msgspec import Struct

from cachesvc.changes.broadcast.events import (
    Event,
    Heartbeat,
    Reset,
    Vector,
    encode,
    is_beyond,
    rendered,
    vector_text,
)
from cachesvc.changes.broadcast.log import LOG_BYTES, LOG_FENCES, EventLog
from cachesvc.changes.broadcast.subscription import Subscription
from cachesvc.changes.contract import epoch_of, position_of
from cachesvc.model.clock import Clock
from cachesvc.model.errors import RequestError
from cachesvc.model.fence import Fence
from cachesvc.model.problems import ProblemKind

CHUNK_BYTES = 1 << 16
"""A subscriber takes about this many bytes at once, if there are as many."""
UNWATCHED_FENCES = 10_000
"""A batch of more fences comes when an instance catches up. Without a subscriber such a
batch is not rendered: a million fences that a new instance starts from would keep its
loop busy for half a second."""


class BroadcastStatistics(Struct, frozen=True):
    """Counters since the start, and the state now."""

    subscribers: int
    """Subscribers connected now."""
    lost: int
    """Subscribers cut off because they were too slow."""
    events: int
    """Events with fences, and resets."""
    fences: int
    """Fences in the log now, which a subscriber can resume from."""


class Broadcast:
    """The fences of all regions as events for subscribers. Used on the event loop only.

    The feeds call `fences`, `heartbeat` and `reset` after merging, in the order of their stream.
    """

    def __init__(
        self,
        clock: Clock,
        skew_us: int,
        regions: Iterable[str],
        *,
        log_fences: int = LOG_FENCES,
        log_bytes: int = LOG_BYTES,
        max_subscribers: int = 1000,
        unwatched_fences: int = UNWATCHED_FENCES,
    ) -> None:
        self._clock = clock
        self._lead_us = 2 * skew_us + 1000
        self._max_subscribers = max_subscribers
        self._unwatched_fences = unwatched_fences
        self._log = EventLog(log_fences, log_bytes)
        self._vector: Vector = dict.fromkeys(regions, "")
        self._since = dict(self._vector)
        """Per region: a subscriber that has everything up to this position finds the rest in
        the log."""
        self._replayed_from = 0
        """Events before this number stand before a reset: they are sent to subscribers that have
        not taken them yet, and nobody resumes from them."""
        self._complete_to = dict.fromkeys(self._vector, 0)
        self._floor = 0
        self._subscriptions: set[Subscription] = set()
        self._news = asyncio.Event()
        self._beats = 0
        self._is_quiet = False
        """True if there was no heartbeat since the last `beat`."""
        self._heartbeat = b""
        """The newest heartbeat; empty until a subscriber needs it."""
        self._lost = 0
        self._events = 0

    def __repr__(self) -> str:
        place = vector_text(self._vector) or "no position"
        return f"<Broadcast [{len(self._subscriptions)} subscribers] at {place}>"

    def statistics(self) -> BroadcastStatistics:
        return BroadcastStatistics(len(self._subscriptions), self._lost, self._events, self._log.fences)

    # what the feeds say ------------------------------------------------------------

    def fences(self, region: str, position: str, fences: Sequence[Fence]) -> None:
        """Broadcasts fences that are merged, as is everything up to `position`."""
        self._move(region, position)
        if not fences:
            return
        if len(fences) > self._unwatched_fences and not self._subscriptions:
            self._since[region] = position
        else:
            self._append(region, fences)

    def heartbeat(self, region: str, position: str, complete_to: int) -> None:
        """Broadcasts that every change accepted before `complete_to` (µs) is merged."""
        self._move(region, position)
        self._complete_to[region] = max(self._complete_to[region], complete_to)
        self._beat()

    def reset(self, region: str, position: str, floor: int, reason: str) -> None:
        """Broadcasts that fences before `position` may be missing.

        The region is read from `position` on; no copy with `as_of <= floor` (µs) may be answered any more.
        """
        self._move(region, position)
        self._floor = max(self._floor, floor)
        self._append(region, Reset(self._floor, reason))
        # Nobody resumes from before the reset: after it, the same positions may mean other items.
        self._since = dict(self._vector)
        self._replayed_from = self._log.end

    def _move(self, region: str, position: str) -> None:
        if not self._vector[region]:
            self._since[region] = position
        self._vector[region] = position
        self._heartbeat = b""

    def _append(self, region: str, said: Sequence[Fence] | Reset) -> None:
        oldest = self._log.first
        dropped = self._log.append(Event(region, self._vector[region], vector_text(self._vector), said))
        for number, event in enumerate(dropped, start=oldest):
            if number >= self._replayed_from:
                # A batch that was not rendered may have moved `_since` further already.
                self._since[event.region] = max(self._since[event.region], event.position, key=position_of)
        self._events += 1
        if self._subscriptions:
            self._wake()

    # heartbeats ------------------------------------------------------------

    def beat(self) -> None:
        """Sends a heartbeat if no feed did so since the last call; to be called at a steady pace.

        Subscribers whose place the log has dropped are lost.
        """
        if self._is_quiet:
            self._beat()
        self._is_quiet = True
        for subscription in [one for one in self._subscriptions if one.place < self._log.first]:
            subscription.lose()

    def _beat(self) -> None:
        self._beats += 1
        self._is_quiet = False
        self._heartbeat = b""
        if self._subscriptions:
            self._wake()

    def _wake(self) -> None:
        """Wakes the subscribers that wait now.

        A subscriber that comes later looks before it waits.
        """
        self._news.set()
        self._news.clear()

    def _newest_heartbeat(self) -> bytes:
        if not self._heartbeat:
            data = encode(Heartbeat(self._complete_to, self._floor, self._clock.now_us()))
            self._heartbeat = rendered("heartbeat", vector_text(self._vector), data)
        return self._heartbeat

    # subscribers ------------------------------------------------------------

    def subscribe(
        self, after: Mapping[str, str] | None = None, seen: Collection[str] | None = None
    ) -> Subscription:
        """Returns a subscription from the event `after` on; the caller closes it.

        It names no namespaces but those of `seen` (None: all).

        If the id `after` cannot be resumed from, the subscription begins with a reset. Raises
        `RequestError` 503 if there are too many subscribers.
        """
        if len(self._subscriptions) >= self._max_subscribers:
            why = f"{self._max_subscribers} subscribers are connected to this instance already"
            raise RequestError(ProblemKind.TOO_MANY_SUBSCRIBERS, why)
        if after is not None and self._follows(after):
            subscription = Subscription(
                self, self._place_of(after), joined=self._log.end, after=after, seen=seen
            )
        else:
            reason = (
                "this subscription is new"
                if after is None
                else "what came after Last-Event-ID is not here any more"
            )
            subscription = Subscription(
                self, self._log.end, joined=self._log.end, opening=self._first_reset(reason), seen=seen
            )
        self._subscriptions.add(subscription)
        return subscription

    def _follows(self, after: Mapping[str, str]) -> bool:
        return after.keys() <= self._vector.keys() and all(
            self._has_all_after(region, after.get(region, "")) for region in self._vector
        )

    def _has_all_after(self, region: str, position: str) -> bool:
        """True if the log has all fences of the region that came after the position.

        Of a position of another epoch than the one that is read here, nobody knows what came after it.
        """
        since, newest = self._since[region], self._vector[region]
        is_of_the_epoch = epoch_of(position) == epoch_of(newest)
        return is_of_the_epoch and position_of(since) <= position_of(position) <= position_of(newest)

    def _place_of(self, after: Mapping[str, str]) -> int:
        """Returns the number of the first event that `after` does not cover.

        From the last reset on, no position of a vector goes back along the log, so a bisection finds it.
        """
        numbers = range(max(self._log.first, self._replayed_from), self._log.end)
        return numbers.start + bisect_left(
            numbers, True, key=lambda number: is_beyond(self._log[number].id, after)
        )

    def _first_reset(self, reason: str) -> bytes:
        # Later than every time that a clock within S of this one gave before now.
        floor = max(self._floor, self._clock.now_us() + self._lead_us)
        return rendered("reset", vector_text(self._vector), encode(Reset(floor, reason)))

    def take(self, subscription: Subscription) -> bytes:
        """Returns the bytes that a subscriber has not had yet, and moves its place; empty if none.

        Stops after the event with which `CHUNK_BYTES` are reached.
        """
        log, found, size = self._log, [subscription.take_opening()], 0
        if subscription.place < log.first:
            subscription.lose()
            return b""
        while subscription.place < log.end and size < CHUNK_BYTES:
            found.append(subscription.advance(log[subscription.place]))
            size += len(found[-1])
        # Only after the last event: a heartbeat says that everything up to its id has been sent.
        if subscription.place == log.end and subscription.beats != self._beats:
            subscription.beats = self._beats
            found.append(self._newest_heartbeat())
        return b"".join(found)

    async def news(self) -> None:
        """Waits until there may be something to take.

        A subscriber that looks and then waits, without another await between, misses nothing.
        """
        await self._news.wait()

    def leave(self, subscription: Subscription, *, lost: bool) -> None:
        """Takes a subscription out that is over; for `Subscription` alone."""
        if subscription in self._subscriptions:
            self._subscriptions.discard(subscription)
            self._lost += lost
            self._wake()
