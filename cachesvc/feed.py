"""The two loops that keep an instance coherent: it reads every region's fences, and helps to consume its region's changes.

A loop never ends by a failure: what a queue cannot do now is logged once, counted, and tried again after a pause. Meanwhile the
watermark stands still, so the staleness bound grows and the read path turns strict by itself (COHERENCE.md, "Watermark").
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from msgspec import Struct

from cachesvc.clock import Clock
from cachesvc.errors import TierError
from cachesvc.fences import Fences
from cachesvc.interfaces import Changes, FenceStream, OpenChange
from cachesvc.invalidate import Applier, Merger
from cachesvc.model import Fence

log = logging.getLogger(__name__)

TAKE = 500
"""Changes of one batch: one script call per cell."""
WAIT_SECONDS = 0.25
PAUSE_SECONDS = 0.2
RECLAIM_IDLE_SECONDS = 1.0
"""A change that its consumer left open for this long goes to another."""


class FeedTally(Struct):
    """What the loops count."""

    changes: int = 0
    """Changes applied by this instance as a consumer."""
    redone: int = 0
    """Of these, announced by an invalidate call that did not finish in its time."""
    dead_letters: int = 0
    fences: int = 0
    """Fences read from the streams of all regions, own ones included."""
    gaps: int = 0
    failures: int = 0


class FenceFeed:
    """Reads one region's `fences` from its own position and merges them; a gap raises the floor."""

    def __init__(self, stream: FenceStream, fences: Fences, merger: Merger, clock: Clock, skew_us: int, tally: FeedTally) -> None:
        self._stream = stream
        self._fences = fences
        self._merger = merger
        self._clock = clock
        self._lead_us = 2 * skew_us + 1000
        self._tally = tally
        self.region = stream.region
        self.tried = False
        """The first attempt to open the stream has succeeded or failed: the instance may say that it is ready."""
        self.is_open = False

    async def run(self) -> None:
        await _persist(self._open, f"fences of {self.region}", self._tally)
        while True:
            await _persist(self._read, f"fences of {self.region}", self._tally)

    async def _open(self) -> None:
        try:
            start = await self._stream.open()
            self._fences.raise_floor(start.floor)
            self.is_open = True
        finally:
            self.tried = True

    async def _read(self) -> None:
        batch = await self._stream.read(wait_seconds=WAIT_SECONDS)
        if batch.gap:
            self._tally.gaps += 1
            self._fences.raise_floor(self._clock.now_us() + self._lead_us)
            log.warning("fences of region %s were lost: everything cached before now is refused", self.region)
        self._tally.fences += len(batch.fences)
        if batch.fences:
            self._merger.merge(batch.fences)
        if batch.complete_to is not None:
            self._fences.heartbeat(self.region, batch.complete_to)


class Consumer:
    """One member of the region's consumer group: takes changes, applies them, publishes the fences, acknowledges.

    A change that an invalidate call holds is left to it until its time is over; then it is done here, if it is still open.
    """

    def __init__(
        self,
        name: str,
        changes: Changes,
        stream: FenceStream,
        applier: Applier,
        merger: Merger,
        clock: Clock,
        heartbeat_seconds: float,
        tally: FeedTally,
    ) -> None:
        self._name = name
        self._changes = changes
        self._stream = stream
        self._applier = applier
        self._merger = merger
        self._clock = clock
        self._heartbeat_seconds = heartbeat_seconds
        self._tally = tally
        self._fenced: set[str] = set()
        """Open changes whose fallback fence this consumer has published."""

    async def run(self) -> None:
        while True:
            await _persist(self._take, "changes", self._tally)

    async def run_heartbeats(self) -> None:
        while True:
            await _persist(self._beat, "heartbeat", self._tally)
            await asyncio.sleep(self._heartbeat_seconds)

    async def run_reclaiming(self) -> None:
        """Look after what was left open: by this consumer (held, home out of reach) and by dead ones."""
        while True:
            await asyncio.sleep(RECLAIM_IDLE_SECONDS)
            await _persist(self._reclaim, "open changes", self._tally)

    async def _take(self) -> None:
        await self._do(await self._changes.take(self._name, count=TAKE, wait_seconds=WAIT_SECONDS))

    async def _reclaim(self) -> None:
        await self._do(await self._changes.reclaim(self._name, idle_seconds=RECLAIM_IDLE_SECONDS, count=TAKE))

    async def _beat(self) -> None:
        await self._stream.heartbeat(await self._changes.complete_to())

    async def _do(self, taken: Sequence[OpenChange]) -> None:
        now = self._clock.now_us()
        for unreadable in (item for item in taken if item.change is None):
            self._tally.dead_letters += 1
            log.error("change %s of the queue cannot be read and was buried: %s", unreadable.id, unreadable.reason)
            await self._changes.bury(unreadable)
        due = [(item, item.change) for item in taken if item.change is not None and item.held_until_us <= now]
        if not due:
            return
        applied = await self._applier.apply([change for _, change in due])
        missed = applied.missed
        still_open = {
            item.id: digests for item, change in due if missed and (digests := missed & {t.digest for t in change.targets()})
        }
        fences = self._news(applied.fences, still_open)
        self._merger.merge(fences, own=True)
        await self._stream.publish(fences, done=[item.id for item, _ in due if item.id not in still_open])
        self._fenced = (self._fenced - {item.id for item, _ in due}) | still_open.keys()
        self._tally.changes += len(due) - len(still_open)
        self._tally.redone += sum(item.held_until_us > 0 for item, _ in due if item.id not in still_open)

    def _news(self, fences: Sequence[Fence], still_open: Mapping[str, frozenset[int]]) -> Sequence[Fence]:
        """Without the fallback fences that went out before: a home that stays away must not have its keys fenced anew, with a
        later `at`, at every try."""
        if not still_open:
            return fences
        new = frozenset[int]().union(*(digests for id_, digests in still_open.items() if id_ not in self._fenced))
        return [fence for fence in fences if not fence.unapplied or fence.digest in new]


async def _persist(work: Callable[[], Awaitable[None]], what: str, tally: FeedTally) -> None:
    """Do it until it succeeds. Logged once per outage."""
    failed = False
    while True:
        try:
            await work()
        except TierError as error:
            tally.failures += 1
            if not failed:
                log.warning("%s: out of reach, trying again until it answers (%s)", what, error.why)
            failed = True
            await asyncio.sleep(PAUSE_SECONDS)
        else:
            if failed:
                log.info("%s: answers again", what)
            return
