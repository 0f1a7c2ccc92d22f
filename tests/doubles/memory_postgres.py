"""A server of PostgreSQL in memory: a log, its slots, and which commits are visible.

It has one table, `public.docs`, whose rows have one column, `key`. `MemoryServer` is what a reader
connects to; what tests do to it are its other methods.
"""

import asyncio
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from msgspec import Struct

from cachesvc.changes.events.rows import RowMapping
from cachesvc.changes.postgres.contract import (
    Data,
    Keepalive,
    Received,
    RefusedError,
    SlotInUseError,
    SlotState,
    System,
)
from cachesvc.changes.postgres.notes import Note
from cachesvc.model.errors import TierUnavailableError

STEP = 100
"""Bytes of the log that each commit takes."""


class Committed(Struct):
    """A commit in the log."""

    xid: int
    end_lsn: int
    key: str
    is_visible: bool


class MemoryServer:
    """A primary with a log that never ends."""

    where = "postgres memory"

    def __init__(self) -> None:
        self.system, self.timeline = "7", 1
        self.log: list[Committed] = []
        self.end = STEP
        self.slots: dict[str, int] = {}
        """The confirmed place of each slot."""
        self.lost: set[str] = set()
        self.down = False
        self.readers: dict[str, MemoryReplication] = {}
        """The connection that has each slot."""

    def commit(self, key: str, *, is_visible: bool = True) -> Committed:
        """Appends the commit of a row; it may become visible later."""
        self.end += STEP
        made = Committed(700 + len(self.log), self.end, key, is_visible)
        self.log.append(made)
        return made

    @asynccontextmanager
    async def catalog(self) -> AsyncIterator["MemoryServer"]:
        self.check()
        yield self

    @asynccontextmanager
    async def replication(self) -> AsyncIterator["MemoryReplication"]:
        self.check()
        made = MemoryReplication(self)
        try:
            yield made
        finally:
            self.readers = {slot: one for slot, one in self.readers.items() if one is not made}

    # the catalog ----------------------------------------------------------------------------------

    async def is_replica(self) -> bool:
        return False

    async def mistakes(self, publication: str, mapping: RowMapping) -> Sequence[str]:
        return []

    async def slot(self, name: str) -> SlotState | None:
        self.check()
        if name not in self.slots:
            return None
        return SlotState(self.slots[name], self.end, "lost" if name in self.lost else "reserved")

    async def make_slot(self, name: str) -> None:
        self.slots[name] = self.end

    async def drop_slot(self, name: str) -> None:
        del self.slots[name]
        self.lost.discard(name)

    async def snapshot(self) -> str:
        self.check()
        running = ",".join(str(one.xid) for one in self.log if not one.is_visible)
        return f"1:{700 + len(self.log)}:{running}"

    def check(self) -> None:
        """Raises `TierUnavailableError` while the server is down."""
        if self.down:
            raise TierUnavailableError(self.where, "is down")


class MemoryReplication:
    """One connection that reads a slot."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server
        self._slot = ""
        self._sent = 0

    async def identify(self) -> System:
        return System(self._server.system, self._server.timeline, "shop")

    async def start(self, slot: str, publication: str) -> None:
        if slot not in self._server.slots or slot in self._server.lost:
            raise RefusedError(self._server.where, "no such slot", "42704")
        if slot in self._server.readers:
            raise SlotInUseError(self._server.where, "the slot is active")
        self._server.readers[slot] = self
        self._slot, self._sent = slot, self._server.slots[slot]

    async def read(self) -> Sequence[Received]:
        while not (new := [one for one in self._server.log if one.end_lsn > self._sent]):
            self._server.check()
            await asyncio.sleep(0.1)
        self._server.check()
        self._sent = new[-1].end_lsn
        messages: list[Received] = [Data(message) for one in new for message in _messages(one)]
        return [*messages, Keepalive(self._sent, False)]

    def confirm(self, lsn: int, *, ask: bool = False) -> None:
        self._server.check()
        if self._server.readers.get(self._slot) is self:
            self._server.slots[self._slot] = max(self._server.slots[self._slot], lsn)


class MemoryNotes:
    """The notes of readers."""

    def __init__(self) -> None:
        self.notes: dict[str, Note] = {}

    async def read(self, slot: str) -> Note:
        return self.notes.get(slot, Note())

    async def write(self, slot: str, note: Note) -> None:
        self.notes[slot] = note


def _messages(one: Committed) -> list[bytes]:
    """The messages of `pgoutput` about a commit."""
    key = one.key.encode()
    relation = b"R" + struct.pack("!I", 1) + b"public\0docs\0f" + struct.pack("!H", 1)
    return [
        b"B" + struct.pack("!QQI", one.end_lsn - 1, 1, one.xid),
        relation + b"\1key\0" + struct.pack("!II", 25, 0),
        b"I" + struct.pack("!I", 1) + b"N" + struct.pack("!H", 1) + b"t" + struct.pack("!I", len(key)) + key,
        b"C" + struct.pack("!BQQQ", 0, one.end_lsn - 1, one.end_lsn, 1),
    ]
