"""The entries, fences and leases of the fake service, and the rule by which it answers.

The rule is that of clients/PROTOCOL.md: a copy is good while it is newer than every fence on its
key, its tags and its namespace. There is one copy of each value and one order of events, so every
fence is in force at once. Nothing here does I/O or waits.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, TypeAlias

from msgspec import Struct
from xxhash import xxh3_64_hexdigest, xxh3_64_intdigest

from cachesvc_client.testing.clock import FakeClock
from cachesvc_client.testing.contract import SECONDS, Contract

Standing: TypeAlias = Literal["fresh", "stale", "last resort", "dead"]
"""The state of a copy; a `last resort` is past its stale window: for a failing origin."""
UNKEPT_US = 30 * SECONDS
"""The time for which a key is remembered whose value could not be kept."""
Pairs: TypeAlias = Mapping[int, int]
"""The pairs of a token: digest → `at`."""


def digest(target: str) -> int:
    """Returns the digest of `ns/key`, `ns#tag` or `ns`."""
    return xxh3_64_intdigest(target.encode())


class Draft(Struct, frozen=True):
    """A value that a caller wants stored; times in seconds, None stands for the namespace's."""

    value: bytes = b""
    content_type: str = "application/octet-stream"
    tags: tuple[str, ...] = ()
    ttl: float | None = None
    stale_while_revalidate: float | None = None
    stale_if_error: float | None = None
    absent: bool = False
    source_lag: float = 0.0
    keep: bool = True
    """False if the value may be answered once and not be kept."""


class Entry(Struct, frozen=True):
    """A stored value; times in µs."""

    draft: Draft
    targets: tuple[int, ...]
    """The digests of the key, of the tags and of the namespace, in this order."""
    as_of: int
    fresh_until: int
    stale_for: int
    error_for: int
    lease: str = ""
    """The lease under which the entry was filled, by which a repeated fill is recognised."""

    @property
    def etag(self) -> str:
        """The ETag in quotes, as clients/PROTOCOL.md defines it."""
        return f'"{xxh3_64_hexdigest(self.draft.value, xxh3_64_intdigest(self.draft.content_type.encode()))}"'


class Fenced(Struct, frozen=True):
    """A fence on one target, as subscribers are told it; times in µs."""

    target: str
    at: int
    soft: bool = False
    over: int = 0


class _Lease(Struct, frozen=True):
    token: str
    as_of: int
    expires_at: int


