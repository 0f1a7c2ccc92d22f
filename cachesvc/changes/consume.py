"""A consumer of a region's changes: applies them, publishes their fences, and closes them.

It is one of a consumer group, and runs three loops. The first takes new changes as they come. The
second looks at the queue once a second: how far is the group, what is open, who else is there?
With the look it sends a heartbeat, unless another consumer of the region does. The third does what
a look has found left: changes that were left open (held by an invalidate call that died, or taken
by a consumer that died) and targets that were parked because a home cell was out of reach. All of
them rest while the first worker of the host does all that for the others.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from cachesvc.changes.apply import Applier
from cachesvc.changes.audit import audit_of
from cachesvc.changes.contract import (
    Attendance,
    Beat,
    Changes,
    Completion,
    FenceStream,
    OpenChange,
    OpenCount,
    OtherQueueError,
    Parked,
    position_of,
)
from cachesvc.changes.delays import ChangeLags
from cachesvc.changes.rivals import Rivals
from cachesvc.coherence.merger import Merger
from cachesvc.model.change import Change
from cachesvc.model.clock import MILLISECONDS, SECONDS, Clock
from cachesvc.model.errors import TierError, TierTimeoutError, UnreadableAnswerError
from cachesvc.model.requests import Author
from cachesvc.telemetry.loops import Loop
from cachesvc.telemetry.outage import Outage
from cachesvc.telemetry.traces.trace import Recorder, linked, span

log = logging.getLogger(__name__)

TAKE = 500
"""Changes that are taken at once, at most."""
MOST_TARGETS = 8192
"""Targets that are applied and published together, unless a single change has more.

A batch of changes with more targets is applied part by part, and each part is closed by itself: if
a later part fails, the earlier ones are not done again."""
WAIT_SECONDS = 5.0
"""One call for new changes waits this long; the first one does not wait.

It ends at once if a look fails meanwhile: its connection may be dead, too."""
LOOK_SECONDS = 1.0
"""A consumer looks at the queue so often at least, whatever heartbeats its instance hears."""
RECENT = 0.8
"""A heartbeat is recent for this share of the interval, as a look is for its own.

It is less than 1: a consumer that looks after a whole interval finds its own last heartbeat due. So
while it lives, two heartbeats are no further apart than its interval. When the consumer that sends
them dies, they are no further apart than 1.8 intervals, whichever consumer looks next."""
BEATS_APART = 4
"""Looks in a row at which a consumer and its instance's feed may be at two queues.

Then the consumer looks the queue's name up anew. After a failover one of the two is the first to
notice."""
RECLAIM_IDLE_SECONDS = 1.0
"""A change that its consumer left open for this long goes to another consumer; a cell for
which targets are parked is tried again."""

DEPARTED_SECONDS = 3600.0
"""A consumer that has nothing open and was idle for this long leaves the group.

