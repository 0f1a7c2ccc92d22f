"""A breaker in front of a tier: a server that does not answer is left alone for a while."""

import logging
from collections.abc import Sequence

from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import TierError, TierTimeoutError, TierUnavailableError
from cachesvc.telemetry.outage import Outage
from cachesvc.tiers.l2.breaker import Breaker, BreakerState
from cachesvc.tiers.l2.contract import Lookup, Tier

logger = logging.getLogger(__name__)

_UNREACHABLE = (TierTimeoutError, TierUnavailableError)
"""Failures of the server. A plain `TierError` concerns one item: the server has answered."""


class Guarded:
    """Refuses calls with `TierUnavailableError` values while the breaker is open.

    A call is a failure if the server answered none of its items; a partial answer is an answer.
    """

    def __init__(self, child: Tier, breaker: Breaker, *, name: str = "tier") -> None:
        self.breaker = breaker
        self._child = child
        self._name = name
        self._outage = Outage(name, logger)

    async def get_many(self, keys: Sequence[Key]) -> Sequence[Lookup]:
        if not self.breaker.admits():
            return self._refusal(len(keys))
        lookups = await self._child.get_many(keys)
        self._judge(lookups, len(keys))
        return lookups

    async def set_many(self, items: Sequence[tuple[Key, Entry]]) -> Sequence[TierError]:
        if not self.breaker.admits():
            return self._refusal(len(items))
        failures = await self._child.set_many(items)
        self._judge(failures, len(items))
        return failures

    async def delete_many(self, keys: Sequence[Key]) -> Sequence[TierError]:
        if not self.breaker.admits():
            return self._refusal(len(keys))
        failures = await self._child.delete_many(keys)
        self._judge(failures, len(keys))
        return failures

    def _judge(self, results: Sequence[Lookup], items: int) -> None:
        # The first result nearly always decides: only when it failed are the others looked at.
        failed = bool(results) and isinstance(results[0], _UNREACHABLE)
        if failed and len(results) >= items and all(isinstance(result, _UNREACHABLE) for result in results):
            self._count_failure(results[0])
        elif self.breaker.failures_in_a_row or self._outage.is_on:
            self._count_recovery()

    def _count_failure(self, failure: Lookup) -> None:
        self.breaker.failed()
        if self.breaker.state is BreakerState.OPEN:  # one failure is no outage
            self._outage.failed(
                f"left alone after {self.breaker.failures_in_a_row} failures in a row: {failure}"
            )

    def _count_recovery(self) -> None:
        self.breaker.succeeded()
        self._outage.worked()

    def _refusal(self, items: int) -> list[TierError]:
        return [TierUnavailableError(self._name, "not tried: its breaker is open")] * items

    async def start(self) -> None:
        await self._child.start()

    async def stop(self) -> None:
        await self._child.stop()

    def __repr__(self) -> str:
        return f"<Guarded {self.breaker!r} {self._child!r}>"
