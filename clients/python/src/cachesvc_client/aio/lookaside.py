"""`get_or_load`: read a key, or be the one caller that loads it.

    fresh                       → answer
    stale, lease granted        → answer, and load in the background
    stale, lease held           → answer
    known absent                → absent
    miss, lease granted         → load, fill with the lease, answer
    miss, lease held elsewhere  → wait for that fill; take over if its holder gives up;
                                  after too long: load and do not fill
    unreadable                  → as a miss: replace it, once for all callers;
                                  of a newer version: load and do not fill
    the cache is out of reach   → load and do not fill, at most so many at a time

The first read never waits for the fill of another holder: it shares its request with keys that
are hits, and one answer comes for all. Only keys that have to wait ask again, among themselves, in
short turns.

A value that was loaded without a lease is never filled: it might be older than an invalidation, and
nobody would check it against that.

A loaded value is answered as it is decoded from the bytes that are stored (`codecs.py`), also if it
is not stored: hit or miss, callers get the same.

In a rolling deploy the values of the newer version stay. If the older version replaced them too,
the two would take turns at every key, and each turn costs an invalidation and a load.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from cachesvc_client.aio.flight import Flights, landed
from cachesvc_client.aio.intake import Intake
from cachesvc_client.aio.loading import Loader, Loads
from cachesvc_client.aio.tasks import Tasks
from cachesvc_client.errors import CacheError
from cachesvc_client.protocol.turns import SHORT_TURN
from cachesvc_client.protocol.wire import Got, Put, PutItem
from cachesvc_client.requests.fills import fill_of
from cachesvc_client.requests.handed_tokens import Wanted, key_of
from cachesvc_client.tracing.spans import inner, tell_collapsed, tell_got
from cachesvc_client.values.codecs import Schema, UnreadableError
from cachesvc_client.values.context import ABSENT, Absent
from cachesvc_client.values.lifetimes import Lifetimes

V = TypeVar("V")


class LookAside(Generic[V]):
    """The reads of one namespace object that load what is missing."""

    def __init__(
        self,
        leases: Intake[Wanted, Got],
        waits: Intake[Wanted, Got],
        puts: Intake[PutItem, Put],
        delete: Callable[[str], Awaitable[object]],
        schema: Schema[V],
        loads: Loads,
        *,
        timeout: float,
        tasks: Tasks,
    ) -> None:
        """`timeout`: the seconds of a call of the cache."""
        self._leases = leases
        self._waits = waits
        self._puts = puts
        self._delete = delete
        self._schema = schema
        self._loads = loads
        self._timeout = timeout
        self.flights: Flights[V | Absent] = Flights(tasks.loads)

    async def get_or_load(
        self, wanted: Wanted, loader: Loader[V], lifetimes: Lifetimes, timeout: float | None = None
    ) -> V | Absent:
        """Returns the value, in `timeout` seconds if given; the load goes on when they are over.

        Raises the loader's exception; `CacheError` if the cache refuses the request, and not if the
        cache is out of reach.
        """
        if timeout is None:
            return await self._read_or_load(wanted, loader, lifetimes)
        try:
            async with asyncio.timeout(timeout) as limit:
                return await self._read_or_load(wanted, loader, lifetimes)
        except TimeoutError as error:
            if not limit.expired():  # the loader's own
                raise
            raise CacheError("deadline", f"no answer within {timeout:g} s", retryable=True) from error

    async def _read_or_load(self, wanted: Wanted, loader: Loader[V], lifetimes: Lifetimes) -> V | Absent:
        flight = self.flights.get(wanted)
        if flight is not None:
            tell_collapsed()
            return await landed(flight)
        got = await self._leases.join(wanted, self._timeout)
        if isinstance(got, CacheError):
            if not got.is_outage:
                raise got.copy()
            return await self._flown(wanted, lambda: self._load_unfilled(wanted, loader, lifetimes))
        lease = got.claim_lease()
        tell_got(got, lease=bool(lease))
        if got.outcome == "miss":
            return await self._flown(wanted, lambda: self._land(wanted, lease, loader, lifetimes))
        try:
            value = self._value_of(got)
        except UnreadableError as unreadable:
            why = unreadable
            return await self._flown(wanted, lambda: self._replace(wanted, lease, loader, lifetimes, why))
        if lease:
            self.flights.start(wanted, lambda: self._load(wanted, lease, loader, lifetimes))
        return value

    async def _flown(self, wanted: Wanted, load: Callable[[], Any]) -> V | Absent:
        return await landed(self.flights.start(wanted, load))

    def _value_of(self, got: Got) -> V | Absent:
        return self._schema.decode(got.value, got.content_type) if got.is_found else ABSENT

    async def _land(self, wanted: Wanted, lease: str, loader: Loader[V], lifetimes: Lifetimes) -> V | Absent:
        """Answers a miss: loads with the lease, or waits for the fill of the lease's holder."""
        loop = asyncio.get_running_loop()
        patience = loop.time() + self._loads.lease_wait
        while not lease:
            if loop.time() >= patience:
                return await self._load_unfilled(wanted, loader, lifetimes)
            turn_ends = loop.time() + SHORT_TURN
            got = await self._waits.join(wanted, self._timeout)
            if isinstance(got, CacheError):
                return await self._load_unfilled(wanted, loader, lifetimes)
            lease = got.claim_lease()
            if got.outcome != "miss" and not lease:
                try:
                    return self._value_of(got)
                except UnreadableError:  # the holder stores values of another version
                    return await self._load_unfilled(wanted, loader, lifetimes)
            if not lease:
                await asyncio.sleep(turn_ends - loop.time())
        return await self._load(wanted, lease, loader, lifetimes)

    async def _replace(
        self, wanted: Wanted, lease: str, loader: Loader[V], lifetimes: Lifetimes, why: UnreadableError
    ) -> V | Absent:
        """Replaces a stored value that cannot be read: invalidates it, to get a lease, and loads."""
        self._loads.count_unreadable(key_of(wanted), why)
        if why.newer:
            return await self._load_unfilled(wanted, loader, lifetimes)
        if not lease:
            try:
                await self._delete(key_of(wanted))
            except CacheError:
                return await self._load_unfilled(wanted, loader, lifetimes)
        return await self._land(wanted, lease, loader, lifetimes)

    async def _load(self, wanted: Wanted, lease: str, loader: Loader[V], lifetimes: Lifetimes) -> V | Absent:
        key = key_of(wanted)
        value, lifetimes = await self._loads.run(key, loader, lifetimes)
        sealed = None if value is ABSENT else self._schema.seal(value)
        item = fill_of(key, sealed, lifetimes, self._schema.content_type, lease)
        with inner("cache.set"):
            filled = await self._puts.join(item, self._timeout, len(item.value))
        self._loads.count_fill(key, filled)
        return ABSENT if sealed is None else sealed.value

    async def _load_unfilled(self, wanted: Wanted, loader: Loader[V], lifetimes: Lifetimes) -> V | Absent:
        value, _ = await self._loads.run_without_cache(key_of(wanted), loader, lifetimes)
        return value if value is ABSENT else self._schema.seal(value).value
