"""A reader of a real PostgreSQL with a queue in memory, and what the queue has taken."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence

import pytest

from cachesvc.changes.contract import OpenChange
from cachesvc.changes.events.cloudevents import decode_ours
from cachesvc.changes.events.rows import RowMapping
from cachesvc.changes.postgres.notes import Note
from cachesvc.changes.postgres.reader import Reader, Slot
from cachesvc.config.topology import Namespace, Source
from cachesvc.model.change import Change
from cachesvc.model.clock import SystemClock
from cachesvc.model.errors import TierUnavailableError
from loadtests.postgres import Postgres, programs
from tests.doubles.waiting import until

SLOT = "cdc"
NAMESPACES: Mapping[str, Namespace] = {
    "blocks": Namespace(
        "web",
        sources=(
            Source(
                "public.blocks",
                key="{ws-{workspace_id}}:block:{id}",
                tags=("{ws-{workspace_id}}:page-{page_id?}",),
            ),
        ),
    ),
    "pages": Namespace(
        "web", sources=(Source("shop.public.pages", key="page:{id}", tags=("open-{is_open}",)),)
    ),
}
TABLES = """
CREATE TABLE blocks (id bigint PRIMARY KEY, workspace_id int NOT NULL, page_id int, body text);
ALTER TABLE blocks REPLICA IDENTITY FULL;
ALTER TABLE blocks ALTER body SET STORAGE EXTERNAL;
CREATE TABLE pages (id int PRIMARY KEY, is_open boolean NOT NULL DEFAULT true);
ALTER TABLE pages REPLICA IDENTITY FULL;
CREATE TABLE others (id int PRIMARY KEY);
CREATE PUBLICATION cachesvc FOR TABLE blocks, pages, others;
SELECT pg_create_logical_replication_slot('cdc', 'pgoutput');
"""


def needs_postgres() -> None:
    """Skips the module that calls it if a part is missing."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: cachesvc[postgres]")
    if programs() is None:
        pytest.skip("postgresql is not installed: `make test` installs it", allow_module_level=True)


class TakingQueue:
    """Takes events, unless `refuses`, and keeps notes."""

    def __init__(self) -> None:
        self.events: list[bytes] = []
        self.notes: dict[str, Note] = {}
        self.refuses = False

    async def append_event(self, event: bytes) -> str:
        if self.refuses:
            raise TierUnavailableError("queue", "is away")
        self.events.append(event)
        return f"1-{len(self.events)}"

    async def read(self, slot: str) -> Note:
        if self.refuses:
            raise TierUnavailableError("queue", "is away")
        return self.notes.get(slot, Note())

    async def write(self, slot: str, note: Note) -> None:
        if self.refuses:
            raise TierUnavailableError("queue", "is away")
        self.notes[slot] = note

    @property
    def taken(self) -> list[OpenChange]:
        return [decode_ours("", event) for event in self.events]

    @property
    def changes(self) -> list[Change]:
        return [change for one in self.taken for change in one.changes]

    def clear(self) -> None:
        self.events.clear()


def reader_of(
    server: Postgres,
    queue: TakingQueue,
    namespaces: Mapping[str, Namespace] = NAMESPACES,
    *,
    url: str = "",
    most_targets: int = 1000,
) -> Reader:
    from cachesvc.changes.postgres.server import PostgresServer  # it needs psycopg

    return Reader(
        PostgresServer(url or server.url),
        Slot(SLOT, "cachesvc", most_targets),
        mapping=RowMapping(namespaces),
        queue=queue,
        notes=queue,
        clock=SystemClock(),
    )


@contextlib.asynccontextmanager
async def running(reader: Reader) -> AsyncIterator[Reader]:
    """The reader, which has the slot inside the block."""
    task = asyncio.create_task(reader.run())
    try:

        async def reads() -> bool:
            return reader.tally.reading and not reader.trouble

        await until("the reader has the slot", reads)
        yield reader
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def taken(queue: TakingQueue, count: int) -> Sequence[OpenChange]:
    """Waits until the queue has taken so many events, and returns them."""

    async def has_all() -> bool:
        return len(queue.events) >= count

    await until(f"{count} events are taken", has_all)
    return queue.taken
