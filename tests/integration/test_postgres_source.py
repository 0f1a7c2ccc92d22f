"""A real PostgreSQL as a source of changes: commits become events, no loss is silent."""

import asyncio
from collections.abc import Iterator

import pytest

from cachesvc.changes.contract import OpenChange
from cachesvc.config.topology import Namespace, Source
from cachesvc.model.change import Change
from cachesvc.model.errors import ConfigError
from loadtests.postgres import Postgres, postgres, replica_of
from tests.doubles.postgres import (
    NAMESPACES,
    SLOT,
    TABLES,
    TakingQueue,
    needs_postgres,
    reader_of,
    running,
    taken,
)
from tests.doubles.waiting import until

needs_postgres()
pytestmark = pytest.mark.slow

EVERYTHING = (Change("blocks", all=True), Change("pages", all=True))


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres(logical_decoding_work_mem="64kB") as running_server:
        running_server.psql(TABLES)
        yield running_server


@pytest.fixture
async def queue(server: Postgres) -> TakingQueue:
    """A queue with a note of the slot, so that reading begins without a gap."""
    made = TakingQueue()
    await sql(server, "DELETE FROM blocks; DELETE FROM pages")
    async with running(reader_of(server, made)):
        await drained(server, made)
    made.clear()
    return made


async def sql(server: Postgres, *statements: str) -> None:
    """Runs SQL; several statements are one transaction."""
    text = statements[0] if len(statements) == 1 else f"BEGIN; {'; '.join(statements)}; COMMIT"
    await asyncio.to_thread(server.psql, text)


async def asked(server: Postgres, query: str) -> str:
    return await asyncio.to_thread(server.psql, query)


async def drained(server: Postgres, queue: TakingQueue) -> None:
    """Waits until everything that is committed by now is taken."""
    before = len(queue.events)
    told = '{"changes": [{"namespace": "end", "all": true}]}'
    await sql(server, f"SELECT pg_logical_emit_message(true, 'cachesvc', '{told}')")
    await until("the end is taken", lambda: _has_end(queue, before))
    await asyncio.sleep(0.05)  # the reader learns of it; one that is stopped before gets all of it again


def _has_end(queue: TakingQueue, before: int) -> bool:
    return any(change.namespace == "end" for one in queue.taken[before:] for change in one.changes)


async def events(server: Postgres, queue: TakingQueue) -> list[OpenChange]:
    """Everything that was taken, without the end of `drained`."""
    await drained(server, queue)
    return [one for one in queue.taken if one.changes[:1] != (Change("end", all=True),)]


async def test_the_first_look_at_a_slot_fences_what_it_feeds(server: Postgres) -> None:
    queue = TakingQueue()
    async with running(reader_of(server, queue)):
        (first,) = (await taken(queue, 1))[:1]
    assert first.changes == EVERYTHING
    assert queue.notes[SLOT].gap == "the queue has no note of this slot: nobody knows what was read"


async def test_the_rows_of_a_transaction_and_its_message_are_one_event(
    server: Postgres, queue: TakingQueue
) -> None:
    told = '{"changes": [{"namespace": "blocks", "tags": ["all-of-7"]}], "caller": "shop"}'
    async with running(reader_of(server, queue)):
        await sql(
            server,
            "INSERT INTO blocks VALUES (1, 7, 5, 'a'), (2, 7, NULL, 'b')",
            "INSERT INTO pages VALUES (3, false)",
            "INSERT INTO others VALUES (4)",
            f"SELECT pg_logical_emit_message(true, 'cachesvc', '{told}')",
        )
        (event,) = await events(server, queue)
    assert event.changes == (
        Change("blocks", ("{ws-7}:block:1", "{ws-7}:block:2"), ("{ws-7}:page-5", "all-of-7")),
        Change("pages", ("page:3",), ("open-false",)),
    )
    assert event.source == "/postgres/cdc/shop"
    assert event.reason == ""


async def test_keys_that_change_large_values_and_truncate(server: Postgres, queue: TakingQueue) -> None:
    async with running(reader_of(server, queue)):
        await sql(server, "INSERT INTO blocks VALUES (1, 7, 5, repeat('x', 100000))")
        await sql(server, "UPDATE blocks SET id = 2, page_id = 6")
        await sql(server, "TRUNCATE blocks")
        first, moved, emptied = await events(server, queue)
    assert first.changes == (Change("blocks", ("{ws-7}:block:1",), ("{ws-7}:page-5",)),)
    assert moved.changes == (
        Change("blocks", ("{ws-7}:block:1", "{ws-7}:block:2"), ("{ws-7}:page-5", "{ws-7}:page-6")),
    )
    assert emptied.changes == (Change("blocks", all=True),)


