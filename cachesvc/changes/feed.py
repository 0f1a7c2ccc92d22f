"""Reads every region's fence stream and merges it into this instance.

A feed also tells the broadcast's subscribers what it has merged, and reports to the queue how far
this instance is. Its loop never ends by a failure (`telemetry/loops.py`): a failure is logged once,
counted, and tried again after a pause. Meanwhile the watermark stands still, so the staleness bound
grows and the read path turns strict by itself (docs/coherence.md, "Watermark, staleness bound,
floor").
"""

import asyncio
import logging

from msgspec import Struct

from cachesvc.changes.broadcast.broadcast import Broadcast
from cachesvc.changes.contract import FenceBatch, Followed, epoch_of, position_of
from cachesvc.changes.delays import ChangeLags
from cachesvc.coherence.fences import Fences
from cachesvc.coherence.merger import Merger
from cachesvc.model.clock import MILLISECONDS, Clock
from cachesvc.model.errors import TierError, UnreadableAnswerError
from cachesvc.telemetry.loops import Loop
from cachesvc.telemetry.outage import Outage
from cachesvc.telemetry.traces.trace import Recorder, linked

log = logging.getLogger(__name__)

WAIT_SECONDS = 1.0
"""One read of a stream waits this long for new items. Heartbeats come sooner."""

REPORT_SECONDS = 0.9
"""The position is reported with the first heartbeat after so long: with every second one."""

SILENT_SECONDS = 5.0
"""A server without heartbeats for so long is left, and found again if it is the right one."""


class FeedTally(Struct):
    """The counters of all feeds."""

    fences: int = 0
    """Fences read from the streams of all regions, this instance's own included."""
    gaps: int = 0
    """Times that items of a stream were lost between two reads."""
    failures: int = 0
    """Failed exchanges with a queue."""
    unreadable: int = 0
    """Items that could not be read, each a gap, and answers that could not."""


