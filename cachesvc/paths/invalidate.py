"""The invalidate path: append the change, apply it, publish its fence, answer.

The change is appended to the queue, applied in its home cells, and its fence is published and
merged here. It is appended first because, if this process dies between applying and publishing, the
region's consumers find the change open and do all of it again (docs/coherence.md, trace 6).
Applying a change twice costs misses; skipping it once would serve old values.
"""

from cachesvc.changes.announce import Announcer
from cachesvc.changes.apply import Applier
from cachesvc.changes.audit import audit_of
from cachesvc.changes.audit_trail import AuditTrail
from cachesvc.changes.receipts import Receipts
from cachesvc.model.change import Change
from cachesvc.model.entry import Key
from cachesvc.model.requests import Estimate, InvalidateOptions, Reach, Receipt, ReceiptState
from cachesvc.paths.estimate import Estimator
from cachesvc.paths.near_tiers import NearTiers
from cachesvc.telemetry.traces.trace import span

AT_ONCE = InvalidateOptions()
"""Return once the change is applied, published and merged here."""


class Invalidator:
    """Invalidations of one instance. Any number of calls may run at once."""

    def __init__(
        self,
        *,
        region: str,
        instance: str,
        announcer: Announcer,
        applier: Applier,
        near_tiers: NearTiers,
        receipts: Receipts,
        estimator: Estimator,
        trail: AuditTrail,
    ) -> None:
        self._region = region
        self._instance = instance
        self._announcer = announcer
        self._applier = applier
        self._near_tiers = near_tiers
        self._receipts = receipts
        self._estimator = estimator
        self._trail = trail

    async def invalidate(self, change: Change, options: InvalidateOptions = AT_ONCE) -> Receipt:
        """Invalidates keys, tags or a whole namespace.

        When it returns, this instance never again answers what was loaded before. The others follow
        as soon as they read the fence, or have done so if `options.wait` asks for it and the
        receipt says `reached`. If the region's queue is away, and the instance has a journal, the others
        are told when the queue is back: then the receipt says that it is not `announced`.

        Raises `RequestError`: 503 `queue-unavailable` if the change could not be accepted (nothing
        was promised), 503 `fence-not-published` if it was accepted but its fence is not out yet
        (the region's consumers go on with it). Cancelled between the two, the consumers finish it
        as well; cancelled while it waits for other instances, it is done.
        """
        id_ = await self._announcer.announce(change)
        audit, state = audit_of([change], options.author, self._instance), "open"
        try:
            with span("cache.apply") as applying:
                applied = await self._applier.apply([change])
                applied.describe(applying, [change])
            done = applied.done(id_, applied.named[0], audit)
            position = await self._announcer.publish(applied, done, report=options.wait is not Reach.NONE)
            state = "open" if not position else "parked" if done.missed else "done"
        finally:  # the consumers finish what was announced, whatever ends this call
            self._trail.changed(audit, id_, state)
        if not (change.soft or change.over):
            await self._near_tiers.drop([Key.of(change.namespace, text) for text in change.keys])
        is_announced = bool(position)
        missing: tuple[str, ...] = ()
        if options.wait is not Reach.NONE:
            missing = (
                await self._receipts.wait(position, options)
                if is_announced
                else (f"queue of {self._region}",)
            )
        token = tuple((fence.digest, fence.at) for fence in applied.fences)
        return Receipt(
            f"{self._region}:{id_}",
            token,
            not done.missed,
            position,
            options.wait,
            reached=is_announced and not missing,
            missing=missing,
            announced=is_announced,
        )

    async def estimate(self, change: Change) -> Estimate:
        """The copies and the share of reads that the change would touch; changes nothing."""
        return await self._estimator.estimate(change)

    async def receipt(self, id_: str) -> ReceiptState | None:
        """The state of a change by its receipt's id; None for an id that is unknown or forgotten.

        Raises `RequestError` 503 while the queue that knows is out of reach.
        """
        return await self._receipts.state(id_)
