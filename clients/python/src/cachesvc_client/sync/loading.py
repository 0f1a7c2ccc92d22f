"""Runs the callers' loaders on the callers' threads; few if the cache is out of reach.

No thread can be stopped from outside: a loader is told its deadline (`ctx.deadline`,
`ctx.time_left`) and has to keep to it. A value that it brings later is returned all the same, and
probably not stored, as its lease has expired.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeAlias, TypeVar, cast

from cachesvc_client.errors import CacheError
from cachesvc_client.protocol.wire import Put
from cachesvc_client.sync import forks
from cachesvc_client.sync.together import ManyLoader, loaded
from cachesvc_client.tracing.spans import inner
from cachesvc_client.values.codecs import UnreadableError
from cachesvc_client.values.context import Absent, LoadContext, check_value, takes_context
from cachesvc_client.values.lifetimes import Lifetimes

V = TypeVar("V")
Loader: TypeAlias = Callable[[str], V | Absent] | Callable[[LoadContext], V | Absent]
"""Loads a value, given its key, or the context if its parameter is named `ctx`.

A loader reads its source after it was called, not before: the lease counts from the call.
"""

log = logging.getLogger(__name__)


class Loads:
    """The loads of one client, over all namespaces."""

    def __init__(self, *, timeout: float, lease_wait: float, most_without_cache: int) -> None:
        self.timeout = timeout
        """The seconds that a loader is given."""
        self.lease_wait = lease_wait
        """Seconds to wait for another holder's fill before loading without a lease."""
        self._most = most_without_cache
        self.started = 0
        self.without_cache = 0
        self.unkept = 0
        self.fenced = 0
        self.unfilled = 0
        self.unreadable = 0
        self._fills_fail = False
        self.stood_in = 0
        self.early = 0
        self.after_fork()
        forks.register(self)

    def after_fork(self) -> None:
        self._lock = threading.Lock()  # guards the counters
        self._turns = threading.Semaphore(self._most)

    def run(self, key: str, loader: Loader[V], lifetimes: Lifetimes) -> tuple[V | Absent, Lifetimes]:
        """Returns the value, and how long it lives. Raises the loader's exceptions."""
        return self._run(LoadContext(key, lifetimes, time.monotonic() + self.timeout, time.monotonic), loader)

    def run_many(self, keys: list[str], loader: ManyLoader[V], *, leased: int) -> dict[str, V | Absent]:
        """Runs the loader for many keys; raises its exceptions.

        With fewer leases than keys it takes one of the turns of `run_without_cache`.
        """
        with self._lock:
            self.started += 1
            self.without_cache += len(keys) - leased
        is_in_turn = leased < len(keys)
        if is_in_turn and not self._turns.acquire(timeout=self.timeout):
            why = f"{len(keys)} keys had no turn to be loaded within {self.timeout:g} s"
            raise CacheError("deadline", why, retryable=True)
        try:
            with inner("cache.load"):
                return loaded(loader, keys)
        finally:
            if is_in_turn:
                self._turns.release()

    def run_without_cache(self, key: str, loader: Loader[V], lifetimes: Lifetimes) -> V | Absent:
        """Runs the loader when no lease holds back other processes, at most so many at a time.

        Without the limit the source would get at once all the reads that the cache kept from it. The
        time includes the wait for a turn.
        """
        with self._lock:
            self.without_cache += 1
        ctx = LoadContext(key, lifetimes, time.monotonic() + self.timeout, time.monotonic)
        if not self._turns.acquire(timeout=self.timeout):
            raise CacheError(
                "deadline", f"{key!r} had no turn to be loaded within {self.timeout:g} s", retryable=True
            )
        try:
            return self._run(ctx, loader)[0]
        finally:
            self._turns.release()

    def run_unkept(self, key: str, loader: Loader[V], lifetimes: Lifetimes) -> V | Absent:
        """Runs the loader of a key whose values cannot be kept: without a lease, and at once."""
        with self._lock:
            self.unkept += 1
        return self.run(key, loader, lifetimes)[0]

    def _run(self, ctx: LoadContext, loader: Loader[V]) -> tuple[V | Absent, Lifetimes]:
        with self._lock:
            self.started += 1
        call = cast(Callable[[str | LoadContext], V | Absent], loader)
        with inner("cache.load"):
            value = call(ctx if takes_context(loader) else ctx.key)
        check_value(value, loader)
        return value, ctx.lifetimes

    def count_early(self, keys: int) -> None:
        """Counts keys whose loads begin while their values are fresh."""
        with self._lock:
            self.early += keys

    def count_stood_in(self, key: str, error: Exception) -> None:
        """Counts a stale value that was answered as its load had failed. The first one is logged."""
        with self._lock:
            is_first = not self.stood_in
            self.stood_in += 1
        if is_first:
            log.warning("the load of %r failed, and its stale value is answered: %r", key, error)

    def count_fill(self, key: str, filled: Put | CacheError) -> None:
        """Counts what became of a fill. A failed fill costs a load later, and not this answer.

        The first failure of a row is logged.
        """
        failed = isinstance(filled, CacheError)
        with self._lock:
            is_first = failed and not self._fills_fail
            self._fills_fail = failed
            self.unfilled += failed
            self.fenced += isinstance(filled, Put) and filled.outcome == "fenced"
        if is_first:
            log.warning("the loaded value of %r could not be stored: %s", key, filled)

    def count_unreadable(self, key: str, why: UnreadableError) -> None:
        """Counts a stored value that this reader does not take. The first one is logged."""
        with self._lock:
            is_first = not self.unreadable
            self.unreadable += 1
        if is_first:
            log.warning("%r: %s (this is logged once; statistics().unreadable counts)", key, why)
