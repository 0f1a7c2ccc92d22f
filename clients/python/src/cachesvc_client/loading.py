"""Running the callers' loaders: within a time, and within a number where the cache does not hold them back."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from cachesvc_client.errors import CacheError
from cachesvc_client.wire import Put

V = TypeVar("V")

log = logging.getLogger(__name__)


class Loads:
    """The loads of one client, over all namespaces."""

    def __init__(self, *, timeout: float, lease_wait: float, most_without_cache: int) -> None:
        self._timeout = timeout
        self.lease_wait = lease_wait
        """Seconds to wait for another holder's fill before loading without a lease."""
        self._turn = asyncio.Semaphore(most_without_cache)
        self.started = 0
        self.without_cache = 0
        self.fenced = 0
        self.unfilled = 0
        self._fills_fail = False

    async def run(self, key: str, loader: Callable[[str], Awaitable[V]]) -> V:
        """Raises what the loader raises, and `CacheError` (`deadline`) if it takes too long."""
        return await self._in_time(key, self._run(key, loader))

    async def run_without_cache(self, key: str, loader: Callable[[str], Awaitable[V]]) -> V:
        """The same, when no lease holds back other processes: at most so many at a time, or the source would get all at once
        what the cache used to keep from it. The time includes the wait for a turn.
        """
        self.without_cache += 1
        return await self._in_time(key, self._run_in_turn(key, loader))

    async def _run(self, key: str, loader: Callable[[str], Awaitable[V]]) -> V:
        self.started += 1
        return await loader(key)

    async def _run_in_turn(self, key: str, loader: Callable[[str], Awaitable[V]]) -> V:
        async with self._turn:
            return await self._run(key, loader)

    async def _in_time(self, key: str, run: Awaitable[V]) -> V:
        try:
            async with asyncio.timeout(self._timeout) as limit:
                return await run
        except TimeoutError as error:
            if not limit.expired():  # the loader's own
                raise
            raise CacheError("deadline", f"{key!r} was not loaded within {self._timeout:g} s", retryable=True) from error

    def count_fill(self, key: str, filled: Put | CacheError) -> None:
        """A fill that failed costs a load later, not this answer. The first of a row of failures is logged."""
        if isinstance(filled, CacheError):
            self.unfilled += 1
            if not self._fills_fail:
                log.warning("the loaded value of %r could not be stored: %s", key, filled)
        elif filled.outcome == "fenced":
            self.fenced += 1
        self._fills_fail = isinstance(filled, CacheError)
