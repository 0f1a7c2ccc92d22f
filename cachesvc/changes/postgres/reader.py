"""Reads a slot of PostgreSQL, and appends each transaction to a region's queue.

    look at the publication ─► take the slot ─► was anything lost? ─► read
            ▲                                   fence what is fed     │ transactions, until
            │                                                         ▼ the connection ends
            └──────────────── pause ◄───────────────────────── what went wrong is said

For every batch of messages that has come:

    messages ─► transactions ─► all of them visible ─► events accepted by the queue
             ─► place noted in the queue ─► place confirmed to the server

A step that fails leaves the slot where it was, and the server sends everything from there again: a
change is announced at least once. The server has a commit in its log before other sessions see it.
A fence that is out before that would let a reader keep the old value (docs/coherence.md, trace 92),
so a transaction is only appended once it is visible.

A gap (`notes.py`, or a slot that is lost or gone) fences the namespaces that have `sources` of this
database. The fence is appended after the slot was taken: every commit that the slot does not have
is older than that.

One reader has the slot. Any other one is refused by the server, and waits for its turn.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from cachesvc.changes.events.cloudevents import Transaction, encode_transaction
from cachesvc.changes.events.rows import RowMapping
from cachesvc.changes.postgres.contract import (
    Catalog,
    Data,
    Received,
    RefusedError,
    Replication,
    Server,
    SlotInUseError,
    SlotState,
    System,
)
from cachesvc.changes.postgres.events import events_of
from cachesvc.changes.postgres.fitness import fed_namespaces
from cachesvc.changes.postgres.notes import Note, Notes, gap_since
from cachesvc.changes.postgres.pgoutput import Decoder, UnreadableError
from cachesvc.changes.postgres.transactions import Assembler, AssemblerTally, Committed
from cachesvc.changes.postgres.visibility import is_visible
from cachesvc.model.change import Change
from cachesvc.model.clock import SECONDS, Clock
from cachesvc.model.errors import ConfigError, TierError, TierUnavailableError, UnreadableAnswerError
from cachesvc.telemetry.outage import Outage

log = logging.getLogger(__name__)

PAUSE_SECONDS = 0.5
"""The pause before the next try, after anything went wrong, and for a reader in waiting."""
MOST_BYTES = 1 << 20
"""Bytes of events that are appended together, unless a single one has more."""
BEAT_SECONDS = 1.0
"""The pause between two notes, and between two confirmations to the server."""
ASK_EVERY = 10
"""Beats between two questions whether the server is there."""
LOOK_EVERY = 5
"""Beats between two looks at the slot."""
LOOKS_KEPT = 720
"""Looks that are kept to tell how many seconds the slot is behind: an hour of them."""
VISIBLE_PAUSE_SECONDS = 0.002
"""The first pause before another look whether a commit is visible; it doubles, to 0.2 s."""
GAP_SHOWN_US = 300 * SECONDS
"""A gap is a trouble for so long, µs: it is over, and people should learn of it."""


class Events(Protocol):
    """The part of a region's `changes` that a reader uses."""

    async def append_event(self, event: bytes) -> str:
        """Durably accepts an event, and returns its id. Raises `TierError`."""
        ...


class Slot(Struct, frozen=True):
    """The slot to read, and how."""

    name: str
    publication: str
    most_targets: int = 100_000
    """Names of keys and tags that are held for open transactions at most."""


class ReaderTally(Struct):
    """The counters of a reader, and how it fares."""

    events: int = 0
    """Events that the queue has accepted."""
    gaps: int = 0
    """Times that changes may have been lost: the namespaces were fenced."""
    failures: int = 0
    """Times that reading ended, or could not begin."""
    reading: bool = False
    """True while this reader has the slot."""
    waiting: bool = False
    """True while another reader has it."""
    lag_bytes: int = 0
    """Bytes of the log that are not confirmed yet, when this reader last looked."""
    lag_seconds: float = 0.0
    """Age of the oldest commit that may not be confirmed yet, when this reader last looked."""
    safe_bytes: int | None = None
    """Bytes until the server drops what the slot needs; None if nothing limits them."""
    in_danger: bool = False
    """True if the server may drop what the slot needs (`wal_status` `unreserved` or `lost`)."""
    idle_us: int = 0
    """Time since the last change was accepted, or since the start."""


