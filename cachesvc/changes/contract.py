"""The contracts of a region's two streams.

`changes` carries the changes of producers, `fences` the fences to all caches. Every method may fail
with a `TierError`: a queue is as far away as a tier. Ids and positions are texts that only the
streams of one region understand.

A position on `fences` names the epoch that it is of: `1700000000000-3@5f3a9c01`. Two live servers
may have the name of one queue, and their ids say nothing of each other (docs/coherence.md, traces
49 and 50). So positions are compared by `position_of`, and only with those of the same `epoch_of`.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from msgspec import Struct
from xxhash import xxh3_64_hexdigest

from cachesvc.model.change import Change, Target, TargetKind
from cachesvc.model.errors import TierError
from cachesvc.model.fence import Fence, Issuers
from cachesvc.telemetry.traces.trace import SpanContext


class Parked(Struct, frozen=True):
    """A target that a home cell has not taken, and whose fence is out, unapplied.

    The queue keeps it once per cell, however many changes name it: the latest `at` counts.
    """

    cell: str
    at: int
    """The newest `at`, µs, with which its fence went out unapplied.

    To apply the target with a later one would refuse what was loaded since.
    """
    placement: int = 0
    """The placement under which the target was parked.

    Under another one, it may have a home that was never asked.
    """
    target: Target | None = None
    """None: everything in the cell. More was parked for it than the queue keeps."""
    soft: bool = False
    issuers: Issuers = ()
    """The server that has taken the target, once it has. The queue does not keep it."""

    @property
    def change(self) -> Change:
        """The change of this target alone. Raises `ValueError` if the target is None."""
        if self.target is None:
            raise ValueError("everything in a cell is no change")
        keys, tags = (
            (self.target.text,) if self.target.kind is kind else ()
            for kind in (TargetKind.KEY, TargetKind.TAG)
        )
        return Change(self.target.namespace, keys, tags, all=not (keys or tags), soft=self.soft)


class OpenChange(Struct, frozen=True):
    """An item that was taken from the queue and is not acknowledged yet.

    It is a CloudEvent, or a row change that maps to several changes.
    """

    id: str
    changes: tuple[Change, ...] = ()
    """The changes in the item. Empty and without a `reason`, the item says that nothing
    changed (a snapshot row, a tombstone): close it."""
    reason: str = ""
    """Why the item belongs on the dead-letter stream. `changes`, if any, are still applied
    before the item is buried."""
    held_until_us: int = 0
    """An invalidate call is applying this change until then, µs. Apply it again only if it is
    still open afterwards."""
    source: str = ""
    """The event's `source`, for the audit."""
    trace: SpanContext | None = None
    """The trace that the change was announced in: the event's `traceparent`."""


RivalKind = Literal["queue", "journal", "deployment", "instance"]

UNANNOUNCED = "journal:"
"""The name of a queue begins so if it is an instance's journal.

It is `journal:<word>:<number>:<µs for which the note counts>`; a cell keeps the note with the
largest number. An empty journal's note counts for no time.
"""


class Attendance(Struct, frozen=True):
    """A consumer's words about itself, told to the queue with each look at the group."""

    incarnation: str
    """A random word of the process: two processes of one name differ in it."""
    name: str
    cells: tuple[str, ...]
    """The cells that it uses, as `name=run id`; `name=` if the cell did not answer lately."""
    live_us: int
    """A consumer that was silent for longer is no rival, µs."""


class Rival(Struct, frozen=True):
    """Another live consumer of the region's queue that should not be there."""

    kind: RivalKind
    incarnation: str
    name: str
    was_first: bool
    """True if it came to the queue before the one that asks."""


class OtherQueueError(TierError):
    """A region has two queues: its streams were met on two, or instances use two.

    Also if `changes` lost changes since they were looked at. Another look-up of the name may help.
    """


class Beat(Struct, frozen=True):
    """The knowledge of a consumer that would send a heartbeat with its look.

    The queue sends it in that step, if all of this still holds there and no rival bars the consumer.
    Else the consumer decides, and sends it by `FenceStream.heartbeat` (docs/coherence.md, "What a
    consumer asks").
    """

    unless_beaten_us: int
    """µs: a heartbeat that was published within that time is recent, and none is sent."""
    latest_us: int
    """The own clock + S. A clock of the queue beyond it may be wrong."""
    epoch: str = ""
    """The epoch of `changes` that the consumer has met; empty: no heartbeat is sent."""
    queue: str = ""
    """The epoch of `fences` of the queue whose rivals it has looked for."""
    oldest: str = ""
    """The oldest open change at its last heartbeat."""


