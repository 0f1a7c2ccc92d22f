"""The contracts between the paths and what they stand on. Batch-first: everything remote takes many at once.

A miss is an answer (`None`, `Miss`), a failure is a `TierError`. A batch may fail in part, so in the results of a batch a
`TierError` stands as a *value* in the slots it concerns; these methods raise it only where the docstring says so.

Cancellation, for all of them: a cancelled caller leaves the exchange to end by itself (or its connection is closed); no
connection is ever left out of step.
"""

from collections.abc import Awaitable, Sequence
from typing import Protocol, TypeAlias

from msgspec import Struct

from cachesvc.errors import TierError
from cachesvc.model import Entry, Key, Target

Lookup: TypeAlias = Entry | TierError | None


class Tier(Protocol):
    """A holder of copies, or a route made of tiers. It judges nothing: expiry and fences are the reader's to check."""

    async def get_many(self, keys: Sequence[Key]) -> Sequence[Lookup]:
        """What is held, in the order of `keys`: an entry, `None` for a miss, a `TierError` for no answer. Never raises it."""
        ...

    async def set_many(self, items: Sequence[tuple[Key, Entry]]) -> Sequence[TierError]:
        """Keep these until their `kept_until`. Returns the failures; an entry the tier cannot hold (too large) is dropped."""
        ...

    async def delete_many(self, keys: Sequence[Key]) -> Sequence[TierError]:
        """Drop these; absent ones are fine. Frees memory and saves a round trip; correctness never depends on it."""
        ...

    async def start(self) -> None:
        """Never fails because a server is down: it connects when it is first used, and again after a failure."""
        ...

    async def stop(self) -> None:
        """Close what `start` opened. At most once, after `start`."""
        ...


class Pool(Tier, Protocol):
    """A tier that takes single keys as well, for callers that would rather be called back than wait in a task."""

    def ask(self, key: Key) -> Awaitable[Lookup]:
        """As `get_many` of one key. Where it batches, this is a future already: no coroutine and no task per key."""
        ...


class Read(Struct, frozen=True, gc=False):
    """One key of a batch read from its home cell."""

    key: Key
    not_before: int = 0
    """The newest fence the reader knows for the key (or, after a refusal, its tags): an entry not later than it is a miss."""
    lease: bool = False
    """Grant the lease if the entry is not fresh and nobody holds it."""
    refresh: bool = False
    """Grant it over a fresh entry too (early refresh, `no-cache`)."""
    lease_us: int = 5_000_000
    """Life of a granted lease, µs."""


class Reply(Struct, frozen=True, gc=False):
    """What the home cell says of one key."""

    entry: Entry | None
    """Judged at home against the fences stored there; `None` is a miss. Fresh or stale: the reader looks at the times."""
    exact: bool
    """`as_of` is after the cell's `broken_at`: exempt from sketch and floor. Else the reader checks those too."""
    lease: str | None = None
    """The granted lease token, `nonce:as_of`; `None` if not wanted or not granted."""
    held: bool = False
    """Not granted because another holds it."""
    soft: bool = False
    """The entry stands behind a soft fence stored at home: stale, not gone."""
    fenced: bool = False
    """A copy was there and a fence or `not_before` refused it (for Cache-Status and counting)."""


class Fill(Struct, frozen=True, gc=False):
    """Store what was loaded under a lease. `entry.as_of` must not be later than the lease's."""

    key: Key
    entry: Entry
    lease: str


class FillReply(Struct, frozen=True, gc=False):
    stored: bool
    """False: `fenced`. The lease is not the one in force any more, or a fence of the entry's tags or namespace refuses it."""


class Put(Struct, frozen=True, gc=False):
    """An invalidation of the key and a fill, in one script. The cell issues `at`; the entry gets `as_of = at + 1`."""

    key: Key
    entry: Entry
    if_absent: bool = False
    """`If-None-Match: *`: only if there is no admissible, positive entry."""
    if_match: tuple[str, ...] = ()
    """`If-Match`: only if the admissible entry's strong ETag is one of these (`*` matches any)."""