Instances that are replaced have new names (pods, host names), and each would stay in the group for
ever. An hour is longer than a restart or a cut of the network, and to remove one that lives costs
nothing.
"""
FORGET_SECONDS = 60.0
"""The time between two looks for such consumers."""


class ConsumerTally(Struct):
    """The counters of a consumer, and what its queue held at its last look.

    While it rests, it does not know what the queue holds: that is None then, and no sample.
    """

    changes: int = 0
    """Changes applied by this instance as a consumer."""
    redone: int = 0
    """Those of `changes` that an invalidate call had announced and did not finish in its time."""
    parked: int = 0
    """Changes that were parked, because a home cell was out of reach."""
    skipped: int = 0
    """Events that changed nothing: snapshot rows, tombstones, tables that no namespace names."""
    dead_letters: int = 0
    """Changes that were buried on the dead-letter stream."""
    epochs: int = 0
    """Times that `changes` was found to be another stream than before: every namespace
    was fenced."""
    lost: int = 0
    """Changes that left `changes` while this instance ran and that no instance had closed."""
    failures: int = 0
    """Failed exchanges with the queue."""
    unreadable: int = 0
    """Those of `failures` whose answer could not be read."""
    backlog: int | None = None
    """Changes accepted and not acknowledged."""
    waiting: int | None = None
    """Targets parked, once per cell."""
    overflowed: int | None = None
    """Cells for which more was parked than the queue keeps."""
    paced: int | None = None
    """Paced fences that the queue keeps."""
    paced_given_up: int | None = None
    """Paced fences that the queue had no room for."""
    buried: int | None = None
    """Changes on the dead-letter stream."""


class Consumer:
    """One consumer of a region's changes.

    A change that an invalidate call holds is left to that call until its time is over; if the change is
    still open then, it is applied here.
    """

    def __init__(
        self,
        name: str,
        *,
        changes: Changes,
        stream: FenceStream,
        applier: Applier,
        merger: Merger,
        clock: Clock,
        heartbeat_seconds: float,
        skew_us: int,
        namespaces: Iterable[str],
        tally: ConsumerTally,
        lags: ChangeLags,
        rivals: Rivals,
        recorder: Recorder | None = None,
        is_spared: Callable[[], bool] = lambda: False,
        heard_at: Callable[[], float] = lambda: float("-inf"),
    ) -> None:
        """Makes a consumer that does nothing until one of its loops runs.

        It rests while `is_spared`: another consumer of this host works for it. `heard_at`: when the
        instance's own feed has heard a heartbeat of the region last, on the loop's clock.

        `recorder` records spans: the work on a change is a span only if its producer's trace is sampled.
        """
        self._name = name
        self._changes = changes
        self._stream = stream
        self._applier = applier
        self._merger = merger
        self._clock = clock
        self._heartbeat_seconds = heartbeat_seconds
        self._recent_us = round(RECENT * heartbeat_seconds * SECONDS)
        self._heard_at = heard_at
        self._skew_us = skew_us
        self._namespaces = dict.fromkeys(namespaces)
        self._tally = tally
        self._lags = lags
        self._rivals = rivals
        self._recorder = recorder
        self._is_spared = is_spared
        self._has_looked = False
        self._looked_at = float("-inf")
        """When the last look began that the queue has answered, on the loop's clock."""
        self._left = asyncio.Event()
        """Set while something may be left to do that the last look has found."""
        self._waiting: asyncio.Timeout | None = None
        """The running wait for new changes, which ends when it is due."""
        self._beats_apart = 0
        """The looks, one after the other, at which this instance's feed was at another queue."""
        self._epoch = self._queue = ""
        """The epochs of `changes` and `fences` at the last turn that ended well."""
        self._lost = 0
        """The changes that were lost up to this epoch."""
        outage = Outage("the queue of changes", log)
        self.taking, self.beating, self.reclaiming = (
            Loop(name, outage=outage, failed=self._failed)
            for name in ("consumer of changes", "heartbeats", "open changes")
        )
        self._forgets_at = float("-inf")
        """When consumers that have left are looked for, on the loop's clock."""
        self._misuse = Outage("a producer of changes", log)
        self._oldest = ("", 0)
        """The oldest open change at the last heartbeat, and the `complete_to` sent for it."""
        self._overflow = Outage("keeping what cells have missed", log)
        self.has_tried = False
        """True once the queue has answered a call for new changes, or was found out of reach.

        False for ever if the call fails unexpectedly, as with a library of an older version: then this
        instance can take nothing, and is not ready.
        """

    def __repr__(self) -> str:
        return f"<Consumer {self._name} [{self._tally.changes} changes applied]>"

    def take(self, namespaces: Iterable[str]) -> None:
        """Knows these namespaces, too. One that is gone stays known, as it may come back."""
        self._namespaces.update(dict.fromkeys(namespaces))

    async def run(self) -> None:
        """Takes and applies new changes until it is cancelled."""
        await self.taking.run(self._take)

    async def run_heartbeats(self) -> None:
        """Looks at the queue, and sends a heartbeat in every interval, until it is cancelled."""
        await self.beating.run(self._beat, every_seconds=min(self._heartbeat_seconds, LOOK_SECONDS))

    async def run_reclaiming(self) -> None:
        """Applies what looks find left open or parked, until it is cancelled."""
        with self.reclaiming.alive():
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._left.wait()
                await self.reclaiming.persist(self._reclaim)

    def _rests(self) -> bool:
        """True if nothing is to be asked of the queue now.

        After a rest it looks again who else is there, before it takes anything.
        """
        if not (self.has_tried and self._is_spared()):
            return False
        if self._has_looked:
            self._has_looked = False
            self._rivals.rest()
            self._left.clear()
            self._queue = ""
            self._note(None)
        return True

    async def _take(self) -> None:
        if self._rests():
            await asyncio.sleep(self._heartbeat_seconds)
            return
        try:
            if not self._has_looked:
                await self._look()
        except TierError:
            self.has_tried = True
            raise
        self._rivals.check_deployment()  # an instance that must not take changes is not ready
        try:
            taken = await self._next(WAIT_SECONDS if self.has_tried else 0)
        except TierError:
            self.has_tried = True
            raise
        self.has_tried = True
        _raise_first(await self._do_each(taken))

    async def _next(self, wait_seconds: float) -> Sequence[OpenChange]:
        """Returns new changes; none if none come in this time. Raises `TierError`."""
        try:
            async with asyncio.timeout(None) as self._waiting:
                return await self._changes.take(self._name, count=TAKE, wait_seconds=wait_seconds)
        except TimeoutError as error:
            raise TierTimeoutError("queue of changes", "a look has failed during the wait") from error
        finally:
            self._waiting = None

    async def _reclaim(self) -> None:
        """Does what is left; what fails is tried again."""
        if self._rests():
            return
        if self._left.is_set():
            self._left.clear()
            try:
                await self._do_left()
            except Exception:
                self._left.set()
                raise
        if (now := asyncio.get_running_loop().time()) >= self._forgets_at:
            await self._changes.forget_consumers(idle_seconds=DEPARTED_SECONDS)
            self._forgets_at = now + FORGET_SECONDS

    async def _do_left(self) -> None:
        self._rivals.check_deployment()
        idle = RECLAIM_IDLE_SECONDS
        defects = await self._do_each(await self._changes.reclaim(self._name, idle_seconds=idle, count=TAKE))
        await self._retry()
        _raise_first(defects)

    async def _retry(self) -> None:
        """Tries what is parked, and goes on for as long as cells take something.

        So a cell that is away costs a try per second in its region, and one that is back gets its
        changes at once.
        """
        while parked := await self._changes.parked(idle_seconds=RECLAIM_IDLE_SECONDS, count=TAKE):
            again = [one for one in parked if self._applier.can_retry(one)]
            moved = [one for one in parked if not self._applier.can_retry(one)]
            taken = await self._applier.retry(again, self._namespaces)
            if taken:
                await self._stream.settle(taken)
            if moved:
                await self._apply_anew(moved)
            if not (taken or moved):
                return

    async def _apply_anew(self, moved: Sequence[Parked]) -> None:
        """Applies targets in all their homes of the present placement."""
        applied = await self._applier.apply([one.change for one in moved])
        self._merger.merge(applied.fences, own=True)
        await self._stream.publish(applied.fences)
        missed = [one for parked in applied.parked.values() for one in parked]
        await self._stream.settle(moved, anew=missed)

    def _note(self, count: OpenCount | None) -> None:
        """Notes what the queue holds; None: it is not known any more."""
        tally = self._tally
        tally.backlog = tally.waiting = tally.overflowed = None
        tally.paced = tally.paced_given_up = tally.buried = None
        if count is not None:
            tally.backlog, tally.waiting, tally.buried = count.backlog, count.parked, count.dead
            tally.overflowed, tally.paced = count.overflowed, count.paced
            tally.paced_given_up = count.paced_given_up
        self._tell_overflow(tally.overflowed or 0)

    def _tell_overflow(self, cells: int) -> None:
        if cells:
            self._overflow.failed(
                f"too much for {cells} cells: when such a cell is back, all it holds is fenced"
            )
        elif self._overflow.is_on:
            self._overflow.worked()

    def _failed(self, error: Exception) -> None:
        self._tally.failures += 1
        self._tally.unreadable += isinstance(error, UnreadableAnswerError)

    # heartbeats ------------------------------------------------------------

    async def _beat(self) -> None:
        if self._rests() or self._may_pass_a_look():
            return
        asked_us = self._clock.now_us()
        completion = await self._look(self._beat_at(asked_us))
        await self._follow_own_feed(completion)
        self._rivals.check_deployment()
        try:
            await self._rivals.check_queue()
            if completion.epoch != self._epoch:
                await self._meet_epoch(completion)
            complete_to = self._complete_to(completion, asked_us)
            if self._rivals.keeps_unannounced():
                return  # a heartbeat would vouch for changes that are in no queue yet
            if not completion.has_beaten:
                await self._stream.heartbeat(complete_to, completion.epoch, unless_beaten_us=self._recent_us)
            self._queue = completion.queue
        except OtherQueueError:
            await self._changes.reconnect()
            await self._stream.reconnect()
            raise

    def _may_pass_a_look(self) -> bool:
        """True if the own feed hears heartbeats, and the last look is recent."""
        now = asyncio.get_running_loop().time()
        hears = now - self._heard_at() < RECENT * self._heartbeat_seconds
        return hears and not self._beats_apart and now - self._looked_at < RECENT * LOOK_SECONDS

    def _beat_at(self, now_us: int) -> Beat:
        """Returns what lets the queue send a heartbeat with a look, unless rivals bar that."""
        epoch = self._epoch if self._rivals.is_alone() else ""
        return Beat(self._recent_us, now_us + self._skew_us, epoch, self._queue, self._oldest[0])

    async def _follow_own_feed(self, completion: Completion) -> None:
        """Looks the queue's name up anew if the own feed has long been at another server.

        Its connection may lead to a server that the name has left and that lives on, while the feed's
        leads to the new one. (The other way about, the feed gets no heartbeats, and leaves.)
        """
        is_apart = self._stream.epoch not in ("", completion.queue)
        self._beats_apart = self._beats_apart + 1 if is_apart else 0
        if self._beats_apart >= BEATS_APART:
            self._beats_apart = 0
            await self._changes.reconnect()

    async def _look(self, beat: Beat | None = None) -> Completion:
        """Returns how far the group is; takes in what is left, and what the queue says of rivals."""
        if not self._has_looked:  # only now the cells are asked who they are, and the queue is told that
            await self._rivals.meet(await self._completion())
        began = asyncio.get_running_loop().time()
        completion = await self._completion(self._rivals.me, beat)
        await self._rivals.meet(completion)
        self._has_looked, self._looked_at = True, began
        self._note(completion.count)
        if _leaves_something(completion):
            self._left.set()
        return completion

    async def _completion(self, me: Attendance | None = None, beat: Beat | None = None) -> Completion:
        """Asks the queue; if it does not answer, the wait for new changes ends as well."""
        try:
            return await self._changes.completion(me, beat)
        except TierError:
            if self._waiting is not None and not self._waiting.expired():
                self._waiting.reschedule(asyncio.get_running_loop().time())
            raise

    def _complete_to(self, completion: Completion, asked_us: int) -> int:
        """Returns the time to send, which no wrong clock of the queue moves past an open change.

        - A clock that is ahead would hide for how long a change is open: then the time is counted back from
          the own clock.
        - A clock that is set back gives later changes earlier ids, and the same change another age: while
          one change is the oldest, the time stands still.
        """
        complete_to = completion.complete_to
        if completion.now_us > self._clock.now_us() + self._skew_us:
            complete_to = min(complete_to, asked_us - (completion.now_us - complete_to))
        oldest, sent_us = self._oldest
        if completion.oldest and completion.oldest == oldest:
            complete_to = min(complete_to, sent_us)
        self._oldest = (completion.oldest, complete_to)
        return complete_to

    async def _meet_epoch(self, completion: Completion) -> None:
        """Fences every namespace if the `changes` stream may have lost changes it had accepted.

        That happens before a heartbeat claims that everything is done.
        """
        lost = completion.lost - self._lost if self._epoch else 0
        if not completion.announced:
            log.log(
                logging.WARNING if self._epoch else logging.INFO,
                f"{lost} changes left the region's stream and were not applied: all is fenced. "
                "Nobody but cachesvc may take anything out of `changes` (XTRIM, XDEL, XADD with MAXLEN)"
                if lost > 0
                else "the region's stream of changes is a new one: all is fenced, "
                "in case changes were lost with the old one",
            )
            everything = [Change(name, all=True) for name in self._namespaces]
            applied = await self._applier.apply(everything)
            self._merger.merge(applied.fences, own=True)
            await self._stream.announce(applied.fences, completion.epoch)
            self._tally.epochs += 1
        self._tally.lost += max(lost, 0)
        self._epoch, self._lost = completion.epoch, completion.lost

    # changes ------------------------------------------------------------

    async def _do_each(self, taken: Sequence[OpenChange]) -> list[Exception]:
        """Does the changes together or, if that fails by a defect, each by itself.

        Returns the defects. A change that cannot be done stays open and stops `complete_to`; it must
        not keep others open, which come with it at every try. Raises `TierError`.
        """
        try:
            await self._do(taken)
        except TierError:
            raise
        except Exception as defect:  # noqa: BLE001  whatever it is, it may be of one change alone
            if len(taken) <= 1:
                return [defect]
            return [one for item in taken for one in await self._do_each([item])]
        return []

    async def _do(self, taken: Sequence[OpenChange]) -> None:
        """Applies the changes that are due, buries the faulty ones, and closes the empty ones."""
        now_us = self._clock.now_us()
        due = [item for item in taken if item.held_until_us <= now_us]
        for part in _parts([item for item in due if item.changes]):
            await self._apply(part)
        for item in due:
            if item.reason:
                self._tally.dead_letters += 1
                # The reason may quote keys, so it is not logged; it stands beside the event on the
                # dead-letter stream.
                self._misuse.failed(f"change {item.id} is out of rule and was buried, see dead letters")
                await self._changes.bury(item)
        if self._misuse.is_on and due and not any(item.reason for item in due):
            self._misuse.worked()
        if nothing := [item.id for item in due if not (item.changes or item.reason)]:
            self._tally.skipped += len(nothing)
            await self._changes.acknowledge(nothing)

    async def _apply(self, items: Sequence[OpenChange]) -> None:
        """Applies changes, publishes their fences, and closes the changes in the same transaction.

        What home cells have missed is parked in it, also of a change that is to be buried. The fences
        are published under the span of applying, which covers all the work that was asked for.
        """
        causes = [item.trace for item in items if item.trace is not None and item.trace.sampled]
        with linked(self._recorder, "cache.apply", "consumer", causes) as applying:
            changes = [change for item in items for change in item.changes]
            applied = await self._applier.apply(changes)
            applied.describe(applying, changes)
            digests = iter(applied.named)
            done = [
                replace(
                    applied.done(
                        item.id,
                        [digest for _ in item.changes for digest in next(digests)],
                        audit_of(item.changes, Author(says=item.source), self._name),
                    ),
                    stays_open=bool(item.reason),
                )
                for item in items
            ]
            self._merger.merge(applied.fences, own=True)
            with span("cache.publish", "producer"):
                position = await self._stream.publish(
                    applied.fences,
                    done=[one for one in done if one.parked or not one.stays_open],
                    causes=causes,
                )
        self._lags.note_published([item.id for item in items], position)
        missed = {one.id for one in done if one.parked}
        self._tally.changes += len(done) - len(missed)
        self._tally.redone += sum(item.held_until_us > 0 and item.id not in missed for item in items)
        self._tally.parked += len(missed)


def _leaves_something(completion: Completion) -> bool:
    """True if something may be parked, or open for longer than it should be.

    The id of a change is ahead of the queue's clock if that was set back: then nobody knows its age.
    """
    age_us = completion.now_us - position_of(completion.oldest)[0] * MILLISECONDS
    is_open = completion.oldest and not 0 <= age_us < RECLAIM_IDLE_SECONDS * SECONDS
    return bool(is_open or completion.count.parked)


def _raise_first(defects: Sequence[Exception]) -> None:
    if defects:
        raise defects[0]


def _parts(items: Sequence[OpenChange]) -> Iterator[Sequence[OpenChange]]:
    """Yields the changes in order, in parts of at most `MOST_TARGETS` targets."""
    start = targets = 0
    for place, item in enumerate(items):
        own = sum(len(change.keys) + len(change.tags) + change.all for change in item.changes)
        if place > start and targets + own > MOST_TARGETS:
            yield items[start:place]
            start, targets = place, 0
        targets += own
    if items:
        yield items[start:]