class OpenCount(Struct, frozen=True):
    """The changes that are not closed, and the dead letters."""

    backlog: int
    """Changes accepted and not yet acknowledged, without the parked ones."""
    parked: int
    """Targets whose fences are out, and which a home cell has not taken yet: once per cell."""
    dead: int
    """Changes on the dead-letter stream."""
    overflowed: int = 0
    """Cells for which more was parked than the queue keeps (`Parked.target` None)."""
    paced: int = 0
    """Paced fences that the queue keeps for followers that begin."""
    paced_given_up: int = 0
    """Paced fences without room in the queue: one that concerns everything stands for them."""


class Completion(Struct, frozen=True):
    """How far the consumer group of `changes` is."""

    complete_to: int
    """µs: every change accepted before this time is acknowledged or parked. It is the time in
    the id of the oldest change in the stream; without one, the queue's clock. If the
    queue's clock was set back, so that the id is ahead of it: the time at which that was first seen."""
    epoch: str
    """The epoch of the `changes` stream. Another epoch than before: accepted changes may have
    been lost with the tail of the server's data, or were taken out of the stream by somebody else."""
    announced: bool
    """True if the possible loss of this epoch has been announced (`FenceStream.announce`)."""
    now_us: int
    """The queue's clock."""
    oldest: str
    """The id of the oldest change in the stream; empty if there is none."""
    lost: int = 0
    """Changes that left the stream and were not closed by an instance, since it was made.

    It is part of the epoch."""
    rivals: Sequence[Rival] = ()
    """Rivals of the consumer that asks."""
    queue: str = ""
    """The epoch of `fences` (`FenceStream.epoch`), which differs between any two queues."""
    count: OpenCount = OpenCount(0, 0, 0)
    has_beaten: bool = False
    """True if a heartbeat is recent, or if this step has sent one (`Beat`)."""


class Changes(Protocol):
    """The `changes` stream of one region, with its one consumer group.

    Changes are delivered at least once and never skipped. All methods raise `TierError`.
    """

    async def append(self, change: Change, *, held_until_us: int = 0, traceparent: str = "") -> str:
        """Durably accepts a change, made in the trace `traceparent`, and returns its id.

        Raises if the queue cannot take the change: then nothing was promised. A held change is taken in
        the same step by the consumer of the instance that appends it, unless other changes wait to be
        taken: so no other instance reads what its caller does, and `reclaim` finds what the caller left.
        """
        ...

    async def take(self, consumer: str, *, count: int, wait_seconds: float) -> Sequence[OpenChange]:
        """Returns new changes for this consumer; none if none came within `wait_seconds`.

        Creates stream and group if they are missing.
        """
        ...

    async def reclaim(self, consumer: str, *, idle_seconds: float, count: int) -> Sequence[OpenChange]:
        """Returns changes that a consumer took and left open for `idle_seconds`.

        They are now this consumer's. So are changes of that age that are open and that no consumer has:
        their consumer was deleted with what it had taken, or the group was moved past them.
        """
        ...

    async def forget_consumers(self, *, idle_seconds: float) -> int:
        """Removes from the group the consumers that have left, and returns their number.

        Only those that asked for nothing for `idle_seconds` and have taken nothing that is open: what
        one has taken must be reclaimed first. A consumer that is removed and still lives is a new one with
        the next change that it is given, and misses nothing. (Redis 7.0 counts no call that gave it
        nothing, so on a queue without changes those that live are removed, too.)
        """
        ...

    async def parked(self, *, idle_seconds: float, count: int) -> Sequence[Parked]:
        """Returns parked targets, the earliest first: at most `count` for each cell.

        Only for cells that no consumer has tried for `idle_seconds`, or that have just taken something
        (`FenceStream.settle`); they count as tried now. What is older than every copy in a cell is
        forgotten.
        """
        ...

    async def acknowledge(self, ids: Sequence[str]) -> None:
        """Closes these changes: out of the group's pending list and out of the stream."""
        ...

    async def bury(self, change: OpenChange) -> None:
        """Moves a change to the dead-letter stream, with its reason, and acknowledges it.

        The receipt of the change says so.
        """
        ...

    async def completion(self, me: Attendance | None = None, beat: Beat | None = None) -> Completion:
        """Returns how far the group is, and notes that the consumer `me` is alive.

        Sends a heartbeat with the result if `beat` allows it. Else call it *before* the heartbeat that
        carries the result is appended.
        """
        ...

    async def reconnect(self) -> None:
        """Leaves the connected server: the next call looks the queue's name up anew."""
        ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class Audit(Struct, frozen=True):
    """The record of an invalidation for the `audit` stream.

    The queue adds the time, and the id of the receipt.
    """

    says: str
    """The name that the caller gave itself, or an event's `source`; it proves nothing."""
    instance: str
    """The instance that applied the invalidation."""
    namespace: str
    targets: str
    """The number of targets, such as `2 keys, 1 tag` or `all`; never key text."""
    soft: bool = False
    over: str = ""
    identity: str = ""
    """The name of the identity that was proved."""
    address: str = ""
    """The address of the peer, if a caller sent the change to an instance."""


