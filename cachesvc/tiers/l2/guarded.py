"""A breaker in front of a tier: a server that does not answer is left alone for a while."""

import logging
from collections.abc import Sequence
from time import perf_counter

from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import TierError
from cachesvc.telemetry.outage import Outage
from cachesvc.tiers.breaker import Breaker, BreakerState, is_outage, is_refused, not_tried
from cachesvc.tiers.l2.contract import Lookup, Tier

logger = logging.getLogger(__name__)


class Guarded:
    """Keeps calls from the child while its breaker is open.

    Such a call goes to the gutter. Without one, it is refused with `TierUnavailableError` values. A
    call is a failure if the server answered none of its items; a partial answer is an answer.
    """

    def __init__(
        self, child: Tier, breaker: Breaker, *, name: str = "tier", gutter: Tier | None = None
    ) -> None:
        """`gutter` is neither started nor stopped here: all servers of a pool have the same one."""
        self.breaker = breaker
        self._child = child
        self._name = name
        self.gutter = gutter
        """The tier that takes the keys meanwhile. It may be given another one at any time."""
        self._outage = Outage(name, logger)

    async def get_many(self, keys: Sequence[Key]) -> Sequence[Lookup]:
        if not self.breaker.admits():
            return self._refusal(len(keys)) if self.gutter is None else await self.gutter.get_many(keys)
        began = perf_counter()
        lookups = await self._child.get_many(keys)
        self._judge(lookups, len(keys), began)
        return lookups

    async def set_many(self, items: Sequence[tuple[Key, Entry]]) -> Sequence[TierError]:
        if not self.breaker.admits():
            return self._refusal(len(items)) if self.gutter is None else await self.gutter.set_many(items)
        began = perf_counter()
        failures = await self._child.set_many(items)
        self._judge(failures, len(items), began)
        return failures

    async def delete_many(self, keys: Sequence[Key]) -> Sequence[TierError]:
        if not self.breaker.admits():
            return self._refusal(len(keys)) if self.gutter is None else await self.gutter.delete_many(keys)
        began = perf_counter()
        failures = await self._child.delete_many(keys)
        self._judge(failures, len(keys), began)
        return failures

    def _judge(self, results: Sequence[Lookup], items: int, began: float) -> None:
        # The first result nearly always decides: only when it failed are the others looked at.
        failed = bool(results) and is_outage(results[0])
        if failed and len(results) >= items and all(map(is_outage, results)):
            self._count_failure(results[0])
            return
        self.breaker.answered(perf_counter() - began)
        if self._outage.is_on and not self.breaker.is_open:
            self._outage.worked()

    def _count_failure(self, failure: Lookup) -> None:
        self.breaker.failed(at_once=isinstance(failure, TierError) and is_refused(failure))
        if self.breaker.state is BreakerState.OPEN:  # one failure is no outage
            self._outage.failed(f"left alone: {failure}")

    def _refusal(self, items: int) -> list[TierError]:
        return [not_tried(self._name)] * items

    async def start(self) -> None:
        await self._child.start()

    async def stop(self) -> None:
        await self._child.stop()

    def __repr__(self) -> str:
        return f"<Guarded {self.breaker!r} {self._child!r}>"
