from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from cachesvc.model.change import Target
from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import TierError


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

    async def fence_many(
        self, targets: Sequence[Target], *, soft: bool, least: int = 0
    ) -> Sequence[int | TierError]:
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
