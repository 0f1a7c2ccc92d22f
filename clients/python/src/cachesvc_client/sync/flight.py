"""One running load per key in this process, on the thread of the caller that began it.

The other callers wait for it. A waiter may run out of time, and the load goes on. If the loading
caller is torn out of its call (`gevent.Timeout`, `KeyboardInterrupt`), its flight is lost and the
waiters begin anew, one of them first.

A write of this client forgets the flights of its keys: they go on for the callers that have joined,
but a reader that comes after the write starts a new one. A flight from before the write may bring
what was true before it. Nobody joins an overdue flight either: its loader hangs, and no thread can
be made to stop.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeAlias, TypeVar
from weakref import WeakSet

from msgspec import Struct

from cachesvc_client.errors import CacheError
from cachesvc_client.requests.handed_tokens import Wanted, key_of
from cachesvc_client.sync import forks

V = TypeVar("V")


class Brought(Struct, Generic[V], frozen=True):
    value: V


class Failed(Struct, frozen=True):
    error: Exception
    """Raised in every waiter: an exception of a loader cannot be copied."""


End: TypeAlias = Brought[V] | Failed | None
"""How a flight ended. None: it was lost."""


class GaveUpError(CacheError):
    """The caller that runs the flight has no more time. Its waiters begin anew."""


class Flight(Generic[V]):
    """A running load, as its waiters see it."""

    def __init__(self, wanted: Wanted, overdue_at: float) -> None:
        self.wanted = wanted
        self.overdue_at = overdue_at
        """A time on `time.monotonic`; nobody joins the flight after it."""
        self.landed = threading.Event()
        self.brought: End[V] = None  # set before `landed`

    def end(self, deadline: float) -> End[V]:
        """Waits for the flight, and returns how it ended.

        Raises `CacheError` (`deadline`) if that takes longer than `deadline` or `overdue_at` allow.
        """
        if not self.landed.wait(min(deadline, self.overdue_at) - time.monotonic()):
            raise CacheError("deadline", "another caller's load of the key took too long", retryable=True)
        return self.brought


class Flights(Generic[V]):
    """The flights of one namespace object: the values of another may be of another type."""

    def __init__(self) -> None:
        self.after_fork()
        forks.register(self)

    def after_fork(self) -> None:
        """Forgets the flights: the loads of other threads go on in the parent only."""
        self._lock = threading.Lock()  # guards the flights; never held while waiting
        self._by_key: dict[str, Flight[V]] = {}

    def get(self, wanted: Wanted) -> Flight[V] | None:
        """The flight to join, or None.

        A flight that began under another token is not joined: it may show less.
        """
        flight = self._by_key.get(key_of(wanted))
        return (
            flight
            if flight is not None and flight.wanted == wanted and time.monotonic() < flight.overdue_at
            else None
        )

    def begin(self, wanted: Wanted, overdue_at: float, *, anew: bool) -> tuple[Flight[V], bool]:
        """Returns a flight, and whether the caller is to run it. `anew`: always a new one."""
        with self._lock:
            flight = None if anew else self.get(wanted)
            if flight is not None:
                return flight, False
            flight = self._by_key[key_of(wanted)] = Flight(wanted, overdue_at)
            return flight, True

    def run(self, flight: Flight[V], load: Callable[[], V]) -> Brought[V]:
        try:
            flight.brought = brought = Brought(load())
        except GaveUpError:
            raise
        except Exception as error:
            flight.brought = Failed(error)
            raise
        finally:
            self._remove(flight)  # first, or a waiter that begins anew would join it again
            flight.landed.set()
        return brought

    def end(self, flight: Flight[V], end: End[V]) -> None:
        """Ends a flight that its caller does not run by `run`."""
        flight.brought = end
        self._remove(flight)
        flight.landed.set()

    def _remove(self, flight: Flight[V]) -> None:
        key = key_of(flight.wanted)
        with self._lock:
            if self._by_key.get(key) is flight:
                del self._by_key[key]

    def forget(self, key: str) -> None:
        with self._lock:
            self._by_key.pop(key, None)

    def forget_all(self) -> None:
        with self._lock:
            self._by_key.clear()


class Airspace:
    """All flights of one namespace: a write through one of its objects concerns the others."""

    def __init__(self) -> None:
        self._all: WeakSet[Flights[Any]] = WeakSet()
        self.after_fork()
        forks.register(self)

    def after_fork(self) -> None:
        self._lock = threading.Lock()  # guards the set: it cannot be iterated while another thread adds to it

    def add(self, flights: Flights[Any]) -> None:
        with self._lock:
            self._all.add(flights)

    def forget(self, keys: Sequence[str], *, wide: bool = False) -> None:
        """Forgets the flights of these keys; `wide`: of all keys.

        Which keys have a tag is not known here, so an invalidation of tags is wide.
        """
        with self._lock:
            everyone = tuple(self._all)
        for flights in everyone:
            if wide:
                flights.forget_all()
            for key in keys:
                flights.forget(key)
