"""`get_or_load`: read, or be the one that loads.

    fresh                       → answer
    stale, lease granted        → answer, and load in the background
    stale, lease held           → answer
    known absent                → absent
    miss, lease granted         → load, fill with the lease, answer
    miss, lease held elsewhere  → wait for that fill; take over if its holder gives up; too long: load and do not fill
    the cache is out of reach   → load and do not fill, at most so many at a time

The first read never waits for another holder's fill: it shares its request with keys that are hits, and one answer comes for
all. Only the keys that have to wait ask again, among themselves, in short turns.

A load that brought no lease is never filled: it might be older than an invalidation that nobody would check it against.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeAlias, TypeVar

from cachesvc_client.batching import Intake
from cachesvc_client.codecs import Codec
from cachesvc_client.context import ABSENT, Absent
from cachesvc_client.errors import CacheError
from cachesvc_client.flight import Flights, landed
from cachesvc_client.lifetimes import Lifetimes
from cachesvc_client.loading import Loads
from cachesvc_client.wire import Got, Put, PutItem

V = TypeVar("V")
Loader: TypeAlias = Callable[[str], Awaitable[V | Absent]]
"""Loads the value of a key. Read the source only after it was called, not before: the lease counts from there."""

WAIT_TURN = 0.25
"""Seconds of one wait for another holder's fill; the most that it delays the other waiting keys of its request."""
SHORT_TURN = 0.05
"""A turn that ended sooner than this without a value is filled up to it, or many waiters would ask without pause."""


class LookAside(Generic[V]):
    def __init__(
        self,
        leases: Intake[str, Got],
        waits: Intake[str, Got],
        puts: Intake[PutItem, Put],
        codec: Codec[V],
        loads: Loads,
        tasks: set[asyncio.Task[Any]],
    ) -> None:
        self._leases = leases
        self._waits = waits
        self._puts = puts
        self._codec = codec
        self._loads = loads
        self.flights: Flights[V | Absent] = Flights(tasks)

    async def get_or_load(self, key: str, loader: Loader[V], lifetimes: Lifetimes) -> V | Absent:
        """Raises what the loader raises; `CacheError` if the cache refuses what is asked, not if it is out of reach."""
        flight = self.flights.get(key)
        if flight is not None:
            return await landed(flight)
        got = await self._leases.join(key)
        if isinstance(got, CacheError):
            if not got.is_outage:
                raise got.copy()
            return await self._flown(key, lambda: self._load_unfilled(key, loader))
        lease = got.claim_lease()
        if got.outcome == "miss":
            return await self._flown(key, lambda: self._land(key, lease, loader, lifetimes))
        if lease:
            self.flights.start(key, lambda: self._load(key, lease, loader, lifetimes))
        return self._value_of(got)

    async def _flown(self, key: str, load: Callable[[], Any]) -> V | Absent:
        return await landed(self.flights.start(key, load))

    def _value_of(self, got: Got) -> V | Absent:
        if not got.is_found:
            return ABSENT
        value: V = decoded(self._codec, got.value)
        return value

    async def _land(self, key: str, lease: str, loader: Loader[V], lifetimes: Lifetimes) -> V | Absent:
        """A miss: with the lease load; without it wait for who holds it, or take it over."""
        loop = asyncio.get_running_loop()
        patience = loop.time() + self._loads.lease_wait
        while not lease:
            if loop.time() >= patience:
                return await self._load_unfilled(key, loader)
            turn_ends = loop.time() + SHORT_TURN
            got = await self._waits.join(key)
            if isinstance(got, CacheError):
                return await self._load_unfilled(key, loader)
            if got.outcome != "miss":
                return self._value_of(got)
            lease = got.claim_lease()
            if not lease:
                await asyncio.sleep(turn_ends - loop.time())
        return await self._load(key, lease, loader, lifetimes)

    async def _load(self, key: str, lease: str, loader: Loader[V], lifetimes: Lifetimes) -> V | Absent:
        value = await self._loads.run(key, loader)
        item = lifetimes.item(key, b"" if value is ABSENT else self._codec.encode(value), self._codec.content_type)
        item.absent = value is ABSENT
        item.lease = lease
        self._loads.count_fill(key, await self._puts.join(item, len(item.value)))
        return value

    async def _load_unfilled(self, key: str, loader: Loader[V]) -> V | Absent:
        return await self._loads.run_without_cache(key, loader)


def decoded(codec: Codec[V], value: bytes) -> V:
    """The value; raises `CacheError` (`undecodable`) if the codec cannot read it."""
    try:
        return codec.decode(value)
    except Exception as error:  # the codec is the caller's and may raise anything
        raise CacheError("undecodable", f"the stored value does not fit the namespace's codec: {error}") from error
