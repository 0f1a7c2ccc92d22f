"""One running load per key in this process, shared by all who want it.

The load is a task of its own: a caller may be cancelled or run out of time, and the others, and the fill, still get what
they wait for. A write of this client forgets the flights it concerns: they go on for the callers they have, but a reader that
comes after the write starts anew, as a flight from before it may bring what was true before it.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from cachesvc_client.errors import CacheError

V = TypeVar("V")

log = logging.getLogger(__name__)


class Flights(Generic[V]):
    def __init__(self, tasks: set[asyncio.Task[Any]]) -> None:
        self._by_key: dict[str, asyncio.Task[V]] = {}
        self._tasks = tasks

    def get(self, key: str) -> asyncio.Task[V] | None:
        return self._by_key.get(key)

    def start(self, key: str, load: Callable[[], Coroutine[Any, Any, V]]) -> asyncio.Task[V]:
        """The running flight of the key, or a new one with `load`."""
        flight = self._by_key.get(key)
        if flight is None:
            flight = self._by_key[key] = asyncio.create_task(load(), name=f"cache load of {key}")
            self._tasks.add(flight)
            flight.add_done_callback(lambda done: self._ended(key, done))
        return flight

    def forget(self, key: str) -> None:
        self._by_key.pop(key, None)

    def forget_all(self) -> None:
        self._by_key.clear()

    def _ended(self, key: str, flight: asyncio.Task[V]) -> None:
        self._tasks.discard(flight)
        if self._by_key.get(key) is flight:
            del self._by_key[key]
        # Callers are told as well; this is for the loads that nobody waits for (any more).
        if not flight.cancelled() and (error := flight.exception()) is not None:
            log.debug("the load of %r failed: %r", key, error)


async def landed(flight: asyncio.Task[V]) -> V:
    """What the flight brings, or what it raises. Cancelling the caller leaves the flight alone."""
    try:
        return await asyncio.shield(flight)
    except asyncio.CancelledError:
        caller = asyncio.current_task()
        if flight.cancelled() and not (caller and caller.cancelling()):
            raise CacheError(
                "load-cancelled", "the load was cancelled from inside, or the cache closed", retryable=True
            ) from None
        raise