class Done(Struct, frozen=True):
    """A change that was applied; its fences are published in the same step.

    The queue keeps its receipt for 15 minutes.
    """

    id: str
    parked: tuple[Parked, ...] = ()
    """The targets that home cells could not take: they are parked.

    The change itself is closed, so it is not in the way of `complete_to`.
    """
    cells: tuple[str, ...] = ()
    """Home cells that took the change."""
    audit: Audit | None = None
    is_from_journal: bool = False
    """True if its instance has kept it in a journal, so that it need not be in `changes`.

    It is parked, and has its receipt, once, however often it is published."""
    stays_open: bool = False
    """True if the change is to be buried yet (`Changes.bury`), which closes it."""

    @property
    def missed(self) -> tuple[str, ...]:
        """Home cells that could not take the change."""
        return tuple(sorted({parked.cell for parked in self.parked}))


Item = tuple[bytes, Mapping[bytes, bytes]]
"""An item of `fences` as it stands on the stream: its id, and its fields with values."""


class FenceBatch(Struct, frozen=True):
    """One read of a region's `fences` stream, in stream order."""

    fences: Sequence[Fence]
    complete_to: int | None
    """µs, from the newest heartbeat in the batch; None if there is no heartbeat."""
    gap: bool = False
    """True if items were lost between the last position and this one (trimmed, or another
    epoch): raise the floor before going on. `fences` are then the paced fences still
    in force."""
    position: str = ""
    """The follower's position after the batch.

    Its epoch is another one than before only with a gap.
    """
    report: bool = False
    """True if a caller waits for the followers' positions, or after a gap: call
    `FenceStream.report` once the batch is merged."""
    published: Sequence[int] = ()
    """When each item with fences was appended, in stream order: µs, by the queue's clock,
    exact to the millisecond."""
    causes: Sequence[SpanContext] = ()
    """The sampled traces that these fences come from (`FenceStream.publish`)."""
    unreadable: int = 0
    """Items that could not be read. Their content is lost, so the batch is a gap."""
    items: Sequence[Item] = ()
    """The items that were read, to be handed on. Of a gap's lost items there are none."""


class FenceStart(Struct, frozen=True):
    """The place where a new instance starts on a region's stream."""

    floor: int
    """µs: this instance cannot know all fences on copies that are not younger than this. It is
    the publication time of the oldest retained item + 3 S."""
    fences: Sequence[Fence] = ()
    """Paced fences in force, whose items may have been trimmed."""
    position: str = ""
    tail: str = ""
    """The newest item when the stream was opened: a follower past it has caught up."""


class FollowerPosition(Struct, frozen=True):
    """How far one instance has merged a region's stream."""

    region: str
    instance: str
    position: str
    silent_us: int
    """Time since the follower's last report, by the queue's clock."""
    incarnation: str = ""
    """A random word of the process: two processes of one name are two followers."""


class ReceiptRecord(Struct, frozen=True):
    """The queue's record of a change, by the id of the change."""

    state: Literal["open", "parked", "done", "buried"]
    """`open`: accepted, and its fence is not out. `parked`: the fence is out, and a home cell
    has not taken the change. `done`: closed. `buried`: on the dead-letter stream."""
    position: str = ""
    """The position of its fence on the region's `fences`; empty while there is none."""
    cells: tuple[str, ...] = ()
    """Home cells that have applied the change."""
    missed: tuple[str, ...] = ()
    """Home cells that have not taken the change."""
    reason: str = ""
    """Why the change was buried."""