class Home:
    """All entries, fences and leases of the fake service; `FakeService` holds its lock."""

    def __init__(self, clock: FakeClock, contract_of: Callable[[str], Contract]) -> None:
        self._clock = clock
        self._contract_of = contract_of
        self._entries: dict[str, Entry] = {}
        self._leases: dict[str, _Lease] = {}
        self._unkept: dict[str, int] = {}
        self._hard: dict[int, int] = {}
        self._soft: dict[int, int] = {}
        self._paced: dict[int, list[tuple[int, int]]] = {}

    def forget(self) -> None:
        """Forgets all values and leases."""
        self._entries.clear()
        self._leases.clear()

    def __len__(self) -> int:
        return len(self._entries)

    # reading --------------------------------------------------------------------------------------

    def entry(self, namespace: str, key: str, token: Pairs) -> Entry | None:
        """Returns the copy, or None if a fence that is known here or in the token refuses it.

        The copy may be stale, or too old for anything (`standing`).
        """
        entry = self._entries.get(f"{namespace}/{key}")
        if entry is None or self._is_fenced(entry.as_of, entry.targets):
            return None
        return None if any(entry.as_of <= token.get(target, 0) for target in entry.targets) else entry

    def standing(self, entry: Entry) -> Standing:
        """Returns the state of the copy at this moment, hard fences apart."""
        past = self._clock.now_us() - entry.fresh_until
        if past < 0 and not self._is_soft_fenced(entry):
            return "fresh"
        if past < entry.stale_for:
            return "stale"
        return "last resort" if past < entry.error_for else "dead"

    def _is_fenced(self, as_of: int, targets: Iterable[int]) -> bool:
        return any(as_of <= self._hard.get(target, 0) for target in targets)

    def _is_soft_fenced(self, entry: Entry) -> bool:
        if any(entry.as_of <= self._soft.get(target, 0) for target in entry.targets):
            return True
        now, key_digest = self._clock.now_us(), entry.targets[0]
        windows = [window for target in entry.targets for window in self._paced.get(target, ())]
        return any(entry.as_of <= at and now >= at + (key_digest * over >> 64) for at, over in windows)

    # leases ---------------------------------------------------------------------------------------

    def grant(self, namespace: str, key: str) -> str:
        """Grants the key's lease and returns its token; empty if another caller holds the lease."""
        if self.is_leased(namespace, key):
            return ""
        as_of = self._clock.stamp()
        token = f"{as_of % 0xFFFF:04x}:{as_of}"
        life = round(self._contract_of(namespace).lease * SECONDS)
        self._leases[f"{namespace}/{key}"] = _Lease(token, as_of, self._clock.now_us() + life)
        return token

    def is_leased(self, namespace: str, key: str) -> bool:
        """True if a caller holds the key's lease and it has not expired."""
        lease = self._leases.get(f"{namespace}/{key}")
        return lease is not None and self._clock.now_us() < lease.expires_at

    def release(self, namespace: str, key: str, token: str, *, unkept: bool) -> None:
        """Gives the lease back, if it is in force; `unkept`: its value cannot be kept."""
        id_ = f"{namespace}/{key}"
        lease = self._leases.get(id_)
        if lease is not None and lease.token == token and self.is_leased(namespace, key):
            del self._leases[id_]
            if unkept:
                self._unkept[id_] = self._clock.now_us() + UNKEPT_US

    def is_unkept(self, namespace: str, key: str) -> bool:
        """True if a value of the key could not be kept lately: nobody waits for a fill."""
        return self._clock.now_us() < self._unkept.get(f"{namespace}/{key}", 0)

    def fill(self, namespace: str, key: str, draft: Draft, token: str) -> bool:
        """Stores the value under the lease; true if it is stored.

        False if the lease was voided or has expired, or if a fence has come on a target of the
        value since the lease was granted, or since the source may have shown the value.
        """
        id_ = f"{namespace}/{key}"
        held = self._entries.get(id_)
        if held is not None and held.lease == token:
            return not self._is_fenced(held.as_of, held.targets)
        lease = self._leases.get(id_)
        if lease is None or lease.token != token or not self.is_leased(namespace, key):
            return False
        del self._leases[id_]
        as_of = lease.as_of - round(draft.source_lag * SECONDS)
        if self._is_fenced(as_of, _targets(namespace, key, draft.tags)):
            return False
        self._store(namespace, key, draft, as_of, token)
        return True

    # writing --------------------------------------------------------------------------------------

    def put(self, namespace: str, key: str, draft: Draft) -> Fenced:
        """Invalidates the key and stores the value; returns the fence."""
        (fenced,) = self.invalidate(namespace, keys=[key])
        self._store(namespace, key, draft, self._clock.stamp())
        return fenced

    def load(self, namespace: str, key: str, draft: Draft) -> tuple[Entry, list[Fenced]]:
        """Stores a value that an origin has returned, if it may be kept.

        If not, an older copy may not be answered either: its key is fenced, and the fence returned.
        """
        id_ = f"{namespace}/{key}"
        older = None if draft.keep else self._entries.get(id_)
        fences = self.invalidate(namespace, keys=[key]) if older is not None else []
        entry = self._store(namespace, key, draft, self._clock.stamp())
        if not draft.keep:
            del self._entries[id_]
        return entry, fences

    def _store(self, namespace: str, key: str, draft: Draft, as_of: int, lease: str = "") -> Entry:
        contract = self._contract_of(namespace)
        ttl = draft.ttl if draft.ttl is not None else contract.negative_ttl if draft.absent else contract.ttl
        stale = (
            draft.stale_while_revalidate
            if draft.stale_while_revalidate is not None
            else contract.stale_while_revalidate
        )
        error = draft.stale_if_error if draft.stale_if_error is not None else contract.stale_if_error
        self._unkept.pop(f"{namespace}/{key}", None)
        entry = self._entries[f"{namespace}/{key}"] = Entry(
            draft,
            _targets(namespace, key, draft.tags),
            as_of,
            self._clock.now_us() + round(ttl * SECONDS),
            0 if draft.absent else round(stale * SECONDS),
            0 if draft.absent else round(error * SECONDS),
            lease,
        )
        return entry

    # invalidating ---------------------------------------------------------------------------------

    def invalidate(
        self,
        namespace: str,
        *,
        keys: Sequence[str] = (),
        tags: Sequence[str] = (),
        whole: bool = False,
        soft: bool = False,
        over: int = 0,
    ) -> list[Fenced]:
        """Fences the keys, the tags and, if `whole`, the namespace; returns the fences.

        `over` is the length of a paced invalidation's window in µs, 0 if it is not paced. Leases of the
        keys are voided unless it is paced.
        """
        for key in keys if not over else ():
            self._leases.pop(f"{namespace}/{key}", None)
        targets = (
            [f"{namespace}/{key}" for key in keys]
            + [f"{namespace}#{tag}" for tag in tags]
            + [namespace] * whole
        )
        return [
            self._fence(Fenced(target, self._clock.stamp(), soft and not over, over)) for target in targets
        ]

    def _fence(self, fenced: Fenced) -> Fenced:
        target = digest(fenced.target)
        if fenced.over:
            self._paced.setdefault(target, []).append((fenced.at, fenced.over))
        else:
            (self._soft if fenced.soft else self._hard)[target] = fenced.at
        return fenced

    def count(self, namespace: str, keys: Sequence[str], tags: Sequence[str], *, whole: bool) -> int:
        """Returns the number of copies that an invalidation would touch."""
        named = {digest(f"{namespace}/{key}") for key in keys} | {
            digest(f"{namespace}#{tag}") for tag in tags
        }
        named |= {digest(namespace)} if whole else set()
        return sum(
            1
            for entry in self._entries.values()
            if named & set(entry.targets) and self.standing(entry) != "dead"
        )


def _targets(namespace: str, key: str, tags: Iterable[str]) -> tuple[int, ...]:
    return (digest(f"{namespace}/{key}"), *(digest(f"{namespace}#{tag}") for tag in tags), digest(namespace))
