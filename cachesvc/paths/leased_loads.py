"""Loads that callers do by themselves, under leases, as the origin budget counts them.

A lease that is handed to a caller is a load that begins, and it has a turn of the namespace's
budget until it is over: a fill or a release that comes through this instance ends it, a lease that
does not reach its caller is given back, and all others end with the lease's life. A fill that comes
through another instance is not told: then the turn lasts as long as the lease could have lasted.
"""

import asyncio
from collections.abc import Mapping
from functools import partial

from cachesvc.config.topology import Namespace
from cachesvc.model.errors import OriginError, RequestError
from cachesvc.paths.flight import Flight, Mode
from cachesvc.tiers.origin.budget import Turns

PATIENCE_SECONDS = 0.3
"""The time for which a lease waits for a turn: long enough to fetch a larger share."""


class LeasedLoads:
    """The leases of one instance's callers that have a turn now. `turns`: by namespace."""

    def __init__(self, turns: Mapping[str, Turns]) -> None:
        self._turns = turns
        self._ends: dict[str, tuple[Turns, asyncio.TimerHandle]] = {}

    def __repr__(self) -> str:
        return f"<LeasedLoads [{len(self._ends)} running]>"

    async def begin(self, flight: Flight, *, has_copy: bool) -> RequestError | None:
        """Takes a turn for the lease that the flight holds; returns why there is none, else None.

        `has_copy`: a stale copy can be answered, so nobody has to wait. The lease stays the flight's.
        """
        turns, lease = self._turns.get(flight.key.namespace), flight.lease
        if turns is None or lease is None:
            return None
        is_answered = has_copy or flight.mode is Mode.LEASE_OVER
        try:
            await turns.take(0.0 if is_answered else PATIENCE_SECONDS)
        except OriginError as failure:
            why = f"callers of namespace {flight.key.namespace!r} may not load now: {failure}"
            return RequestError(failure.kind, why, retry_after=failure.retry_after)
        self._count(turns, lease.token, flight.namespace)
        flight.lease = lease._replace(ended=partial(self.end, lease.token))
        return None

    def _count(self, turns: Turns, token: str, namespace: Namespace) -> None:
        loop = asyncio.get_running_loop()
        self._ends[token] = turns, loop.call_later(namespace.lease.seconds, self.end, token)

    def end(self, token: str) -> None:
        """Ends the load under this lease. Does nothing if it is over, or not one of this instance."""
        if (found := self._ends.pop(token, None)) is not None:
            turns, timer = found
            timer.cancel()
            turns.give_back()
