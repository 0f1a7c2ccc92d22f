"""The read path of the fake service: wishes beyond the rule for fences, and results."""

from collections.abc import Callable
from typing import Literal, TypeAlias

from msgspec import Struct

from cachesvc_client.testing.clock import FakeClock
from cachesvc_client.testing.contract import SECONDS, Contract, Loaded
from cachesvc_client.testing.home import Draft, Entry, Fenced, Home, Pairs

Outcome: TypeAlias = Literal["hit", "stale", "loaded", "absent", "miss", "failed"]


class Asked(Struct, frozen=True):
    """The wishes of a read; times in µs, None if the read does not ask."""

    token: Pairs = {}
    lease: bool = False
    wait: float = 0.0
    """Seconds to wait for another caller's fill."""
    max_lag: int | None = None
    max_age: int | None = None
    max_stale: int | None = None
    min_fresh: int = 0
    no_cache: bool = False
    only_if_cached: bool = False


class Found(Struct, frozen=True):
    """The result of a read of one key."""

    outcome: Outcome
    entry: Entry | None = None
    lease: str = ""
    held: bool = False
    """True if the read asked for a lease and another caller has it: a fill may come."""
    unkept: bool = False
    """True if another caller has the lease, and values of the key could not be kept lately."""
    early: bool = False
    """True if the caller is asked to load the value anew, before it expires."""


class Reader:
    """The read path of the fake service."""

    def __init__(
        self,
        home: Home,
        clock: FakeClock,
        contract_of: Callable[[str], Contract],
        told: Callable[[list[Fenced]], None],
    ) -> None:
        """`told` is called with every new fence."""
        self._told = told
        self._home = home
        self._clock = clock
        self._contract_of = contract_of
        self.lag = 0.05
        """The staleness bound that answers say, in seconds.

        While it is above a `max_lag`, only copies younger than that `max_lag` are answered.
        """
        self.due_early: set[tuple[str, str]] = set()
        """Namespaces and keys whose next reader is asked to load the value before it expires."""

    def read(self, namespace: str, key: str, asked: Asked) -> Found:
        """Reads the key; loads it if the namespace has an origin, else grants a lease if asked."""
        entry = None if asked.no_cache else self._home.entry(namespace, key, asked.token)
        standing = "dead" if entry is None else self._home.standing(entry)
        if entry is not None and self._suits(entry, asked, self._contract_of(namespace)):
            if standing == "fresh":
                early = asked.lease and self._is_due_early(namespace, key)
                return Found("absent" if entry.draft.absent else "hit", entry, early=early)
            is_kept = standing == "stale" or (asked.max_stale is not None and standing == "last resort")
            if is_kept and not entry.draft.absent:
                return self._stale(namespace, key, entry, asked)
        if self._contract_of(namespace).origin is not None:
            return self._loaded(namespace, key, entry if standing != "dead" else None)
        lease = self._home.grant(namespace, key) if asked.lease else ""
        unkept = asked.lease and not lease and self._home.is_unkept(namespace, key)
        return Found("miss", lease=lease, held=asked.lease and not lease and not unkept, unkept=unkept)

    def _is_due_early(self, namespace: str, key: str) -> bool:
        """True for one reader of a key that is due early."""
        if (namespace, key) not in self.due_early:
            return False
        self.due_early.remove((namespace, key))
        return True

    def _suits(self, entry: Entry, asked: Asked, contract: Contract) -> bool:
        now = self._clock.now_us()
        remaining = entry.fresh_until - now
        lags = [round(contract.max_lag * SECONDS)] + ([asked.max_lag] if asked.max_lag is not None else [])
        if any(self.lag * SECONDS > lag and entry.as_of <= now - lag for lag in lags):
            return False
        if asked.max_age is not None and now - entry.as_of > asked.max_age:
            return False
        if remaining >= asked.min_fresh:
            return True
        if asked.max_stale is not None:
            return remaining > -asked.max_stale
        return asked.max_age is None and asked.min_fresh == 0

    def _stale(self, namespace: str, key: str, entry: Entry, asked: Asked) -> Found:
        """Answers with the stale copy, while the value is loaded anew.

        The origin loads it at once, behind this answer; without an origin the caller that is granted
        the lease loads it.
        """
        if self._contract_of(namespace).origin is not None:
            self._loaded(namespace, key, entry)
            return Found("stale", entry)
        return Found("stale", entry, self._home.grant(namespace, key) if asked.lease else "")

    def _loaded(self, namespace: str, key: str, last_resort: Entry | None) -> Found:
        origin = self._contract_of(namespace).origin
        try:
            value = origin(key) if origin is not None else None
        except Exception:  # noqa: BLE001  any exception of a test's origin is a failure of the origin
            return Found("stale", last_resort) if last_resort is not None else Found("failed")
        loaded = Loaded(value) if isinstance(value, bytes) else value
        draft = (
            Draft(absent=True)
            if loaded is None
            else Draft(loaded.value, loaded.content_type, loaded.tags, keep=loaded.keep)
        )
        entry, fences = self._home.load(namespace, key, draft)
        if fences:
            self._told(fences)
        return Found("absent" if draft.absent else "loaded", entry)
