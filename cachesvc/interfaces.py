"""The contracts between the paths and what they stand on. Batch-first: everything remote takes many at once.

A miss is an answer (`None`, `Miss`), a failure is a `TierError`. A batch may fail in part, so in the results of a batch a
`TierError` stands as a *value* in the slots it concerns; these methods raise it only where the docstring says so.

Cancellation, for all of them: a cancelled caller leaves the exchange to end by itself (or its connection is closed); no
connection is ever left out of step.
"""

from collections.abc import Awaitable, Sequence
from typing import Literal, Protocol, TypeAlias

from msgspec import Struct

from cachesvc.errors import TierError
from cachesvc.model import Change, Entry, Fence, Key, Target

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
    namespace_fence: int
    lease_held: bool
    lease_as_of: int
    broken_at: int
    now_us: int


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


class OpenChange(Struct, frozen=True):
    """An item taken from the queue and not yet acknowledged: a CloudEvent, or a row change that maps to several changes."""

    id: str
    changes: tuple[Change, ...] = ()
    """What it says changed. Empty and without a `reason`: it says that nothing did (a snapshot row, a tombstone); close it."""
    reason: str = ""
    """Why it belongs on the dead-letter stream. `changes`, if any, are applied all the same before it is buried."""
    held_until_us: int = 0
    """An invalidate call is doing this one itself until then; redo it only if it is still open afterwards."""
    source: str = ""
    """Who said it: the event's `source`. For the audit."""


class Completion(Struct, frozen=True):
    complete_to: int
    """µs: every change accepted before is acknowledged or parked (oldest pending or undelivered id; else the queue's clock)."""
    epoch: str
    """Of the `changes` stream. Another one than before: accepted changes may have been lost with the server's tail."""
    announced: bool
    """The loss that this epoch may mean has been announced (`Changes.announced`)."""


class OpenCount(Struct, frozen=True):
    backlog: int
    """Accepted, not yet acknowledged, parked ones apart."""
    parked: int
    """Their fences are out; a home cell has not taken them yet."""
    dead: int
    """On the dead-letter stream."""


class Changes(Protocol):
    """The `changes` stream of one region with its one consumer group: at least once, never skipped. All raise `TierError`."""

    async def append(self, change: Change, *, held_until_us: int = 0) -> str:
        """Durably accept a change; its id. Raises if the queue cannot take it: then nothing was promised."""
        ...

    async def take(self, consumer: str, *, count: int, wait_seconds: float) -> Sequence[OpenChange]:
        """New changes for this consumer; after `wait_seconds` possibly none. Creates stream and group if missing."""
        ...

    async def reclaim(self, consumer: str, *, idle_seconds: float, count: int) -> Sequence[OpenChange]:
        """Changes that some consumer took and left open for `idle_seconds`: now this consumer's."""
        ...

    async def parked(self, consumer: str, *, idle_seconds: float, count: int) -> Sequence[OpenChange]:
        """Parked changes (`Done.missed`) that nobody tried for `idle_seconds`: now this consumer's. Closed by id, as any."""
        ...

    async def acknowledge(self, ids: Sequence[str]) -> None:
        """These are done: out of the group's pending list and out of the stream."""
        ...

    async def bury(self, change: OpenChange) -> None:
        """Move one to the dead-letter stream, with its reason, and acknowledge it. Its receipt says so."""
        ...

    async def completion(self) -> Completion:
        """How far the group is; read this *before* the heartbeat that carries it is appended."""
        ...

    async def announced(self, epoch: str) -> None:
        """Fences on every namespace are out for this epoch: other consumers need not publish them again."""
        ...

    async def open_count(self) -> OpenCount:
        """How many changes wait, for metrics."""
        ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class Audit(Struct, frozen=True):
    """Who invalidated what, for the `audit` stream. The queue adds when, and the receipt's id."""

    who: str
    """The caller's `Cachesvc-Caller`, an event's `source`, else the peer's address."""
    instance: str
    """The one that did it."""
    namespace: str
    targets: str
    """Such as `2 keys, 1 tag` or `all`; never key text."""
    soft: bool = False
    over: str = ""


