"""The contracts of a region's two streams: `changes`, what producers say, and `fences`, what caches must honour.

All of it may fail with a `TierError`: a queue is as far away as a tier. Ids and positions are texts that the streams
of one region understand; positions compare by `position_of`.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

from msgspec import Struct

from cachesvc.model.change import Change
from cachesvc.model.fence import Fence
from cachesvc.telemetry.traces.trace import SpanContext


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
    trace: SpanContext | None = None
    """What it was announced in: the event's `traceparent`."""


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

    async def append(self, change: Change, *, held_until_us: int = 0, traceparent: str = "") -> str:
        """Durably accept a change, made in the trace `traceparent`; its id. Raises if the queue cannot take it: then nothing was
        promised."""
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
    published: Sequence[int] = ()
    """µs, by the queue's clock to the millisecond: when each item with fences was appended, in stream order."""
    causes: Sequence[SpanContext] = ()
    """The sampled traces that these fences come from (`FenceStream.publish`)."""


class FenceStart(Struct, frozen=True):
    """Where a new instance starts on a region's stream."""

    floor: int
    """µs: copies not younger than this cannot be vouched for. Publication time of the oldest retained item + 3 S."""
    fences: Sequence[Fence] = ()
    """Paced fences in force, whose items may have been trimmed."""
    position: str = ""
    tail: str = ""
    """The newest item when the stream was opened: once past it, the reader has caught up."""


class FollowerPosition(Struct, frozen=True):
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

    async def publish(
        self,
        fences: Sequence[Fence],
        *,
        done: Sequence[Done] = (),
        report: bool = False,
        causes: Sequence[SpanContext] = (),
    ) -> str:
        """Append fences and, in the same transaction, close (or park) the changes `done` of this region's `changes`, keep their
        receipts and their audit. Returns the position of the last item; empty if there was nothing to append.

        `report`: readers are to report as soon as they have merged it, because somebody waits for that. `causes`: the sampled
        traces that these fences come from; readers get the first eight with the last item.
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

    async def followers(self) -> Sequence[FollowerPosition]:
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