class FenceFeed:
    """Reads one region's `fences` and merges them; a gap raises the floor."""

    def __init__(
        self,
        stream: Followed,
        fences: Fences,
        merger: Merger,
        broadcast: Broadcast,
        clock: Clock,
        skew_us: int,
        tally: FeedTally,
        lags: ChangeLags,
        recorder: Recorder | None = None,
    ) -> None:
        """Makes a feed that has not opened its stream.

        `recorder` records spans: a merge is a span only if the trace that the fence comes from is sampled.
        """
        self._stream = stream
        self._fences = fences
        self._merger = merger
        self._broadcast = broadcast
        self._clock = clock
        self._lead_us = 2 * skew_us + MILLISECONDS
        self._tally = tally
        self._lags = lags
        self._recorder = recorder
        self._tail = ""
        """The newest item when the stream was opened."""
        self._beat_at = 0.0
        """When a heartbeat last came, or the server was left for want of one, on the loop's clock."""
        self.heard_at = self._reported_at = float("-inf")
        """When a heartbeat came, and the position was reported, last, on the loop's clock."""
        self.region = stream.region
        self.loop = Loop(
            f"fence feed of {self.region}",
            outage=Outage(f"the feed of region {self.region}", log),
            failed=self._failed,
        )
        self.tried = False
        """True once the stream was opened, or the queue was found out of reach.

        An unexpected failure is no attempt: no later one can succeed either.
        """
        self.is_open = False
        self.has_caught_up = False
        """True once everything is merged that was on the stream when it was opened."""

    def __repr__(self) -> str:
        state = "has caught up" if self.has_caught_up else "reading" if self.is_open else "not open"
        return f"<FenceFeed of {self.region} [{state}]>"

    async def run(self) -> None:
        """Opens the stream, then reads and merges until it is cancelled."""
        with self.loop.alive():
            await self.loop.persist(self._open)
            while True:
                await self.loop.persist(self._read)

    async def _open(self) -> None:
        try:
            start = await self._stream.open()
            self._fences.raise_first_floor(start.floor)
            self._fences.note_queue(self.region, epoch_of(start.position))
            self._merger.merge(start.fences, region=self.region)
            self._tail = start.tail
            self._beat_at = asyncio.get_running_loop().time()
            self._broadcast.reset(
                self.region, start.position, self._fences.floor, "this instance has just begun to read"
            )
            self.is_open = True
        except TierError:
            self.tried = True
            raise
        self.tried = True

    async def _read(self) -> None:
        await self._leave_the_silent()
        batch = await self._stream.read(wait_seconds=WAIT_SECONDS)
        try:
            self._take_in(batch)
        except Exception:
            # The stream's position has passed this batch, and nobody knows how much of it is merged.
            # To go on reading without a gap would let a later heartbeat vouch for fences that are
            # not in force here.
            self._give_up(batch)
            raise
        now = asyncio.get_running_loop().time()
        is_due = batch.complete_to is not None and now - self._reported_at >= REPORT_SECONDS
        if batch.report or is_due:
            await self._stream.report(batch.position)
            self._reported_at = now

    async def _leave_the_silent(self) -> None:
        """Looks the queue's name up anew, if no heartbeat has come for `SILENT_SECONDS`.

        The consumers may have gone to another server by now, and this one need not refuse anything.
        """
        now = asyncio.get_running_loop().time()
        if now - self._beat_at >= SILENT_SECONDS:
            self._beat_at = now
            await self._stream.reconnect()

    def _take_in(self, batch: FenceBatch) -> None:
        if batch.gap:
            self._meet_gap()
            self._fences.note_queue(self.region, epoch_of(batch.position))
        self._tally.unreadable += batch.unreadable
        self._tally.fences += len(batch.fences)
        if batch.fences:
            self._merge(batch)
        if batch.complete_to is not None:
            self._beat_at = self.heard_at = asyncio.get_running_loop().time()
            self._fences.heartbeat(self.region, batch.complete_to)
        self._tell(batch)
        self.has_caught_up = self.has_caught_up or self._is_past_the_tail(batch.position)

    def _is_past_the_tail(self, position: str) -> bool:
        """True if everything is merged that was on the stream when it was opened.

        So it is in another epoch: the gap before it has raised the floor over all of that.
        """
        is_of_the_epoch = epoch_of(position) == epoch_of(self._tail)
        return not is_of_the_epoch or position_of(position) >= position_of(self._tail)

    def _give_up(self, batch: FenceBatch) -> None:
        """Treats a batch that could not be merged as lost."""
        self._meet_gap()
        self._broadcast.reset(
            self.region, batch.position, self._fences.floor, f"fences of region {self.region} were lost"
        )

    def _merge(self, batch: FenceBatch) -> None:
        """Merges a batch, in a span if it belongs to a sampled trace.

        Fences that were published before this instance had caught up came in time to the instances of that
        time: no span, no lag.
        """
        with linked(
            self._recorder, "cache.merge", "consumer", batch.causes if self.has_caught_up else ()
        ) as merging:
            self._merger.merge(batch.fences, region=self.region)
            if merging is not None:
                merging.attributes["cachesvc.feed"] = self.region
                merging.attributes["cachesvc.fences"] = len(batch.fences)
                merging.attributes["cachesvc.lag_ms"] = (
                    max(self._clock.now_us() - min(batch.published), 0) / MILLISECONDS
                )
        if self.has_caught_up and not batch.gap:
            self._lags.note_merged(batch.published, self._clock.now_us())

    def _meet_gap(self) -> None:
        self._tally.gaps += 1
        self._fences.raise_floor(self._clock.now_us() + self._lead_us, lost=True)
        log.warning("fences of region %s were lost: everything cached before now is refused", self.region)

    def _tell(self, batch: FenceBatch) -> None:
        """Tells the broadcast what is merged here, and only that.

        A subscriber that has a fence from this instance may read from this instance, so the fence must be
        in force here first.
        """
        if batch.gap:
            self._broadcast.reset(
                self.region, batch.position, self._fences.floor, f"fences of region {self.region} were lost"
            )
        if batch.fences:
            self._broadcast.fences(self.region, batch.position, batch.fences)
        if batch.complete_to is not None:
            self._broadcast.heartbeat(self.region, batch.position, batch.complete_to)

    def _failed(self, error: Exception) -> None:
        self._tally.failures += 1
        self._tally.unreadable += isinstance(error, UnreadableAnswerError)
