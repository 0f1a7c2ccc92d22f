"""The contract of a home cell, and the values that its calls take and return."""

from collections.abc import Awaitable, Sequence
from typing import Protocol

from msgspec import Struct

from cachesvc.model.change import Target
from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import TierError


class Read(Struct, frozen=True, gc=False):
    """One key of a batch that is read from its home cell."""

    key: Key
    not_before: int = 0
    """µs: the newest fence that the reader knows for the key (after a refusal, also for the
    tags of the entry). An entry that is not later is a miss."""
    lease: bool = False
    """Grant the lease if the entry is not fresh and no lease is in force."""
    refresh: bool = False
    """Grant the lease over a fresh entry too (early refresh, `no-cache`)."""
    lease_us: int = 5_000_000
    """Life of a granted lease, µs."""


class Reply(Struct, frozen=True, gc=False):
    """The home cell's answer for one key."""

    entry: Entry | None
    """The entry, judged by the home cell against the fences stored there; None is a miss. It
    may be fresh or stale: the reader looks at the times."""
    exact: bool
    """True if `as_of` is later than the cell's `broken_at`, and than the moment at which this
    instance met the cell's server (`issuer.py`): then sketch and floor need not be asked. If false,
    the reader checks the entry against both."""
    lease: str | None = None
    """The granted lease token, `nonce:as_of`; None if none was wanted or granted."""
    held: bool = False
    """True if the lease was not granted because another one is in force."""
    soft: bool = False
    """True if the entry is behind a soft fence stored in the home cell: stale, not refused."""
    fenced: bool = False
    """True if there was a copy and a fence or `not_before` refused it (for `Cache-Status` and
    the counters)."""


class Fill(Struct, frozen=True, gc=False):
    """Stores a value that was loaded under a lease.

    `entry.as_of` must not be later than the lease's `as_of`.
    """

    key: Key
    entry: Entry
    lease: str


class FillReply(Struct, frozen=True, gc=False):
    """The outcome of a fill."""

    stored: bool
    """False: the lease is not in force any more, or a fence refuses the entry."""
    fenced: bool = False
    """True: a fence on the key, a tag or the namespace refuses the entry."""


class FenceReply(Struct, frozen=True, gc=False):
    """The outcome of an invalidation."""

    at: int
    """µs: the newest fence on the target in the cell."""
    issuer: int
    """The number of the server that has applied it (`issuer.py`)."""


class Put(Struct, frozen=True, gc=False):
    """An invalidation of the key and a fill, in one script.

    The cell issues `at`, and the entry gets `as_of = at + 1`. Fences that are known, on tags and
    namespace too, must not refuse it or make it stale: if they would now, the cell invalidates the
    key and grants the lease to the caller, who fills the entry when its time has come.
    """

    key: Key
    entry: Entry
    if_absent: bool = False
    """`If-None-Match: *`: store only if there is no admissible, positive entry."""
    if_match: tuple[str, ...] = ()
    """`If-Match`: store only if the strong ETag of the admissible entry is one of these (`*`
    matches any)."""
    known: int = 0
    """µs: the newest fence on the entry that the caller knows."""


class PutReply(Struct, frozen=True, gc=False):
    """The outcome of a put."""

    stored: bool
    """False if the condition did not hold (`at` 0: nothing changed), or if known fences refuse
    what is stored now (`at` is set: the key is invalidated)."""
    at: int = 0
    """µs: the fence that the put made; 0 if it made none."""
    entry: Entry | None = None
    """The entry as stored, with its `as_of`."""
    issuer: int = 0
    """The number of the server that has stored it (`issuer.py`); 0 if nothing was stored."""
    lease: str = ""
    """The lease to fill the entry under after `wait_us`; its `as_of` is `at + 1`.

    Empty if the entry is stored, and if the fences lie so far ahead that a clock was wrong.
    """
    wait_us: int = 0
    """The time until the fences let the entry through, by the cell's clock."""


