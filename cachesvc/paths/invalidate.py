"""The invalidate path: append the change → apply it in its home cells → publish the fence → merge it here → answer.

Why the change is appended first: if this process dies between applying and publishing, the region's consumers find the change
open and do all of it again (COHERENCE-TRACES, 6). Applying twice costs misses; skipping once would serve old values.
"""

from collections.abc import Sequence

from cachesvc.changes.apply import Applied, Applier
from cachesvc.changes.audit import audit_of
from cachesvc.changes.contract import Changes, Done, FenceStream
from cachesvc.changes.delays import ChangeLags
from cachesvc.changes.receipts import Receipts
from cachesvc.coherence.merger import Merger
from cachesvc.model.change import Change, Target
from cachesvc.model.clock import SECONDS, Clock
from cachesvc.model.entry import Key
from cachesvc.model.errors import RequestError, TierError
from cachesvc.model.problems import ProblemKind
from cachesvc.model.requests import Estimate, InvalidateOptions, Reach, Receipt, ReceiptState
from cachesvc.paths.estimate import Estimator
from cachesvc.paths.near_tiers import Shelf
from cachesvc.telemetry.traces.trace import current, span, traceparent

HOLD_US = 2 * SECONDS
"""How long the region's consumers leave a change to the call that appended it: well above what a call takes, so that nothing is
applied twice in normal running, and short beside `max_lag` plus what a dead instance may cost."""

AT_ONCE = InvalidateOptions()
"""Return when it is applied, published and merged here."""


class Invalidator:
    def __init__(
        self,
        *,
        region: str,
        instance: str,
        changes: Changes,
        stream: FenceStream,
        applier: Applier,
        merger: Merger,
        shelf: Shelf,
        receipts: Receipts,
        estimator: Estimator,
        clock: Clock,
        lags: ChangeLags,
    ) -> None:
        self._region = region
        self._instance = instance
        self._changes = changes
        self._stream = stream
        self._applier = applier
        self._merger = merger
        self._shelf = shelf
        self._receipts = receipts
        self._estimator = estimator
        self._clock = clock
        self._lags = lags

    async def invalidate(self, change: Change, options: InvalidateOptions = AT_ONCE) -> Receipt:
        """Invalidate keys, tags or a whole namespace. When it returns, this instance never again answers what was loaded
        before; the others follow as soon as they read the fence, or have done so if `options.wait` asks for it and the receipt
        says `reached`.

        Raises `RequestError`: 503 `queue-unavailable` if the change could not be accepted (nothing was promised), 503
        `fence-not-published` if it was accepted but its fence is not out yet (the region's consumers go on with it).
        Cancelled between the two, the consumers finish it as well; cancelled while it waits for others, it is done.
        """
        id_ = await self.announce(change)
        with span("cache.apply") as applying:
            applied = await self._applier.apply([change])
            applied.describe(applying, [change])
        done = applied.done(id_, applied.named[0], audit_of([change], options.who, self._instance))
        position = await self.publish(applied, done, report=options.wait is not Reach.NONE)
        if not (change.soft or change.over):
            await self._shelf.drop([Key.of(change.namespace, text) for text in change.keys])
        missing = await self._receipts.wait(position, options) if options.wait is not Reach.NONE else ()
        token = tuple((fence.digest, fence.at) for fence in applied.fences)
        return Receipt(
            f"{self._region}:{id_}",
            token,
            not done.missed,
            position,
            options.wait,
            reached=not missing,
            missing=missing,
        )

    async def estimate(self, change: Change) -> Estimate:
        """What it would touch; changes nothing."""
        return await self._estimator.estimate(change)

    async def receipt(self, id_: str) -> ReceiptState | None:
        """How far a change has got. Raises `RequestError` 503 while the queue that knows is out of reach."""
        return await self._receipts.state(id_)

    async def announce(self, change: Change) -> str:
        """Append a change that this process is about to apply by itself; its id."""
        try:
            return await self._changes.append(
                change, held_until_us=self._clock.now_us() + HOLD_US, traceparent=traceparent()
            )
        except TierError as error:
            why = (
                f"the queue of region {self._region!r} did not take the change, nothing was done: {error.why}"
            )
            raise RequestError(ProblemKind.QUEUE_UNAVAILABLE, why) from error

    async def publish(self, applied: Applied, done: Done, *, report: bool = False) -> str:
        """Merge here, tell everybody, and close the change, or park it if a home is missing. Merging first is safe and sooner.
        Whoever merges the fence links that to the request that this is a part of."""
        self._merger.merge(applied.fences, own=True)
        request = current()
        causes = (request.context,) if request is not None else ()
        try:
            with span("cache.publish", "producer"):
                position = await self._stream.publish(
                    applied.fences, done=[done], report=report, causes=causes
                )
        except TierError as error:
            why = "the change was accepted, but its fence could not be published yet; the region's consumers go on with it"
            token = tuple((fence.digest, fence.at) for fence in applied.fences)
            raise RequestError(ProblemKind.FENCE_NOT_PUBLISHED, why, token=token) from error
        self._lags.note_published([done.id], position)
        return position

    def fallback(self, key: Key) -> Applied:
        """For a key whose home cannot be reached now: its change is parked until the home has it."""
        return self._applier.fallback(Target.key(key.namespace, key.text))

    async def follow(self, moved: Sequence[tuple[Key, int]]) -> Applied:
        """The fences of keys whose homes have moved them to these times."""
        return await self._applier.follow(moved)

    async def forgo(self, id_: str) -> None:
        """Nothing was changed after all: close the announced change. If that fails it is applied, which costs a miss."""
        try:
            await self._changes.acknowledge([id_])
        except TierError:
            return