class Done(Struct, frozen=True):
    """A change that is through: its fence goes out with this. The queue keeps a receipt of it for 15 minutes."""

    id: str
    missed: tuple[str, ...] = ()
    """Home cells that could not take it. If any, the change is parked: open still, and out of the way of `complete_to`."""
    cells: tuple[str, ...] = ()
    """Home cells that took it."""
    audit: Audit | None = None


class FenceBatch(Struct, frozen=True):
    """One read of a region's `fences` stream, in stream order."""

    fences: Sequence[Fence]
    complete_to: int | None
    """The newest heartbeat in the batch, if any."""
    gap: bool = False
    """Items were lost between the last position and this one (trimmed, another epoch): raise the floor before going on.
    `fences` are then the paced fences still in force."""
    position: str = ""
    """Where the reader stands after it; positions of one stream compare by `position_of`."""
    report: bool = False
    """Somebody waits for the readers' positions (or a heartbeat came by): `FenceStream.report` once this is merged."""


class FenceStart(Struct, frozen=True):
    """Where a new instance starts on a region's stream."""

    floor: int
    """µs: copies not younger than this cannot be vouched for. Publication time of the oldest retained item + 3 S."""
    fences: Sequence[Fence] = ()
    """Paced fences in force, whose items may have been trimmed."""
    position: str = ""
    tail: str = ""
    """The newest item when the stream was opened: once past it, the reader has caught up."""


class ReaderPosition(Struct, frozen=True):
    """How far one instance has merged a region's stream."""

    region: str
    instance: str
    position: str
    silent_us: int
    """Since its last report, by the queue's clock."""


class ReceiptRecord(Struct, frozen=True):
    """What the queue knows of a change by its id."""

    state: Literal["open", "parked", "done", "buried"]
    """`open`: accepted, its fence is not out. `parked`: the fence is out, a home cell is missing."""
    position: str = ""
    """Of its fence on the region's `fences`; empty while there is none."""
    cells: tuple[str, ...] = ()
    """Home cells that have applied it."""
    missed: tuple[str, ...] = ()
    reason: str = ""
    """Why it was buried."""


class FenceStream(Protocol):
    """The `fences` stream of one region. One reader, one position per object. All raise `TierError` while it is out of reach."""

    region: str

    async def publish(self, fences: Sequence[Fence], *, done: Sequence[Done] = (), report: bool = False) -> str:
        """Append fences and, in the same transaction, close (or park) the changes `done` of this region's `changes`, keep their
        receipts and their audit. Returns the position of the last item; empty if there was nothing to append.

        `report`: readers are to report as soon as they have merged it, because somebody waits for that.
        """
        ...

    async def heartbeat(self, complete_to: int) -> None:
        """Only a consumer of the region's group does this. Also trims the stream by time."""
        ...

    async def open(self) -> FenceStart:
        """Take the position for a new reader, the oldest retained item, and report it: from here on others wait for this
        instance. Everything retained is then delivered by `read`."""
        ...

    async def read(self, *, wait_seconds: float) -> FenceBatch:
        """What came after the position; moves it. Detects a gap in the same transaction."""
        ...

    async def report(self, position: str) -> None:
        """Say that this instance has merged everything up to `position`, and is alive."""
        ...

    async def readers(self) -> Sequence[ReaderPosition]:
        """Every instance that has reported within the last minute, from all regions."""
        ...

    async def receipt(self, id_: str) -> ReceiptRecord | None:
        """None: unknown, or forgotten (receipts are kept 15 minutes)."""
        ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


def position_of(text: str) -> tuple[int, int]:
    """A stream position, to compare: `1700000000000-3` → (1700000000000, 3); an empty one is before all."""
    ms, _, number = text.partition("-")
    return int(ms or 0), int(number or 0)


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