class CellKeyState(Struct, frozen=True):
    """The state of one key in a cell, for `:explain`. All times are µs."""

    entry: Entry | None
    fence_at: int
    tag_fences: dict[str, int]
    """Fences on the tags that were asked for, and on the tags of the entry."""
    namespace_fence: int
    lease_held: bool
    lease_as_of: int
    broken_at: int
    now_us: int
    lease: str = ""
    """The token of the lease in force; empty if there is none."""
    lease_until: int = 0
    """µs, by the cell's clock; 0 if no lease is in force."""
    soft_fence: int = 0
    """The soft fence on the key; 0 if none came since the entry was stored."""
    soft_tag_fences: dict[str, int] = {}
    soft_namespace_fence: int = 0
    issuer: int = 0
    """The number of the server that told this (`issuer.py`)."""
    exact_from: int = 0
    """µs: a copy with a later `as_of` is exact to this instance (`Reply.exact`)."""

    @property
    def refused_until(self) -> int:
        """µs: a copy in this cell is refused if its `as_of` is not later.

        The fences on the tags and on the namespace decide. A hard fence on the key takes the copy with it,
        so `fence_at` is earlier than any copy that is there, or it is a soft fence.
        """
        of_tags = [self.tag_fences[tag] for tag in self.entry.tags] if self.entry else []
        return max(self.namespace_fence, *of_tags, 0)

    @property
    def stale_until(self) -> int:
        """µs: a copy in this cell is behind a soft fence if its `as_of` is not later."""
        of_tags = [self.soft_tag_fences[tag] for tag in self.entry.tags] if self.entry else []
        return max(self.soft_fence, self.soft_namespace_fence, *of_tags)


class Use(Struct, frozen=True):
    """The queue that a part of an instance uses for a region."""

    region: str
    who: str
    """The part, by a word that no other instance has."""
    queue: str


class Claimed(Struct, frozen=True):
    """A cell's answer to an instance that says which queues it uses."""

    server: str
    """The run id of the cell's server."""
    others: Sequence[Sequence[str]] = ()
    """For each use, the other queues that are used for its region now."""


class Cell(Protocol):
    """A home cell: copies, leases and fences, judged and changed in one script call per batch.

    A batch may fail in part: a `TierError` stands as a value in the places that it concerns.
    """

    name: str

    @property
    def issuer(self) -> int:
        """The number of the server behind this instance's connections (`issuer.py`).

        0 before one was met.
        """
        ...

    @property
    def master(self) -> str:
        """`host:port` of the master that sentinels named last; empty if none did."""
        ...

    @property
    def round_trip_seconds(self) -> float:
        """The estimate of the way to the server and back; 0 before the first exchange."""
        ...

    def look_again(self) -> None:
        """Notes that another instance's connections lead to another server of this name.

        The server's name is looked up anew before the next use, once per second at most.
        """
        ...

    def ask(self, read: Read) -> Awaitable[Reply | TierError]:
        """Returns the awaitable answer to one read, as `read_many` would answer it.

        Where the cell batches, the awaitable is a future: no coroutine and no task per key. If the
        awaitable is cancelled, a lease that it would have brought is given back.
        """
        ...

    async def read_many(self, reads: Sequence[Read]) -> Sequence[Reply | TierError]:
        """Returns the copies, and grants leases. One call to the server per batch."""
        ...

    async def fill_many(self, fills: Sequence[Fill]) -> Sequence[FillReply | TierError]:
        """Stores entries under leases; a stored fill ends its lease.

        A fill is idempotent by its lease token: a retry of a stored fill answers `stored`.
        """
        ...

    async def put_many(self, puts: Sequence[Put]) -> Sequence[PutReply | TierError]:
        """Stores entries as invalidations of their keys; the cell issues the fences."""
        ...

    async def fence_many(
        self, targets: Sequence[Target], *, soft: bool, least: int = 0
    ) -> Sequence[FenceReply | TierError]:
        """Applies invalidations and returns the `at` of each, in order.

        For a key the cell issues `at` (`max(home clock + S, stored + 1, least)`) and deletes the lease; a
        hard one also drops the entry. For tags and namespaces `least` is the issuer's time; the cell keeps
        the newest of `least` and the stored fence.
        """
        ...

    async def renew_many(self, leases: Sequence[tuple[Key, str, int]]) -> Sequence[bool | TierError]:
        """Prolongs leases; false for a lease that is not in force any more.

        Each is given as `(key, lease, life in µs)`. A renewal never re-creates a lease.
        """
        ...

    async def release_many(self, leases: Sequence[tuple[Key, str]]) -> Sequence[bool | TierError]:
        """Gives leases back unfilled, so that the next reader need not wait for them to expire.

        False for a lease that is not in force any more; the key's next lease, of another token, is left
        as it is.
        """
        ...

    def release(self, key: Key, lease: str) -> None:
        """Does what `release_many` does, for one lease and for nobody who waits.

        It is sent behind the call. A failure is told to nobody: the lease then ends with its life.
        """
        ...

    async def inspect(self, key: Key, tags: Sequence[str]) -> CellKeyState:
        """Returns the state of a key, for `:explain`; changes nothing. Raises `TierError`."""
        ...

    async def claim(self, uses: Sequence[Use], live_us: int) -> Claimed:
        """Notes which queues an instance uses. Raises `TierError`.

        The notes count for `live_us`, by the cell's clock.
        """
        ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...
