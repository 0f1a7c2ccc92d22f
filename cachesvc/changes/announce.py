"""Announces what this process changes: to the queue before, to every instance afterwards.

A change is appended before it is applied, and its fence is merged and published once it is applied.
If this process dies in between, the region's consumers find the change open and do all of it again.
Applying a change twice costs misses; skipping it once would serve old values. While the queue is
away, an instance's journal takes the place of both streams, if it has one (`journal/journal.py`).
"""

from cachesvc.changes.apply import Applied
from cachesvc.changes.contract import Changes, Done, FenceStream
from cachesvc.changes.delays import ChangeLags
from cachesvc.changes.journal.journal import Journal
from cachesvc.coherence.merger import Merger
from cachesvc.model.change import Change
from cachesvc.model.clock import SECONDS, Clock
from cachesvc.model.errors import RequestError, TierError
from cachesvc.model.problems import ProblemKind
from cachesvc.telemetry.traces.trace import current, span, traceparent

HOLD_US = 2 * SECONDS
"""µs for which the region's consumers leave a change to the call that appended it.

Well above what a call takes, so that nothing is applied twice in normal running; short beside
`max_lag` plus what a dead instance may cost.
"""


class Announcer:
    """One instance's announcing, on its region's streams. Calls may run at once."""

    def __init__(
        self,
        *,
        region: str,
        changes: Changes,
        stream: FenceStream,
        merger: Merger,
        clock: Clock,
        lags: ChangeLags,
        journal: Journal | None = None,
    ) -> None:
        self._region = region
        self._changes = changes
        self._stream = stream
        self._merger = merger
        self._clock = clock
        self._lags = lags
        self._journal = journal

    async def announce(self, change: Change) -> str:
        """Appends a change that this process is about to apply by itself; returns its id.

        Raises `RequestError` 503 `queue-unavailable` if neither the queue nor a journal takes the change:
        nothing was promised.
        """
        try:
            return await self._changes.append(
                change, held_until_us=self._clock.now_us() + HOLD_US, traceparent=traceparent()
            )
        except TierError as error:
            why = (
                f"the queue of region {self._region!r} did not take the change, nothing was done: {error.why}"
            )
            if self._journal is None:
                raise RequestError(ProblemKind.QUEUE_UNAVAILABLE, why) from error
            return await self._journal.begin(change, why)

    async def publish(self, applied: Applied, done: Done, *, report: bool = False) -> str:
        """Merges the fences here, publishes them and closes the change; returns their position.

        A change with a home that did not take it is parked instead of closed. Merging before
        publishing is safe, and this instance honours the fences sooner. The published fences name
        the current span, so that the merge at every other instance is linked to this request.

        Returns an empty position if the journal keeps the fences until the queue is back: then they are not
        published yet.

        Raises `RequestError` 503 `fence-not-published`, with the token of the fences: the change
        was accepted, and the region's consumers go on with it.
        """
        self._merger.merge(applied.fences, own=True)
        request = current()
        causes = (request.context,) if request is not None else ()
        if self._journal is not None and done.id in self._journal:
            await self._journal.keep(applied.fences, done)
            return ""
        try:
            with span("cache.publish", "producer"):
                position = await self._stream.publish(
                    applied.fences, done=[done], report=report, causes=causes
                )
        except TierError as error:
            if self._journal is not None and await self._journal.take_over(applied.fences, done):
                return ""
            why = (
                "the change was accepted, but its fence could not be published yet; "
                "the region's consumers go on with it"
            )
            token = tuple((fence.digest, fence.at) for fence in applied.fences)
            raise RequestError(ProblemKind.FENCE_NOT_PUBLISHED, why, token=token) from error
        self._lags.note_published([done.id], position)
        return position

    def unannounced(self, id_: str) -> str:
        """Returns the receipt's id of a change whose fences the journal keeps; empty for others."""
        return f"{self._region}:{id_}" if self._journal is not None and id_ in self._journal else ""

    async def forgo(self, id_: str) -> None:
        """Closes an announced change that changed nothing after all.

        If the queue does not take this, the region's consumers apply the change, which costs a
        miss.
        """
        if self._journal is not None and id_ in self._journal:
            await self._journal.forget(id_)
            return
        try:
            await self._changes.acknowledge([id_])
        except TierError:
            return
