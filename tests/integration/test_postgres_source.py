"""A real PostgreSQL as a source of changes: what it commits becomes events for the queue."""

import asyncio
from collections.abc import Iterator

import pytest

from cachesvc.model.change import Change
from loadtests.postgres import Postgres, postgres
from tests.doubles.postgres import TABLES, TakingQueue, needs_postgres, reader_of, running, taken

needs_postgres()


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as running_server:
        running_server.psql(TABLES)
        yield running_server


async def sql(server: Postgres, text: str) -> None:
    await asyncio.to_thread(server.psql, text)


async def test_a_commit_becomes_an_event(server: Postgres) -> None:
    queue = TakingQueue()
    async with running(reader_of(server, queue)):
        await taken(queue, 1)
        queue.clear()
        await sql(server, "INSERT INTO blocks VALUES (1, 7, 5, 'a')")
        (event,) = await taken(queue, 1)
    assert event.changes == (Change("blocks", ("{ws-7}:block:1",), ("{ws-7}:page-5",)),)
    assert event.source == "/postgres/cdc"
