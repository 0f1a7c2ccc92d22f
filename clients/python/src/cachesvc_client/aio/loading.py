"""Runs the callers' loaders: within a time; few at a time if the cache is out of reach."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Generic, NamedTuple, TypeAlias, TypeVar, cast

from cachesvc_client.aio.together import Together
from cachesvc_client.errors import CacheError
from cachesvc_client.protocol.wire import Put
from cachesvc_client.tracing.spans import inner
from cachesvc_client.values.codecs import UnreadableError
from cachesvc_client.values.context import Absent, LoadContext, check_awaitable, takes_context
from cachesvc_client.values.lifetimes import Lifetimes

V = TypeVar("V")

log = logging.getLogger(__name__)


Loader: TypeAlias = Callable[[str], Awaitable[V | Absent]] | Callable[[LoadContext], Awaitable[V | Absent]]
"""Loads a value, given its key, or the context if its parameter is named `ctx`.

A loader reads its source after it was called, not before: the lease counts from the call.
"""


class Loaded(NamedTuple, Generic[V]):
    """A loaded value, and how long it lives."""

    value: V | Absent
    lifetimes: Lifetimes
    """The lifetimes that the caller named, with what the loader changed."""


class Loads:
    """The loads of one client, over all namespaces."""

    def __init__(self, *, timeout: float, lease_wait: float, most_without_cache: int) -> None:
        self._timeout = timeout
        self.lease_wait = lease_wait
        """Seconds to wait for another holder's fill before loading without a lease."""
        self._most_without_cache = most_without_cache
        self.begin()
        self.started = 0
        self.without_cache = 0
        self.unkept = 0
        self.fenced = 0
        self.unfilled = 0
        self.unreadable = 0
        self._fills_fail = False
        self.stood_in = 0
        self.early = 0

    def begin(self) -> None:
        """Begins anew, on another loop."""
        self._turn = asyncio.Semaphore(self._most_without_cache)

    async def run(self, key: str, loader: Loader[V], lifetimes: Lifetimes) -> Loaded[V]:
        """Runs the loader. Raises its exceptions; `CacheError` (`deadline`) if it takes too long."""
        context = self._context(key, lifetimes)
        return await self._in_time(context, self._run(context, loader))

    async def run_without_cache(self, key: str, loader: Loader[V], lifetimes: Lifetimes) -> Loaded[V]:
        """Runs the loader when no lease holds back other processes, at most so many at a time.

        Without the limit the source would get at once all the reads that the cache kept from it. The
        time includes the wait for a turn.
        """
        self.without_cache += 1
        context = self._context(key, lifetimes)
        if isinstance(loader, Together):
            loader.without_cache(self._turn)
            return await self._in_time(context, self._run(context, loader))
        return await self._in_time(context, self._run_in_turn(context, loader))

    async def run_unkept(self, key: str, loader: Loader[V], lifetimes: Lifetimes) -> Loaded[V]:
        """Runs the loader of a key whose values cannot be kept: without a lease, and at once."""
        self.unkept += 1
        return await self.run(key, loader, lifetimes)

    def _context(self, key: str, lifetimes: Lifetimes) -> LoadContext:
        return LoadContext(key, lifetimes, time.monotonic() + self._timeout, time.monotonic)

    async def _run(self, context: LoadContext, loader: Loader[V]) -> Loaded[V]:
        self.started += 1
        call = cast(Callable[[str | LoadContext], Awaitable[V | Absent]], loader)
        with inner("cache.load"):
            loading = call(context if takes_context(loader) else context.key)
            check_awaitable(loading, loader)
            value = await loading
        return Loaded(value, context.lifetimes)

    async def _run_in_turn(self, context: LoadContext, loader: Loader[V]) -> Loaded[V]:
        async with self._turn:
            return await self._run(context, loader)

    async def _in_time(self, context: LoadContext, run: Awaitable[Loaded[V]]) -> Loaded[V]:
        try:
            async with asyncio.timeout(self._timeout) as limit:
                return await run
        except TimeoutError as error:
            if not limit.expired():  # the loader's own
                raise
            why = f"{context.key!r} was not loaded within {self._timeout:g} s"
            raise CacheError("deadline", why, retryable=True) from error

    def count_unreadable(self, key: str, why: UnreadableError) -> None:
        """Counts a stored value that this reader does not take. The first one is logged."""
        if not self.unreadable:
            log.warning("%r: %s (this is logged once; statistics().unreadable counts)", key, why)
        self.unreadable += 1

    def count_stood_in(self, key: str, error: Exception) -> None:
        """Counts a stale value that was answered as its load had failed. The first one is logged."""
        if not self.stood_in:
            log.warning("the load of %r failed, and its stale value is answered: %r", key, error)
        self.stood_in += 1

    def count_fill(self, key: str, filled: Put | CacheError) -> None:
        """Counts what became of a fill. A failed fill costs a load later, and not this answer.

        The first failure of a row is logged.
        """
        if isinstance(filled, CacheError):
            self.unfilled += 1
            if not self._fills_fail:
                log.warning("the loaded value of %r could not be stored: %s", key, filled)
        elif filled.outcome == "fenced":
            self.fenced += 1
        self._fills_fail = isinstance(filled, CacheError)
