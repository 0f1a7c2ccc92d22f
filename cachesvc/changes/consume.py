"""A consumer of a region's changes: applies them, publishes their fences, and closes them.

It is one of a consumer group, and runs three loops. The first takes new changes as they come. The
second looks once a second for changes that were left open (held by an invalidate call that died, or
taken by a consumer that died) and for changes that were parked because a home cell was out of
reach. The third sends heartbeats, which say how far the group is.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence, Set

from msgspec import Struct
from msgspec.structs import replace

from cachesvc.changes.apply import Applier
from cachesvc.changes.audit import audit_of
from cachesvc.changes.contract import (
    Changes,
    Completion,
    Done,
    FenceStream,
    Missing,
    OpenChange,
    OtherQueueError,
)
from cachesvc.changes.delays import ChangeLags
from cachesvc.changes.rivals import Rivals
from cachesvc.coherence.merger import Merger
from cachesvc.model.change import Change
from cachesvc.model.clock import Clock
from cachesvc.model.errors import TierError
from cachesvc.model.fence import Fence
from cachesvc.telemetry.loops import Loop
from cachesvc.telemetry.outage import Outage
from cachesvc.telemetry.traces.trace import Recorder, SpanContext, linked, span

log = logging.getLogger(__name__)

TAKE = 500
"""Changes that are taken at once, at most."""
MOST_TARGETS = 8192
"""Targets that are applied and published together, unless a single change has more.

