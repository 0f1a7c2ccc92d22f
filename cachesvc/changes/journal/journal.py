"""The journal: changes that the region's queue did not take, until it does.

    begin ─► noted in the cells ─► written (Begun) ─► the caller applies the change
    keep  ─► written (Fenced)   ─► the caller is answered: accepted, not announced
    queue back ─► published with their first `at`, in order ─► ended; the file is emptied

A change is written before it is applied, as it is appended to the queue before otherwise: if this
process dies in between, it is applied when the process is back. While there is anything in the
journal, every cell in reach has a note of it, which outlives this process. The note is one of
another queue of the region, which is what a journal is: no consumer of the region sends a heartbeat
meanwhile (`rivals.py`). docs/coherence.md has the rule ("A queue that is away").
"""

import asyncio
import logging
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from cachesvc.changes.apply import Applier
from cachesvc.changes.audit import audit_of
from cachesvc.changes.contract import UNANNOUNCED, Done, FenceStream
from cachesvc.changes.journal.file import SETTING
from cachesvc.changes.journal.records import Begun, Contents, Ended, Fenced, Opening, framed
from cachesvc.coherence.merger import Merger
from cachesvc.model.change import Change
from cachesvc.model.clock import MILLISECONDS, SECONDS, Clock
from cachesvc.model.errors import ConfigError, RequestError, TierError, TierUnavailableError
from cachesvc.model.fence import Fence
from cachesvc.model.problems import ProblemKind
from cachesvc.model.requests import Author, ReceiptState
from cachesvc.telemetry.loops import Loop
from cachesvc.telemetry.outage import Outage
from cachesvc.tiers.batching import Batcher
from cachesvc.tiers.l3.contract import Cell, Use

log = logging.getLogger(__name__)

EVERY_SECONDS = 0.5
"""The pause between two looks for something to announce."""
HOLD_US = 2 * SECONDS
"""µs for which a change is left to the call that began it; later, that call was cancelled."""
MOST_FENCES = 8192
"""Fences that are published at once, unless a single change has more."""
MOST_TOGETHER = 1000
"""Records that are written at once."""


class JournalStore(Protocol):
    """Where a journal is kept; `file.py` has the words."""

    size: int

    async def open(self) -> Contents: ...

    async def append(self, data: bytes) -> None: ...

    async def empty(self) -> None: ...

    async def close(self) -> None: ...


class JournalLimits(Struct, frozen=True):
    """The most that a journal may hold."""

    bytes: int
    changes: int


class JournalStatistics(Struct, frozen=True):
    """The state of a journal, and its counters since the start."""

    changes: int
    """Changes that are not announced."""
    bytes: int
    """Bytes of the file."""
    oldest_seconds: float
    """How long the oldest of them has waited."""
    accepted: int
    """Changes that were taken in."""
    announced: int
    """Changes that were published."""
    refused: int
    """Changes that were refused: no room, no cell in reach, or the disk failed."""
    failures: int
    """Writes that the disk failed."""


NO_JOURNAL = JournalStatistics(0, 0, 0.0, 0, 0, 0, 0)


class _Entry(Struct):
    """A change that is not announced."""

    id: str
    at_us: int
    change: Change | None = None
    held_until_us: int = 0
    fences: Sequence[Fence] = ()
    done: Done | None = None
    """None: it is not known to be applied."""