class Followed(Protocol):
    """A region's `fences` as one follower reads them. All methods raise `TierError`."""

    region: str

    async def open(self) -> FenceStart:
        """Takes the position of the oldest retained item for a new follower, and reports it.

        From here on other instances wait for this one. Everything retained is then delivered by `read`.
        """
        ...

    async def read(self, *, wait_seconds: float) -> FenceBatch:
        """Returns the items after the position, and moves the position.

        A gap is detected in the same transaction.
        """
        ...

    async def report(self, position: str) -> None:
        """Says that this instance is alive and has merged everything up to `position`."""
        ...

    async def reconnect(self) -> None:
        """Leaves the connected server: the next call looks the queue's name up anew."""
        ...


class FenceStream(Followed, Protocol):
    """The `fences` stream of one region: one follower with one position per object.

    All methods raise `TierError` while the stream is out of reach.
    """

    @property
    def epoch(self) -> str:
        """The epoch of the stream at the position; empty before `open`."""
        ...

    async def publish(
        self,
        fences: Sequence[Fence],
        *,
        done: Sequence[Done] = (),
        report: bool = False,
        causes: Sequence[SpanContext] = (),
    ) -> str:
        """Appends fences, and closes the changes in `done` in the same transaction.

        What they have parked is merged, in that transaction, with what is parked already.

        The receipts of these changes of the region, and their audit records, are kept in that transaction,
        too. Returns the position of the last item; empty if there was nothing to append.

        `report`: followers are to report as soon as they have merged the fences, because a caller waits for
        that. `causes`: the sampled traces that these fences come from; followers get the first eight with
        the last item.
        """
        ...

    async def settle(self, taken: Sequence[Parked], *, anew: Sequence[Parked] | None = None) -> None:
        """Ends the parking of targets that their cells have taken, all of one placement.

        One that was parked again meanwhile, with a later `at`, stays. When the last cell has taken a hard
        target, a fence says so, with the parked `at`: it ends the unapplied fences up to that time.
        `anew`: the targets were applied anew instead, under another placement, with fences of their own.
        That is what cells have missed of them, to be parked in the same transaction.
        """
        ...

    async def heartbeat(self, complete_to: int, epoch: str, *, unless_beaten_us: int = 0) -> None:
        """Appends a heartbeat, and trims the stream by time.

        `epoch` is the epoch of `changes` that `complete_to` was read under (`Changes.completion`).
        Raises `OtherQueueError` if it is another one here and now. Does nothing if
        another heartbeat was published within `unless_beaten_us`, µs. Only a consumer of the region's
        group does this.
        """
        ...

    async def announce(self, fences: Sequence[Fence], epoch: str) -> None:
        """Appends the fences on every namespace, and notes that they are out for this epoch.

        `epoch` is an epoch of `changes`. Other consumers need not publish them again. Raises
        `OtherQueueError` as `heartbeat` does.
        """
        ...

    async def deliver(self, items: Sequence[Item]) -> FenceBatch:
        """Returns these items as if `read` had read them, and moves the position behind them.

        They must be those that follow the position, with none left out. A cancelled or failed call has done
        nothing.
        """
        ...

    async def rest(self) -> None:
        """Ends what only reading from the queue needs, until the next `read`.

        Items come from a relay meanwhile. Never fails.
        """
        ...

    async def followers(self, of: str = "") -> Sequence[FollowerPosition]:
        """Returns every instance, of all regions, that has reported within the last minute.

        `of`: a position that the followers' positions are to be compared with. Raises `OtherQueueError` if
        they are positions of another epoch.
        """
        ...

    async def receipt(self, id_: str) -> ReceiptRecord | None:
        """Returns the record of a change; None if it is unknown or forgotten (after 15 minutes)."""
        ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


def position_of(text: str) -> tuple[int, int]:
    """Returns a position to compare: `1700000000000-3@5f3a9c01` → (1700000000000, 3).

    It says nothing of positions of another `epoch_of`. An empty position is before all others.
    """
    ms, _, number = text.partition("@")[0].partition("-")
    return int(ms or 0), int(number or 0)


def epoch_of(text: str) -> str:
    """Returns the mark of the epoch that a position is of; empty if it names none."""
    return text.partition("@")[2]


def mark_of(epoch: str) -> str:
    """Returns the mark of an epoch (`FenceStream.epoch`) in positions: 8 hex digits.

    Two epochs have the same one by a chance of 1 in 4 billion.
    """
    return xxh3_64_hexdigest(epoch.encode())[:8]


def position_in(epoch: str, id_: str) -> str:
    """Returns the position of the item with this id in a stream of this epoch."""
    return f"{id_}@{mark_of(epoch)}"
