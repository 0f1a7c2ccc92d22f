"""One running load per key in this process, shared by all callers that want the key.

The load is a task of its own: a caller may be cancelled or run out of time, and the other callers
and the fill still get its value. A write of this client forgets the flights of its keys: they go on
for the callers that have joined, but a reader that comes after the write starts a new one. A flight
from before the write may bring what was true before it.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from cachesvc_client.errors import CacheError, CodecError
from cachesvc_client.requests.handed_tokens import Wanted, key_of

V = TypeVar("V")

log = logging.getLogger(__name__)


class Flights(Generic[V]):
    """The flights of one namespace object: the values of another may be of another type.

    A key that is read under a token has a flight of its own: one that started without the token may
    show less.
    """

    def __init__(self, tasks: set[asyncio.Task[Any]]) -> None:
        self._by_key: dict[str, dict[Wanted, asyncio.Task[V]]] = {}
        self._tasks = tasks

    def get(self, wanted: Wanted) -> asyncio.Task[V] | None:
        flights = self._by_key.get(key_of(wanted))
        return flights.get(wanted) if flights is not None else None

    def start(
        self, wanted: Wanted, load: Callable[[], Coroutine[Any, Any, V]], *, anew: bool = False
    ) -> asyncio.Task[V]:
        """Returns the running flight, or starts one with `load`. `anew`: always a new one."""
        flight = None if anew else self.get(wanted)
        if flight is None:
            flight = asyncio.create_task(load(), name=f"cache load of {key_of(wanted)}")
            self._by_key.setdefault(key_of(wanted), {})[wanted] = flight
            self._tasks.add(flight)
            flight.add_done_callback(lambda done: self._ended(wanted, done))
        return flight

    def forget(self, key: str) -> None:
        self._by_key.pop(key, None)

    def forget_all(self) -> None:
        self._by_key.clear()

    def _ended(self, wanted: Wanted, flight: asyncio.Task[V]) -> None:
        self._tasks.discard(flight)
        key = key_of(wanted)
        flights = self._by_key.get(key, {})
        if flights.get(wanted) is flight:
            del flights[wanted]
            if not flights:
                del self._by_key[key]
        if not flight.cancelled() and (error := flight.exception()) is not None:
            log_failure(key, error)  # callers are told too; this is for loads that nobody waits for


def log_failure(key: str, error: BaseException) -> None:
    """Logs a load that failed.

    One that brings what cannot be stored would fail each time, and the old value would stay.
    """
    level = logging.ERROR if isinstance(error, CodecError) else logging.DEBUG
    log.log(level, "the load of %r failed: %r", key, error)


class Airspace:
    """All flights of one namespace: a write through one of its objects concerns the others."""

    def __init__(self) -> None:
        self._all: WeakSet[Flights[Any]] = WeakSet()

    def add(self, flights: Flights[Any]) -> None:
        self._all.add(flights)

    def forget(self, keys: list[str], *, wide: bool = False) -> None:
        """Forgets the flights of these keys; `wide`: of all keys.

        Which keys have a tag is not known here, so an invalidation of tags is wide.
        """
        for flights in self._all:
            if wide:
                flights.forget_all()
            for key in keys:
                flights.forget(key)


async def landed(flight: asyncio.Task[V]) -> V:
    """Waits for a flight; returns its value or raises its exception.

    A caller that is cancelled leaves the flight running. Raises `CacheError` (`load-cancelled`) if
    the flight itself was cancelled.
    """
    try:
        return await asyncio.shield(flight)
    except asyncio.CancelledError:
        caller = asyncio.current_task()
        if flight.cancelled() and not (caller and caller.cancelling()):
            raise CacheError(
                "load-cancelled", "the load was cancelled from inside, or the cache closed", retryable=True
            ) from None
        raise