class Journal:
    """The journal of one instance. `start` once; any number of calls may run at once."""

    def __init__(
        self,
        region: str,
        instance: str,
        store: JournalStore,
        *,
        limits: JournalLimits,
        cells: Mapping[str, Cell],
        stream: FenceStream,
        applier: Applier,
        merger: Merger,
        clock: Clock,
        namespaces: Iterable[str],
        heartbeat_us: int,
        outlived_us: int,
    ) -> None:
        """Makes a journal that is not open.

        `outlived_us`: the longest time that a copy lives; the notes in the cells count for as long.
        """
        self._region = region
        self._instance = instance
        self._store = store
        self._limits = limits
        self._cells = cells
        self._stream = stream
        self._applier = applier
        self._merger = merger
        self._clock = clock
        self._namespaces = dict.fromkeys(namespaces)
        self._live_us = 3 * heartbeat_us
        self._outlived_us = outlived_us
        self._word = ""
        self._turn = 0
        """Grows whenever the journal is empty, or is not empty any more: µs of that moment."""
        self._entries: dict[str, _Entry] = {}
        """The changes that are not announced, the oldest first."""
        self._is_noted = False
        """True if a cell has the note, since the journal was last empty."""
        self._bytes_on_the_way = 0
        self._accepted = self._announced = self._refused = self._failures = 0
        self._writes: Batcher[bytes, None] = Batcher(
            self._write_together, MOST_TOGETHER, name="journal", weigh=lambda data: sum(map(len, data))
        )
        self.loop = Loop("journal", outage=Outage("announcing what the journal has", log))

    def __repr__(self) -> str:
        return f"<Journal of {self._region}/{self._instance} [{len(self._entries)} changes]>"

    def __contains__(self, id_: str) -> bool:
        return id_ in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def statistics(self) -> JournalStatistics:
        oldest_us = min((entry.at_us for entry in self._entries.values()), default=self._clock.now_us())
        return JournalStatistics(
            len(self._entries),
            self._store.size,
            max(0, self._clock.now_us() - oldest_us) / SECONDS,
            self._accepted,
            self._announced,
            self._refused,
            self._failures,
        )

    @property
    def use(self) -> Use | None:
        """The note for the cells; None before the start.

        An empty journal's note counts for no time, and ends the one before it, also that of a process of
        before. It has a number, by which a cell knows the later one of two notes that overtake each other
        on the way.
        """
        if not self._word:
            return None
        if not self._entries:
            self._turn = max(self._turn, self._clock.now_us())
        counts_us = self._outlived_us if self._entries else 0
        queue = f"{UNANNOUNCED}{self._word}:{self._turn}:{counts_us}"
        return Use(self._region, f"journal-{self._word}", queue)

    # start and stop ------------------------------------------------------------------------------

    async def start(self) -> None:
        """Opens the journal, and honours what it has before the first read is answered.

        What could not be read may have been anything: everything is fenced in its place. Raises
        `ConfigError` if the file cannot be used, or is of another region or deployment.
        """
        found = await self._store.open()
        opening = found.records[0]
        self._check(opening)
        self._read(found)
        if not found.is_whole:
            log.warning("the journal cannot be read to its end: everything is fenced")
            await self._begin_everything()
        self._merger.merge([fence for entry in self._entries.values() for fence in entry.fences], own=True)
        for entry in self._entries.values():
            if entry.done is None:
                await self._apply(entry)
        if self._entries:
            log.warning("the journal has %d changes that are not announced yet", len(self._entries))

    async def stop(self) -> None:
        """Closes the journal. What it has is announced after the next start."""
        if self._entries:
            log.warning("%d changes stay in the journal, not announced", len(self._entries))
        await self._store.close()

    def _check(self, opening: object) -> None:
        if not isinstance(opening, Opening):
            raise ConfigError(SETTING, "has a journal without its first record: name another file")
        if opening.region != self._region:
            why = f"has a journal of region {opening.region!r}: name another file"
            raise ConfigError(SETTING, why)
        if opening.cells and not set(opening.cells) & set(self._cells):
            why = "has a journal of another deployment, with none of these cells: name another file"
            raise ConfigError(SETTING, why)
        self._word = opening.journal
        self._take_turn()

    def _read(self, found: Contents) -> None:
        entries = self._entries
        for record in found.records:
            if isinstance(record, Begun):
                entries[record.id] = _Entry(record.id, record.at_us, record.change)
            elif isinstance(record, Fenced):
                entry = entries.setdefault(record.done.id, _Entry(record.done.id, record.at_us))
                entry.fences, entry.done = record.fences, record.done
            elif isinstance(record, Ended):
                for id_ in record.ids:
                    entries.pop(id_, None)

    def _take_turn(self) -> None:
        self._turn = max(self._turn + 1, self._clock.now_us())

    def _add(self, entry: _Entry) -> _Entry:
        if not self._entries:
            self._take_turn()
        self._entries[entry.id] = entry
        return entry

    def _drop(self, ids: Iterable[str]) -> None:
        for id_ in ids:
            self._entries.pop(id_, None)
        if not self._entries:
            self._is_noted = False
            self._take_turn()

    def take(self, namespaces: Iterable[str]) -> None:
        """Knows these namespaces, too. One that is gone stays known, as it may come back."""
        self._namespaces.update(dict.fromkeys(namespaces))

    async def _begin_everything(self) -> None:
        """Has a purge of each namespace stand for what could not be read."""
        for name in list(self._namespaces):
            entry = self._entry(Change(name, all=True))
            try:
                await self._write(framed(Begun(entry.id, Change(name, all=True), entry.at_us)))
            except OSError:  # the end that cannot be read stays there, for the next start
                self._failures += 1

    # taking in -----------------------------------------------------------------------------------

    async def begin(self, change: Change, away: str) -> str:
        """Accepts a change that the queue did not take (`away` says why); returns its id.

        It is noted in a cell and written before the caller applies it. Raises `RequestError` 503
        `queue-unavailable` with the reason, and nothing was done.
        """
        entry = self._entry(change)
        record = framed(Begun(entry.id, change, entry.at_us))
        try:
            self._check_room(len(record))
            await self._note()
            await self._write(record)
        except (RequestError, OSError) as error:
            self._drop([entry.id])
            self._refused += 1
            why = error.detail if isinstance(error, RequestError) else f"its disk failed ({error.strerror})"
            raise RequestError(
                ProblemKind.QUEUE_UNAVAILABLE, f"{away}; and the journal did not: {why}"
            ) from error
        self._accepted += 1
        return entry.id

    async def keep(self, fences: Sequence[Fence], done: Done) -> None:
        """Keeps the fences of a change that was begun here and is applied.

        If they cannot be written, they are kept in memory; after a restart the change is applied anew.
        """
        done = replace(done, is_from_journal=True)
        entry = self._entries.get(done.id)
        if entry is None:  # its call took so long that it was applied anew and announced
            entry = self._add(_Entry(done.id, self._clock.now_us()))
        try:
            await self._write_if_there_is_room(framed(Fenced(tuple(fences), done, entry.at_us)))
        finally:
            entry.fences, entry.done = tuple(fences), done

    async def take_over(self, fences: Sequence[Fence], done: Done) -> bool:
        """Keeps the fences of a change that the queue has taken, and whose fences it has not.

        False if there is no room: the region's consumers go on with the change.
        """
        done = replace(done, is_from_journal=True)
        entry = self._add(_Entry(done.id, self._clock.now_us(), fences=tuple(fences), done=done))
        record = framed(Fenced(tuple(fences), done, entry.at_us))
        try:
            self._check_room(len(record))
            await self._note()
            await self._write(record)
        except (RequestError, OSError):
            self._drop([done.id])
            self._refused += 1
            return False
        self._accepted += 1
        return True

    async def forget(self, id_: str) -> None:
        """Ends a change that changed nothing."""
        if id_ in self._entries:
            await self._end([id_])

    def state(self, id_: str) -> ReceiptState | None:
        """Returns the state of a change by its receipt's id, if it is here."""
        region, _, change = id_.partition(":")
        if region != self._region or change not in self._entries:
            return None
        return ReceiptState(id_, "open", merged=(f"{self._region}/{self._instance}",))

    def _entry(self, change: Change) -> _Entry:
        now_us = self._clock.now_us()
        # In the form of the queue's own ids, whose second number counts from 0: it is kept there under it.
        id_ = f"{now_us // MILLISECONDS}-{secrets.randbelow(9 * 10**15) + 10**15}"
        return self._add(_Entry(id_, now_us, change, now_us + HOLD_US))

    def _check_room(self, size: int) -> None:
        if len(self._entries) > self._limits.changes:
            why = f"it is full: {self._limits.changes} changes (queue.journal.max_changes) are not announced"
            raise RequestError(ProblemKind.QUEUE_UNAVAILABLE, why)
        if not self._has_room(size):
            why = f"it is full: {self._limits.bytes} bytes (queue.journal.max_bytes)"
            raise RequestError(ProblemKind.QUEUE_UNAVAILABLE, why)

    def _has_room(self, size: int) -> bool:
        return self._store.size + self._bytes_on_the_way + size <= self._limits.bytes

    async def _note(self) -> None:
        """Notes in every cell that there are unannounced changes. Raises `RequestError`.

        From then on the region's consumers send no heartbeat. One cell that takes the note is enough;
        the others get it with the next look for rivals.
        """
        if self._is_noted or (use := self.use) is None:
            return
        taken = await asyncio.gather(*(self._claim(cell, use) for cell in self._cells.values()))
        if not any(taken):
            why = "no cell is in reach, to tell the other instances that something is not announced"
            raise RequestError(ProblemKind.QUEUE_UNAVAILABLE, why)
        self._is_noted = bool(self._entries)

    async def _claim(self, cell: Cell, use: Use) -> bool:
        try:
            await cell.claim([use], self._live_us)
        except TierError:
            return False
        return True

    # writing -------------------------------------------------------------------------------------

    async def _write(self, record: bytes) -> None:
        """Writes a record, together with those of other callers. Raises `OSError`."""
        self._bytes_on_the_way += len(record)
        try:
            outcome = await self._writes.submit(record)
        finally:
            self._bytes_on_the_way -= len(record)
        if isinstance(outcome, TierError):
            raise OSError(None, outcome.why) from outcome

    async def _write_if_there_is_room(self, record: bytes) -> None:
        """Writes a record without which nothing is lost, if it can be written."""
        if not self._has_room(len(record)):
            return
        try:
            await self._write(record)
        except OSError:
            return

    async def _write_together(self, records: list[bytes]) -> Sequence[None]:
        try:
            await self._store.append(b"".join(records))
        except OSError as error:
            self._failures += 1
            raise TierUnavailableError("journal", error.strerror or str(error)) from error
        return [None] * len(records)

    # announcing ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Announces what there is whenever the queue takes it, until it is cancelled."""
        await self.loop.run(self._announce, every_seconds=EVERY_SECONDS)

    async def _announce(self) -> None:
        while batch := list(self._due()):
            for entry in batch:
                if entry.done is None:
                    await self._apply(entry)
            await self._stream.publish(
                [fence for entry in batch for fence in entry.fences],
                done=[entry.done for entry in batch if entry.done is not None],
            )
            self._announced += len(batch)
            await self._end([entry.id for entry in batch])

    def _due(self) -> Iterator[_Entry]:
        """Yields the oldest changes that no call is about to apply, for one publication."""
        now_us, count = self._clock.now_us(), 0
        for entry in self._entries.values():
            if entry.done is None and entry.held_until_us > now_us:
                continue
            count += len(entry.fences)
            if count > len(entry.fences) and count > MOST_FENCES:
                return
            yield entry

    async def _apply(self, entry: _Entry) -> None:
        """Applies a change whose call was cancelled, or died with its process, before it had."""
        if entry.change is None:
            return
        applied = await self._applier.apply([entry.change])
        self._merger.merge(applied.fences, own=True)
        done = applied.done(entry.id, applied.named[0], audit_of([entry.change], Author(), self._instance))
        done = replace(done, is_from_journal=True)
        entry.fences, entry.done = tuple(applied.fences), done
        await self._write_if_there_is_room(framed(Fenced(tuple(applied.fences), done, entry.at_us)))

    async def _end(self, ids: Sequence[str]) -> None:
        self._drop(ids)
        if self._entries:
            await self._write_if_there_is_room(framed(Ended(tuple(ids))))
            return
        try:
            await self._store.empty()
        except OSError:
            self._failures += 1  # what is there is published once more after a restart