class PutReply(Struct, frozen=True, gc=False):
    stored: bool
    """False: the condition did not hold; nothing changed."""
    at: int = 0
    entry: Entry | None = None
    """The entry as stored, with its `as_of`."""


class CellKeyState(Struct, frozen=True):
    """What a cell holds of one key, for `:explain`. Changes nothing."""

    entry: Entry | None
    fence_at: int
    tag_fences: dict[str, int]
    """Of the tags that were asked for, and of those of the entry."""
    namespace_fence: int
    lease_held: bool
    lease_as_of: int
    broken_at: int
    now_us: int
    lease: str = ""
    """The token of the lease in force."""
    lease_until: int = 0
    """µs, by the cell's clock."""
    soft_fence: int = 0
    """The key's, if one came since the entry was stored."""
    soft_tag_fences: dict[str, int] = {}
    soft_namespace_fence: int = 0

    @property
    def refused_until(self) -> int:
        """µs: the copy at home is refused if it is not later. By a fence on a tag or the namespace: a hard one on the key takes
        the copy with it, so `fence_at` is behind any copy that is there, or soft."""
        of_tags = [self.tag_fences[tag] for tag in self.entry.tags] if self.entry else []
        return max(self.namespace_fence, *of_tags, 0)

    @property
    def stale_until(self) -> int:
        """µs: the copy at home stands behind a soft fence if it is not later."""
        of_tags = [self.soft_tag_fences[tag] for tag in self.entry.tags] if self.entry else []
        return max(self.soft_fence, self.soft_namespace_fence, *of_tags)


class Cell(Protocol):
    """A home cell: L3 copies, leases and fences, judged and changed in one script call per batch."""

    name: str

    async def read_many(self, reads: Sequence[Read]) -> Sequence[Reply | TierError]:
        """Read, and grant leases. One call to the server per batch."""
        ...

    async def fill_many(self, fills: Sequence[Fill]) -> Sequence[FillReply | TierError]:
        """Store under leases; idempotent by lease token (a retry of a stored fill answers stored). Ends the lease if stored."""
        ...

    async def put_many(self, puts: Sequence[Put]) -> Sequence[PutReply | TierError]: ...

    async def fence_many(self, targets: Sequence[Target], *, soft: bool, least: int = 0) -> Sequence[int | TierError]:
        """Apply invalidations: the `at` of each, in order.

        For a key the cell issues it (`max(home clock + S, stored + 1, least)`), deletes its lease, and a hard one drops the
        entry. For tags and namespaces `least` is the issuer's time; the cell keeps the newest of `least` and what is stored.
        """
        ...

    async def renew_many(self, leases: Sequence[tuple[Key, str, int]]) -> Sequence[bool | TierError]:
        """Prolong `(key, lease, life in µs)`; False if it is not in force any more. Never re-creates one."""
        ...

    async def release_many(self, leases: Sequence[tuple[Key, str]]) -> Sequence[TierError]:
        """Give leases back unfilled, so that the next reader need not wait for their expiry."""
        ...

    async def inspect(self, key: Key, tags: Sequence[str]) -> CellKeyState:
        """For `:explain`; changes nothing. Raises `TierError`."""
        ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class Loaded(Struct, frozen=True):
    """What an origin answered: bytes with lifetimes, or absence, or "not modified"."""

    value: bytes
    content_type: str
    ttl_us: int | None
    """Freshness the origin asked for, less its `Age`; None: the namespace's."""
    stale_for_us: int | None
    error_for_us: int | None
    tags: tuple[str, ...]
    age_us: int
    """The origin's `Age`: subtracted from `as_of`."""
    absent: bool = False
    """404 or 410: becomes a negative entry."""
    not_modified: bool = False
    """304: `value`, content type and tags are those of `known`, which it validated; filled again, under the lease."""
    storable: bool = True
    """False for `no-store` and `private`: answered, not kept."""
    etag: str | None = None


class Loader(Protocol):
    """Loads values of one namespace from its origin."""

    async def load(self, key: Key, *, known: Entry | None, timeout_seconds: float) -> Loaded:
        """Load within the timeout. `known` is a copy that may be revalidated by its ETag. Raises `OriginError`."""
        ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...