async def test_what_is_rolled_back_is_nothing(server: Postgres, queue: TakingQueue) -> None:
    async with running(reader_of(server, queue)):
        await sql(server, "BEGIN; INSERT INTO blocks SELECT n, 7 FROM generate_series(1, 3000) n; ROLLBACK")
        assert await events(server, queue) == []


async def test_a_large_transaction_is_read_in_parts_and_fences_its_namespaces(
    server: Postgres, queue: TakingQueue
) -> None:
    reader = reader_of(server, queue, most_targets=500)
    async with running(reader):
        await sql(
            server,
            "INSERT INTO pages VALUES (1)",
            "INSERT INTO blocks SELECT n, n, n, repeat('x', 100) FROM generate_series(1, 20000) n",
        )
        (event,) = await events(server, queue)
    assert event.changes == (Change("pages", all=True), Change("blocks", all=True))
    assert reader.assembled.collapsed == 1
    assert reader.assembled.held == 0


async def test_a_commit_is_announced_once_others_can_see_it(server: Postgres, queue: TakingQueue) -> None:
    """With synchronous replication, a commit in the log waits for replicas, invisible."""
    await sql(server, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    reader = reader_of(server, queue)
    try:
        async with running(reader):
            await sql(server, "SELECT pg_reload_conf()")
            writing = asyncio.create_task(sql(server, "INSERT INTO blocks VALUES (1, 7)"))
            await until("the commit is read", lambda: reader.assembled.transactions > 0)
            await asyncio.sleep(0.2)
            assert await asked(server, "SELECT count(*) FROM blocks") == "0"
            assert queue.events == []
            await sql(server, "ALTER SYSTEM RESET synchronous_standby_names")
            await sql(server, "SELECT pg_reload_conf()")
            await writing
            (event,) = await events(server, queue)
    finally:
        await sql(server, "ALTER SYSTEM RESET synchronous_standby_names")
        await sql(server, "SELECT pg_reload_conf()")
    assert event.changes == (Change("blocks", ("{ws-7}:block:1",)),)


async def test_a_change_that_the_queue_does_not_take_is_sent_again(
    server: Postgres, queue: TakingQueue
) -> None:
    reader = reader_of(server, queue)
    async with running(reader):
        queue.refuses = True
        await sql(server, "INSERT INTO blocks VALUES (1, 7)")
        await until("the queue has refused it", lambda: bool(reader.trouble))
        assert "the queue does not take changes" in reader.trouble
    queue.refuses = False
    async with running(reader_of(server, queue)):
        (event,) = await events(server, queue)
    assert event.changes == (Change("blocks", ("{ws-7}:block:1",)),)


async def test_a_second_reader_waits_and_goes_on_without_a_gap(server: Postgres, queue: TakingQueue) -> None:
    second = reader_of(server, queue)
    async with running(reader_of(server, queue)):
        waiting = asyncio.create_task(second.run())
        await until("the second one waits", lambda: second.tally.waiting)
        await sql(server, "INSERT INTO blocks VALUES (1, 7)")
        await taken(queue, 1)
    try:
        await until("the second one reads", lambda: second.tally.reading)
        await sql(server, "INSERT INTO blocks VALUES (2, 7)")
        found = [event.changes for event in await events(server, queue)]
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert found == [(Change("blocks", (f"{{ws-7}}:block:{n}",)),) for n in (1, 2)]
    assert second.tally.gaps == 0


async def test_feedback_moves_an_idle_slot(server: Postgres, queue: TakingQueue) -> None:
    async with running(reader_of(server, queue)):
        before = await asked(server, "SELECT pg_current_wal_lsn()")
        await asyncio.to_thread(
            server.psql, "CREATE TABLE elsewhere AS SELECT generate_series(1, 1000)", "postgres"
        )
        column = "confirmed_flush_lsn"
        query = f"SELECT {column} > '{before}' FROM pg_replication_slots"  # noqa: S608  not a caller's

        async def has_moved() -> bool:
            return await asked(server, query) == "t"

        await until("the slot has moved", has_moved)
    await asyncio.to_thread(server.psql, "DROP TABLE elsewhere", "postgres")


MAKE, DROP = (
    f"SELECT pg_create_logical_replication_slot('{SLOT}', 'pgoutput')",
    f"SELECT pg_drop_replication_slot('{SLOT}')",
)


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        ((DROP,), "the slot was gone"),
        ((DROP, MAKE), "the slot was made again or moved on"),
        ((f"SELECT pg_replication_slot_advance('{SLOT}', pg_current_wal_lsn())",), "made again or moved on"),
    ],
)
async def test_a_slot_that_is_not_as_it_was_left_is_a_gap(
    server: Postgres, queue: TakingQueue, statements: tuple[str, ...], said: str
) -> None:
    await sql(server, "INSERT INTO blocks VALUES (1, 7)")
    for statement in statements:
        await sql(server, statement)
    reader = reader_of(server, queue)
    async with running(reader):
        await sql(server, "INSERT INTO blocks VALUES (2, 7)")
        first, second = await events(server, queue)
    assert first.changes == EVERYTHING
    assert second.changes == (Change("blocks", ("{ws-7}:block:2",)),)
    assert said in queue.notes[SLOT].gap
    assert reader.tally.gaps == 1