A batch of changes with more targets is applied part by part, and each part is closed by itself: if
a later part fails, the earlier ones are not done again."""
WAIT_SECONDS = 0.25
"""One call for new changes waits this long."""
RECLAIM_IDLE_SECONDS = 1.0
"""A change that its consumer left open for this long goes to another consumer; a parked
change is tried again."""


class ConsumerTally(Struct):
    """The counters of a consumer."""

    changes: int = 0
    """Changes applied by this instance as a consumer."""
    redone: int = 0
    """Those of `changes` that an invalidate call had announced and did not finish in its time."""
    parked: int = 0
    """Times that a change was parked (again), because a home cell was out of reach."""
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
    backlog: int = 0
    """Changes accepted and not acknowledged, when this consumer last looked."""
    waiting: int = 0
    """Changes parked, when this consumer last looked."""
    buried: int = 0
    """Changes on the dead-letter stream, when this consumer last looked."""


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
        namespaces: Sequence[str],
        tally: ConsumerTally,
        lags: ChangeLags,
        rivals: Rivals,
        recorder: Recorder | None = None,
    ) -> None:
        """Makes a consumer that does nothing until one of its loops runs.

        `recorder` records spans: the work on a change is a span only if its producer's trace is sampled.
        """
        self._name = name
        self._changes = changes
        self._stream = stream
        self._applier = applier
        self._merger = merger
        self._clock = clock
        self._heartbeat_seconds = heartbeat_seconds
        self._skew_us = skew_us
        self._namespaces = namespaces
        self._tally = tally
        self._lags = lags
        self._rivals = rivals
        self._recorder = recorder
        self._has_looked = False
        self._epoch = ""
        self._lost = 0
        """The changes that were lost up to this epoch."""
        outage = Outage("the queue of changes", log)
        self.taking, self.beating, self.reclaiming = (
            Loop(name, outage=outage, failed=self._failed)
            for name in ("consumer of changes", "heartbeats", "open changes")
        )
        self._misuse = Outage("a producer of changes", log)
        self._oldest = ("", 0)
        """The oldest open change at the last heartbeat, and the `complete_to` sent for it."""
        self._fenced: set[str] = set()
        """Ids of parked changes whose fallback fence this consumer has published."""
        self.has_tried = False
        """True once the queue has answered a call for new changes, or was found out of reach.

        False for ever if the call fails unexpectedly, as with a library of an older version: then this
        instance can take nothing, and is not ready.
        """

    def __repr__(self) -> str:
        return f"<Consumer {self._name} [{self._tally.changes} changes applied]>"

    async def run(self) -> None:
        """Takes and applies new changes until it is cancelled."""
        await self.taking.run(self._take)

    async def run_heartbeats(self) -> None:
        """Sends a heartbeat in every interval until it is cancelled."""
        await self.beating.run(self._beat, every_seconds=self._heartbeat_seconds)

    async def run_reclaiming(self) -> None:
        """Applies open and parked changes that were left, once a second, until it is cancelled."""
        await asyncio.sleep(RECLAIM_IDLE_SECONDS)
        await self.reclaiming.run(self._reclaim, every_seconds=RECLAIM_IDLE_SECONDS)

    async def _take(self) -> None:
        try:
            if not self._has_looked:
                await self._look()
        except TierError:
            self.has_tried = True
            raise
        self._rivals.check_deployment()  # an instance that must not take changes is not ready
        try:
            taken = await self._changes.take(self._name, count=TAKE, wait_seconds=WAIT_SECONDS)
        except TierError:
            self.has_tried = True
            raise
        self.has_tried = True
        _raise_first(await self._do_each(taken))

    async def _reclaim(self) -> None:
        self._rivals.check_deployment()
        changes, idle = self._changes, RECLAIM_IDLE_SECONDS
        defects = await self._do_each(await changes.reclaim(self._name, idle_seconds=idle, count=TAKE))
        parked = await changes.parked(self._name, idle_seconds=idle, count=TAKE)
        defects += await self._do_each(parked, again=True)
        count = await self._changes.open_count()
        self._tally.backlog, self._tally.waiting, self._tally.buried = count.backlog, count.parked, count.dead
        _raise_first(defects)

    def _failed(self) -> None:
        self._tally.failures += 1

    # heartbeats ------------------------------------------------------------

    async def _beat(self) -> None:
        asked_us = self._clock.now_us()
        completion = await self._look()
        self._rivals.check_deployment()
        try:
            self._rivals.check_queue()
            if completion.epoch != self._epoch:
                await self._meet_epoch(completion)
            await self._stream.heartbeat(self._complete_to(completion, asked_us), completion.epoch)
        except OtherQueueError:
            await self._changes.reconnect()
            await self._stream.reconnect()
            raise

    async def _look(self) -> Completion:
        """Returns how far the group is, and takes in what the queue says of rivals."""
        if not self._has_looked:  # only now the cells are asked who they are, and the queue is told that
            await self._rivals.meet(await self._changes.completion())
        completion = await self._changes.completion(self._rivals.me)
        await self._rivals.meet(completion)
        self._has_looked = True
        return completion

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

    async def _do_each(self, taken: Sequence[OpenChange], *, again: bool = False) -> list[Exception]:
        """Does the changes together or, if that fails by a defect, each by itself.

        Returns the defects. A change that cannot be done stays open and stops `complete_to`; it must
        not keep others open, which come with it at every try. Raises `TierError`.
        """
        try:
            await self._do(taken, again=again)
        except TierError:
            raise
        except Exception as defect:  # noqa: BLE001  whatever it is, it may be of one change alone
            if len(taken) <= 1:
                return [defect]
            return [one for item in taken for one in await self._do_each([item], again=again)]
        return []

    async def _do(self, taken: Sequence[OpenChange], *, again: bool = False) -> None:
        """Applies the changes that are due, buries the faulty ones, and closes the empty ones.

        `again`: the changes were parked, so their fences are out and their audit is written.
        """
        now_us = self._clock.now_us()
        due = [item for item in taken if item.held_until_us <= now_us]
        parked = await self._apply([item for item in due if item.changes], again)
        for item in due:
            if item.reason and item.id not in parked:
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

    async def _apply(self, items: Sequence[OpenChange], again: bool) -> Set[str]:
        """Applies changes, and returns the ids of those that some home cell has missed.

        The missed changes are parked, even those that are to be buried once their home cells have them.
        """
        missed: set[str] = set()
        for part in _parts(items):
            missed |= await self._apply_part(part, again)
        return missed

    async def _apply_part(self, items: Sequence[OpenChange], again: bool) -> Set[str]:
        """Applies changes, new ones in all their homes and parked ones where they are missing."""
        causes = [item.trace for item in items if item.trace is not None and item.trace.sampled]
        # Retries get no span: one per second, while a home is away, would bury the producer's trace.
        # The merge of the final try is traced.
        with linked(None if again else self._recorder, "cache.apply", "consumer", causes) as applying:
            retried = {
                item.id: item.missing
                for item in items
                if item.missing and self._applier.can_retry(item.missing)
            }
            whole = [item for item in items if item.id not in retried]
            changes = [change for item in whole for change in item.changes]
            applied = await self._applier.apply(changes)
            applied.describe(applying, changes)
            digests = iter(applied.named)
            named = {item.id: [digest for _ in item.changes for digest in next(digests)] for item in whole}
            done = [
                applied.done(
                    item.id,
                    named[item.id],
                    None if again else audit_of(item.changes, item.source, self._name),
                )
                for item in whole
            ]
            fences = list(applied.fences)
            parts = await asyncio.gather(
                *(
                    self._applier.retry(item.changes, missing)
                    for item in items
                    if (missing := retried.get(item.id))
                )
            )
            for item, part in zip((item for item in items if item.id in retried), parts, strict=True):
                named[item.id] = [digest for targets in part.named for digest in targets]
                done.append(_done_again(part.done(item.id, named[item.id]), retried[item.id]))
                fences += part.fences
            return await self._publish(items, done, fences, named, causes, again)

    async def _publish(
        self,
        items: Sequence[OpenChange],
        done: Sequence[Done],
        fences: Sequence[Fence],
        named: Mapping[str, Sequence[int]],
        causes: Sequence[SpanContext],
        again: bool,
    ) -> Set[str]:
        """Publishes the fences, and closes or parks the changes, in one transaction.

        `named` has the digests of each change's targets. This runs under the span of applying, which covers
        all the work that was asked for.
        """
        missed = {one.id for one in done if one.missed}
        to_bury = {item.id for item in items if item.reason} - missed
        fences = self._news(fences, missed, named)
        self._merger.merge(fences, own=True)
        with span("cache.publish", "producer"):
            position = await self._stream.publish(
                fences, done=[one for one in done if one.id not in to_bury], causes=causes
            )
        if not again:
            self._lags.note_published(named, position)
        self._fenced = (self._fenced - named.keys()) | missed
        self._tally.changes += len(done) - len(missed)
        self._tally.redone += sum(item.held_until_us > 0 and item.id not in missed for item in items)
        self._tally.parked += len(missed)
        return missed

    def _news(
        self, fences: Sequence[Fence], missed: Set[str], named: Mapping[str, Sequence[int]]
    ) -> Sequence[Fence]:
        """Returns the fences without the fallback fences that went out before.

        A home cell that stays away must not have its keys fenced anew, with a later `at`, at every try.
        """
        if not missed:
            return fences
        new = {digest for id_ in missed - self._fenced for digest in named[id_]}
        return [fence for fence in fences if not fence.unapplied or fence.digest in new]


def _raise_first(defects: Sequence[Exception]) -> None:
    if defects:
        raise defects[0]


def _done_again(done: Done, missing: Missing) -> Done:
    """Returns a retried change as done, with its first `at` and all cells that took it."""
    took = (*missing.took, *(cell for cell in done.cells if cell not in missing.took))
    return replace(done, cells=took, at=missing.at if done.missed else 0)


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
