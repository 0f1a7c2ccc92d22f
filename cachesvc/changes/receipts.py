"""Receipts: waits until an invalidation is merged everywhere, or tells how far it has got.

Every instance reports how far it has merged each region's `fences` stream: about once a second,
and at once when a caller waits for it. A fence has arrived when all live instances are at or past
its position.

Which instances are waited for: an instance that is silent may be dead, or cut off from the queue
and still answering from its copies. In the second case its watermark stands still too, and once its
staleness bound is above `max_lag` it answers nothing that is older than `max_lag`. So a silent
instance is waited for until the fence itself is that old: from then on it cannot answer a value
that was loaded before the write (docs/coherence.md, "Watermark, staleness bound, floor").
Namespaces with `feed_loss: serve` have given that guarantee away.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from cachesvc.changes.contract import FenceStream, FollowerPosition, position_of
from cachesvc.changes.journal.journal import Journal
from cachesvc.changes.rivals import Rivals
from cachesvc.model.clock import SECONDS
from cachesvc.model.did_you_mean import there_is
from cachesvc.model.errors import RequestError, TierError
from cachesvc.model.problems import ProblemKind
from cachesvc.model.requests import InvalidateOptions, Reach, ReceiptState

FIRST_PAUSE_SECONDS = 0.002
"""First pause between two looks at the followers; each further pause is twice as long."""
LONGEST_PAUSE_SECONDS = 0.05
SILENT_SECONDS = 2.0
"""An instance that has reported nothing for so long, or for three heartbeats, is silent.

One that lives reports with the first heartbeat after 0.9 s (`feed.py`)."""


class Receipts:
    """The receipts of invalidations, as the instances of one region see them."""

    def __init__(
        self,
        region: str,
        streams: Mapping[str, FenceStream],
        rivals: Rivals,
        *,
        heartbeat_seconds: float,
        longest_lag_us: int,
        skew_us: int,
        journal: Journal | None = None,
    ) -> None:
        """Makes the receipts of `region`, from the fence streams of all regions.

        An instance without news from the queue for the longest `max_lag` + heartbeat + 2 S has stopped
        to answer what may be outdated.
        """
        self._region = region
        self._streams = streams
        self._rivals = rivals
        self._silent_us = round(max(3 * heartbeat_seconds, SILENT_SECONDS) * SECONDS)
        self.longest_lag_us = longest_lag_us
        """The longest `max_lag` of a namespace, µs."""
        self._late_seconds = heartbeat_seconds + 2 * skew_us / SECONDS
        self._journal = journal

    async def wait(self, position: str, options: InvalidateOptions) -> tuple[str, ...]:
        """Waits until the live instances have merged this region's stream up to `position`.

        `options.wait` says which instances. Returns the missing ones, as `region/instance`: none, or those
        that were missing at the deadline. Instances that follow another queue of the region's name
        cannot be listed: `another queue of …` stands for them. If the queue does not answer at the
        deadline, or the one that answers is not the one that took the fence, its own name is returned,
        because the missing instances are not known.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        pause = FIRST_PAUSE_SECONDS
        while True:
            waited = loop.time() - started
            try:
                followers = await self._streams[self._region].followers(of=position)
                missing = self._missing(
                    followers,
                    position,
                    options.wait,
                    is_outdated=waited >= self.longest_lag_us / SECONDS + self._late_seconds,
                )
                missing += self._rivals.unheard()
            except TierError as error:
                missing = (error.where,)
            if not missing or waited >= options.timeout_seconds:
                return missing
            await asyncio.sleep(min(pause, options.timeout_seconds - waited))
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _missing(
        self, followers: Sequence[FollowerPosition], position: str, wait: Reach, *, is_outdated: bool
    ) -> tuple[str, ...]:
        wanted = position_of(position)
        return tuple(
            name
            for name, follower in _named(followers)
            if (wait is Reach.GLOBAL or follower.region == self._region)
            and position_of(follower.position) < wanted
            and not (is_outdated and follower.silent_us > self._silent_us)
        )

    async def state(self, id_: str) -> ReceiptState | None:
        """Returns how far the change `region:id` has got; None if it is unknown or forgotten.

        Raises `RequestError`: 404 for a region that does not exist, 503 while its queue is out of reach, or
        while the change may be in another instance's journal.
        """
        if self._journal is not None and (unannounced := self._journal.state(id_)) is not None:
            return unannounced
        region, _, change = id_.partition(":")
        stream = self._streams.get(region)
        if stream is None:
            why = f"no region {region!r}{there_is(self._streams)}: an id has the form region:id"
            raise RequestError(ProblemKind.NO_SUCH_RECEIPT, why, field="id")
        try:
            record = await stream.receipt(change)
            followers = (
                await stream.followers(of=record.position) if record is not None and record.position else ()
            )
        except TierError as error:
            why = f"the queue of region {region!r}, which keeps the receipt, does not answer: {error.why}"
            raise RequestError(ProblemKind.QUEUE_UNAVAILABLE, why) from error
        if record is None and self._rivals.keeps_unannounced(region):
            why = f"an instance of {region!r} has changes that it could not announce yet: ask again later"
            raise RequestError(ProblemKind.QUEUE_UNAVAILABLE, why)
        if record is None:
            return None
        missing = {
            name: position_of(follower.position) < position_of(record.position)
            for name, follower in _named(followers)
        }
        return ReceiptState(
            id_,
            record.state,
            record.position,
            record.cells,
            record.missed,
            merged=tuple(sorted(name for name, is_missing in missing.items() if not is_missing)),
            missing=tuple(sorted(name for name, is_missing in missing.items() if is_missing)),
            reason=record.reason,
        )


def _named(followers: Sequence[FollowerPosition]) -> Iterator[tuple[str, FollowerPosition]]:
    """Yields each follower with its name: `region/instance`.

    Two processes of one name are both waited for, so each has its incarnation in its name then. One of
    them may have died, and be followed by the other: it is forgotten a minute after its last report.
    """
    names = Counter((follower.region, follower.instance) for follower in followers)
    for follower in followers:
        name = f"{follower.region}/{follower.instance}"
        is_alone = names[follower.region, follower.instance] == 1
        yield name if is_alone else f"{name}#{follower.incarnation}", follower