async def test_a_slot_that_never_was_is_refused(server: Postgres) -> None:
    await sql(server, DROP)
    reader = reader_of(server, TakingQueue())
    running_reader = asyncio.create_task(reader.run())
    try:
        await until("it says so", lambda: "run `cachesvc cdc setup`" in reader.trouble)
    finally:
        running_reader.cancel()
        await asyncio.gather(running_reader, return_exceptions=True)
        await sql(server, MAKE)


async def test_a_slot_that_is_lost_is_a_gap(server: Postgres, queue: TakingQueue) -> None:
    await sql(server, "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
    await sql(server, "SELECT pg_reload_conf()")
    try:
        await sql(server, "INSERT INTO blocks VALUES (1, 7)")
        for _ in range(4):
            await sql(server, "SELECT pg_logical_emit_message(false, 'other', 'x')")
            await sql(server, "SELECT pg_switch_wal()")
        await sql(server, "CHECKPOINT")
        assert await asked(server, "SELECT wal_status FROM pg_replication_slots") == "lost"
        async with running(reader_of(server, queue)):
            await sql(server, "INSERT INTO blocks VALUES (2, 7)")
            first, second = await events(server, queue)
    finally:
        await sql(server, "ALTER SYSTEM RESET max_slot_wal_keep_size")
        await sql(server, "SELECT pg_reload_conf()")
    assert (first.changes, second.changes) == (EVERYTHING, (Change("blocks", ("{ws-7}:block:2",)),))
    assert "max_slot_wal_keep_size" in queue.notes[SLOT].gap


async def test_a_server_that_is_killed_loses_nothing(server: Postgres, queue: TakingQueue) -> None:
    reader = reader_of(server, queue)
    async with running(reader):
        await sql(server, "INSERT INTO blocks VALUES (1, 7)")
        await asyncio.to_thread(server.process.kill)
        await until("the reader says so", lambda: bool(reader.trouble) and not reader.tally.reading)
        await asyncio.to_thread(server.process.start)
        await sql(server, "INSERT INTO blocks VALUES (2, 7)")
        found = [event.changes for event in await events(server, queue)]
    assert [(Change("blocks", (f"{{ws-7}}:block:{n}",)),) for n in (1, 2)] == found[-2:]
    assert reader.tally.gaps == 0
    assert not reader.trouble


async def test_a_failover_is_a_gap(server: Postgres, queue: TakingQueue) -> None:
    with replica_of(server) as replica:
        hosts = f"127.0.0.1,127.0.0.1:{replica.port}".replace(",", f":{server.port},", 1)
        url = f"postgresql://postgres@{hosts}/shop?target_session_attrs=read-write"
        reader = reader_of(server, queue, url=url)
        async with running(reader):
            await sql(server, "INSERT INTO blocks VALUES (1, 7)")
            await taken(queue, 1)
            await asyncio.to_thread(server.process.kill)
            await asyncio.to_thread(replica.promote)
            await until("the reader is at the promoted one", lambda: reader.tally.gaps > 0)
            await sql(replica, "INSERT INTO blocks VALUES (2, 7)")
            found = [event.changes for event in await events(replica, queue)]
    await asyncio.to_thread(server.process.start)
    assert found[-2:] == [EVERYTHING, (Change("blocks", ("{ws-7}:block:2",)),)]
    assert queue.notes[SLOT].timeline == 2


# what the server does not send --------------------------------------------------------------------


def fed_by(table: str, key: str) -> dict[str, Namespace]:
    return {"n": Namespace("web", sources=(Source(table, key=key),))}


@pytest.mark.parametrize(
    ("table", "key", "made", "said"),
    [
        ("public.nowhere", "{id}", "SELECT 1", "there is no table public.nowhere"),
        ("elsewhere.public.others", "{id}", "SELECT 1", "no namespace has a source in database 'shop'"),
        (
            "public.bad",
            "{id}",
            "CREATE TABLE bad (id int PRIMARY KEY)",
            "ALTER PUBLICATION cachesvc ADD TABLE",
        ),
        (
            "public.bad",
            "{id}:{ws}",
            "CREATE TABLE bad (id int PRIMARY KEY, ws int); ALTER PUBLICATION cachesvc ADD TABLE bad",
            "the template '{id}:{ws}' needs the old value of column 'ws'",
        ),
        (
            "public.bad",
            "{id}:{no}",
            "CREATE TABLE bad (id int PRIMARY KEY); ALTER PUBLICATION cachesvc ADD TABLE bad",
            "needs column 'no', which is not sent (there is id)",
        ),
        (
            "public.bad",
            "{day}",
            "CREATE TABLE bad (day date PRIMARY KEY); ALTER PUBLICATION cachesvc ADD TABLE bad",
            "column 'day' is of type date",
        ),
        (
            "public.bad",
            "{ids}",
            "CREATE TABLE bad (ids int[] PRIMARY KEY); ALTER PUBLICATION cachesvc ADD TABLE bad",
            "column 'ids' is of type integer[]",
        ),
        (
            "public.bad",
            "{id}",
            "CREATE TABLE bad (id int PRIMARY KEY); ALTER PUBLICATION cachesvc ADD TABLE bad WHERE (id > 5)",
            "sends only some rows of public.bad: where (id > 5)",
        ),
        (
            "public.bad",
            "{id}",
            "CREATE TABLE bad (id int PRIMARY KEY) PARTITION BY LIST (id);"
            " ALTER PUBLICATION cachesvc ADD TABLE bad",
            "publish_via_partition_root",
        ),
        (
            "public.bad",
            "{id}",
            "CREATE TABLE bad (id int PRIMARY KEY) PARTITION BY LIST (id);"
            " ALTER TABLE bad REPLICA IDENTITY FULL;"
            " CREATE TABLE bad_1 PARTITION OF bad DEFAULT; ALTER PUBLICATION cachesvc ADD TABLE bad;"
            " ALTER PUBLICATION cachesvc SET (publish_via_partition_root = true)",
            "a partition of public.bad has no REPLICA IDENTITY FULL",
        ),
        (
            "public.others",
            "{id}",
            "ALTER PUBLICATION cachesvc SET (publish = 'insert, update, delete')",
            "leaves out a kind of changes",
        ),
    ],
)
async def test_what_templates_need_and_the_server_does_not_send_is_refused(
    server: Postgres, table: str, key: str, made: str, said: str
) -> None:
    await sql(server, made)
    try:
        with pytest.raises(ConfigError) as refused:
            await reader_of(server, TakingQueue(), fed_by(table, key)).check()
        assert said in str(refused.value)
    finally:
        await sql(server, "DROP TABLE IF EXISTS bad")
        every = "publish = 'insert, update, delete, truncate', publish_via_partition_root = false"
        await sql(server, f"ALTER PUBLICATION cachesvc SET ({every})")


async def test_what_is_right_is_not_refused(server: Postgres) -> None:
    await reader_of(server, TakingQueue()).check()
    await reader_of(server, TakingQueue(), {**NAMESPACES, **fed_by("public.others", "{id}")}).check()
    elsewhere = fed_by("elsewhere.public.nowhere", "{id}")
    await reader_of(server, TakingQueue(), {**NAMESPACES, **elsewhere}).check()