class Reader:
    """Reads one slot until it is cancelled."""

    def __init__(
        self,
        server: Server,
        slot: Slot,
        *,
        mapping: RowMapping,
        queue: Events,
        notes: Notes,
        clock: Clock,
    ) -> None:
        self._server = server
        self._slot = slot
        self._mapping = mapping
        self._queue = queue
        self._notes = notes
        self._clock = clock
        self.where = f"{server.where} slot {slot.name}"
        self._outage = Outage(self.where, log)
        self._queue_outage = Outage("appending changes to the queue", log)
        self._waited = False
        self.tally = ReaderTally()
        self._changed_us = clock.now_us()
        """When the last change was accepted, µs; at first the time of the start."""
        self.assembled = AssemblerTally()
        self._troubles: dict[str, str] = {}
        """Troubles by the part that is concerned."""
        self._note = Note()
        self._lags: deque[tuple[int, int]] = deque(maxlen=LOOKS_KEPT)
        """The end of the log at each look, with the time in µs."""

    def __repr__(self) -> str:
        return f"<Reader {self.where} [{self.trouble or 'well'}, {self.tally.events} events]>"

    async def run(self) -> None:
        """Reads until it is cancelled. A failure is said, and tried again after a pause."""
        while True:
            try:
                await self._follow()
            except SlotInUseError:
                self._wait_for_turn()
            except (TierError, ConfigError) as error:
                await self._failed(error)
            finally:
                self.tally.reading = False
            await asyncio.sleep(PAUSE_SECONDS)

    def statistics(self) -> ReaderTally:
        self.tally.idle_us = self._clock.now_us() - self._changed_us
        return self.tally

    async def check(self) -> None:
        """Raises `ConfigError` for everything that keeps rows from being mapped, and `TierError`."""
        async with self._server.catalog() as catalog:
            await self._check(catalog)

    # one connection -------------------------------------------------------------------------------

    async def _follow(self) -> None:
        async with self._server.catalog() as catalog, self._server.replication() as replication:
            if await catalog.is_replica():
                raise TierUnavailableError(self.where, "the server is a replica: the slot is at its primary")
            await self._check(catalog)
            system = await replication.identify()
            lost = await self._take_slot(catalog, replication)
            self.tally.waiting = self._waited = False
            slot = await self._state(catalog)
            await self._meet(system, slot, lost)
            following = _Following(self, catalog, replication, system, slot.confirmed_lsn)
            self.tally.reading = True
            self._troubles.clear()
            if self._outage.is_on:
                self._outage.worked()
            await following.run()

    async def _check(self, catalog: Catalog) -> None:
        mistakes = await catalog.mistakes(self._slot.publication, self._mapping)
        if mistakes:
            first, *others = (ConfigError(self.where, why) for why in mistakes)
            raise ConfigError(first.path, first.why, *others)

    async def _take_slot(self, catalog: Catalog, replication: Replication) -> str:
        """Takes the slot, and makes it anew if it is lost or gone. Returns why it was made, or ''."""
        name, publication = self._slot.name, self._slot.publication
        try:
            await replication.start(name, publication)
        except RefusedError:
            reason = await self._renew_slot(catalog)
            if not reason:
                raise
            await replication.start(name, publication)
            return reason
        return ""

    async def _renew_slot(self, catalog: Catalog) -> str:
        """Makes a slot in place of one that is lost or gone; returns why, or '' if it is neither."""
        name = self._slot.name
        slot = await catalog.slot(name)
        if slot is None:
            if not (await self._notes.read(name)).system:
                raise ConfigError(
                    self.where, "there is no such slot, and none was read before: run `cachesvc cdc setup`"
                )
            await catalog.make_slot(name)
            return "the slot was gone"
        if slot.wal_status != "lost":
            return ""
        await catalog.drop_slot(name)
        await catalog.make_slot(name)
        return "the slot was lost: the server has dropped the log that it needed (max_slot_wal_keep_size)"

    async def _state(self, catalog: Catalog) -> SlotState:
        slot = await catalog.slot(self._slot.name)
        if slot is None:
            raise TierUnavailableError(self.where, "the slot is gone")
        return slot

    async def _meet(self, system: System, slot: SlotState, lost: str) -> None:
        """Fences the namespaces that are fed if changes may have been lost, and notes where it is."""
        note = await self._notes.read(self._slot.name)
        gap = lost or gap_since(
            note,
            system=system.identifier,
            timeline=system.timeline,
            log_end=slot.current_lsn,
            confirmed=slot.confirmed_lsn,
        )
        now_us = self._clock.now_us()
        if gap:
            # Before the note: one that is written by anything else must not say that all is well.
            await self._fence(system.database, gap)
        self._note = Note(
            system.identifier,
            system.timeline,
            max(slot.confirmed_lsn, 0 if gap else note.lsn),
            now_us,
            gap=gap or note.gap,
            gap_us=now_us if gap else note.gap_us,
        )
        await self._notes.write(self._slot.name, self._note)

    async def _fence(self, database: str, gap: str) -> None:
        namespaces = fed_namespaces(self._mapping, database)
        log.warning("%s: %s. Changes may be lost: fenced %s", self.where, gap, ", ".join(namespaces))
        changes = tuple(Change(name, all=True) for name in namespaces)
        now_us = self._clock.now_us()
        event = encode_transaction(
            Transaction(changes), id_=f"gap:{now_us}", source=self.producer, committed_us=now_us
        )
        if changes:
            await self._queue.append_event(event)
        self.tally.gaps += 1

    # troubles -------------------------------------------------------------------------------------

    def _wait_for_turn(self) -> None:
        self.tally.waiting = True
        self._troubles.clear()
        if not self._waited:
            self._waited = True
            log.info("%s: another reader has the slot; this one waits for it", self.where)

    async def _failed(self, error: Exception) -> None:
        self.tally.failures += 1
        self.tally.waiting = False
        self._troubles["reading"] = str(error).splitlines()[0]
        self._outage.failed(error)
        with contextlib.suppress(TierError):
            if not self._note.system:
                self._note = await self._notes.read(self._slot.name)
            await self.note()

    @property
    def trouble(self) -> str:
        """Why nothing is read, or what will end it, for people; empty if all is well."""
        return "; ".join(self._troubles.values())

    # used by what follows -------------------------------------------------------------------------

    @property
    def producer(self) -> str:
        """The name of this source in events."""
        return f"/postgres/{self._slot.name}"

    @property
    def noted_lsn(self) -> int:
        return self._note.lsn

    def assembler(self, database: str) -> Assembler:
        return Assembler(
            self._mapping,
            database=database,
            most_targets=self._slot.most_targets,
            tally=self.assembled,
        )

    async def note(self, lsn: int = 0) -> None:
        """Notes that all up to `lsn` is accepted (0: no more than before). Raises `TierError`."""
        tally, now_us = self.tally, self._clock.now_us()
        note = replace(
            self._note,
            lsn=max(lsn, self._note.lsn),
            at_us=now_us,
            trouble=self.trouble,
            lag_bytes=tally.lag_bytes,
            lag_seconds=tally.lag_seconds,
        )
        await self._notes.write(self._slot.name, note)
        self._note = note

    async def look(self, catalog: Catalog) -> None:
        """Looks how far the slot is behind. Raises `TierError`."""
        slot = await self._state(catalog)
        tally, now_us = self.tally, self._clock.now_us()
        self._lags.append((slot.current_lsn, now_us))
        while self._lags and self._lags[0][0] <= slot.confirmed_lsn:
            self._lags.popleft()
        tally.lag_bytes = slot.lag_bytes
        tally.lag_seconds = (now_us - self._lags[0][1]) / SECONDS if self._lags else 0.0
        tally.safe_bytes = slot.safe_bytes
        tally.in_danger = slot.wal_status in ("unreserved", "lost")
        self._note = replace(self._note, wal_status=slot.wal_status)
        self._troubles.pop("log", None)
        if tally.in_danger:
            self._troubles["log"] = (
                f"{self.where}: the server may drop the log that the slot needs (wal_status"
                f" {slot.wal_status})"
            )

    async def append(self, committed: Sequence[Committed]) -> None:
        """Appends the events of transactions, and tries again until the queue takes them."""
        for together in _in_exchanges(committed, self._slot.name):
            await asyncio.gather(*map(self._append_one, together))
        if committed:
            self._changed_us = self._clock.now_us()

    async def _append_one(self, event: bytes) -> None:
        while True:
            try:
                await self._queue.append_event(event)
            except TierError as error:
                self._troubles["queue"] = f"the queue does not take changes: {error}"
                self._queue_outage.failed(error)
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                break
        self.tally.events += 1
        if self._queue_outage.is_on:
            self._troubles.pop("queue", None)
            self._queue_outage.worked()


