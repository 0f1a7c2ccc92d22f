"""How far an invalidation has got: waiting until it is merged everywhere, and telling later.

Every instance reports how far it has merged each region's `fences` stream: with every heartbeat, and at once when somebody waits
for it. A fence has arrived when all live instances stand at or past its position.

Whom to stop waiting for. An instance that is silent may be dead, or cut off from the queue and still serving what it holds. In
the second case its watermark stands still too, and once its staleness bound is above `max_lag` it answers nothing that is older
than `max_lag`. So a silent instance is waited for until the fence itself is that old: from then on it cannot answer what was
loaded before the write (COHERENCE.md, "Watermark"). Namespaces with `feed_loss: serve` have given that guarantee away.
"""

import asyncio
from collections.abc import Mapping, Sequence

from cachesvc.changes.contract import FenceStream, ReaderPosition, position_of
from cachesvc.model.did_you_mean import did_you_mean
from cachesvc.model.errors import RequestError, TierError
from cachesvc.model.problems import ProblemKind
from cachesvc.model.requests import InvalidateOptions, Reach, ReceiptState

FIRST_PAUSE_SECONDS = 0.002
LONGEST_PAUSE_SECONDS = 0.05


class Receipts:
    def __init__(
        self,
        region: str,
        streams: Mapping[str, FenceStream],
        *,
        heartbeat_seconds: float,
        outdated_seconds: float,
    ) -> None:
        """`outdated_seconds`: when an instance that hears nothing has stopped to answer what is older than it can vouch for: the
        longest `max_lag` + heartbeat + 2 S."""
        self._region = region
        self._streams = streams
        self._silent_us = round(3 * heartbeat_seconds * 1e6)
        self._outdated_seconds = outdated_seconds

    async def wait(self, position: str, options: InvalidateOptions) -> tuple[str, ...]:
        """Until every live instance that `options.wait` names has merged this region's stream up to `position`.

        Returns the missing ones, as `region/instance`: nobody, or who was not there at the deadline. If the queue does not answer
        meanwhile, nobody knows: then the queue itself is named.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        pause = FIRST_PAUSE_SECONDS
        while True:
            waited = loop.time() - started
            try:
                readers = await self._streams[self._region].readers()
                missing = self._missing(
                    readers, position, options.wait, is_outdated=waited >= self._outdated_seconds
                )
            except TierError as error:
                missing = (error.where,)
            if not missing or waited >= options.timeout_seconds:
                return missing
            await asyncio.sleep(min(pause, options.timeout_seconds - waited))
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _missing(
        self, readers: Sequence[ReaderPosition], position: str, wait: Reach, *, is_outdated: bool
    ) -> tuple[str, ...]:
        wanted = position_of(position)
        return tuple(
            f"{reader.region}/{reader.instance}"
            for reader in readers
            if (wait is Reach.GLOBAL or reader.region == self._region)
            and position_of(reader.position) < wanted
            and not (is_outdated and reader.silent_us > self._silent_us)
        )

    async def state(self, id_: str) -> ReceiptState | None:
        """How far the change `region:id` has got; None if it is unknown or forgotten.

        Raises `RequestError`: 404 for a region that is not there, 503 while its queue is out of reach.
        """
        region, _, change = id_.partition(":")
        stream = self._streams.get(region)
        if stream is None:
            why = f"no region {region!r}{did_you_mean(region, self._streams)}: an id has the form region:id"
            raise RequestError(ProblemKind.NO_SUCH_RECEIPT, why, field="id")
        try:
            record = await stream.receipt(change)
            readers = await stream.readers() if record is not None and record.position else ()
        except TierError as error:
            why = f"the queue of region {region!r}, which keeps the receipt, does not answer: {error.why}"
            raise RequestError(ProblemKind.QUEUE_UNAVAILABLE, why) from error
        if record is None:
            return None
        missing = {
            f"{r.region}/{r.instance}": position_of(r.position) < position_of(record.position)
            for r in readers
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