def _in_exchanges(committed: Sequence[Committed], slot: str) -> Iterator[list[bytes]]:
    """Yields the events of transactions in order, so many together as are worth one exchange."""
    together: list[bytes] = []
    size = 0
    for one in committed:
        for event in events_of(one, slot):
            if together and size + len(event) > MOST_BYTES:
                yield together
                together, size = [], 0
            together.append(event)
            size += len(event)
    if together:
        yield together


class _Following:
    """The reading of a slot over one connection."""

    def __init__(
        self, reader: Reader, catalog: Catalog, replication: Replication, system: System, confirmed: int
    ) -> None:
        self._reader = reader
        self._where = reader.where
        self._catalog = catalog
        self._replication = replication
        self._decoder = Decoder()
        self._assembler = reader.assembler(system.database)
        self._accepted = confirmed
        """Everything up to here is accepted by the queue."""

    async def run(self) -> None:
        """Reads until the connection ends. Raises `TierError`."""
        reading = asyncio.ensure_future(self._read())
        beating = asyncio.ensure_future(self._beat())
        try:
            done, _ = await asyncio.wait({reading, beating}, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
        finally:
            for one in (reading, beating):
                one.cancel()
            await asyncio.gather(reading, beating, return_exceptions=True)
            with contextlib.suppress(TierError, TimeoutError):
                async with asyncio.timeout(BEAT_SECONDS):
                    await self._confirm()

    async def _read(self) -> None:
        while True:
            await self._take(await self._replication.read())

    async def _take(self, batch: Sequence[Received]) -> None:
        committed: list[Committed] = []
        reached, answers = self._accepted, False
        for one in batch:
            if isinstance(one, Data):
                ended = self._message(one.message)
                if ended is not None:
                    reached = max(reached, ended.end_lsn)
                    committed.append(ended)
            else:
                answers = answers or one.wants_answer
                if self._assembler.is_between:
                    reached = max(reached, one.end_lsn)
        told = [one for one in committed if one.changes or one.faults]
        await self._until_visible(told)
        await self._reader.append(told)
        self._accepted = reached
        if answers:
            await self._confirm()

    def _message(self, data: bytes) -> Committed | None:
        try:
            return self._assembler.take(self._decoder.decode(data))
        except UnreadableError as error:
            raise UnreadableAnswerError(self._where, str(error)) from error

    async def _until_visible(self, committed: Sequence[Committed]) -> None:
        """Waits until other sessions see these transactions."""
        waiting = [one.xid for one in committed if one.xid]
        pause = VISIBLE_PAUSE_SECONDS
        while waiting:
            snapshot = await self._catalog.snapshot()
            waiting = [xid for xid in waiting if not is_visible(xid, snapshot)]
            if waiting:
                await asyncio.sleep(pause)
                pause = min(2 * pause, 0.2)

    # beats ----------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        beats = 0
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            beats += 1
            if beats % LOOK_EVERY == 1:
                await self._reader.look(self._catalog)
            await self._confirm(ask=beats % ASK_EVERY == 0)

    async def _confirm(self, *, ask: bool = False) -> None:
        """Notes what is accepted, then confirms it to the server.

        If the queue does not take the note, the server is told no more than before.
        """
        try:
            await self._reader.note(self._accepted)
        except TierError as error:
            log.debug("the note was not written: %s", error)
        self._replication.confirm(self._reader.noted_lsn, ask=ask)
