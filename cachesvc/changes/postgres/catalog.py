"""The questions that ordinary SQL answers: what the publication sends, how the slot fares."""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import AsyncConnection, sql

from cachesvc.changes.events.rows import RowMapping, Rule
from cachesvc.changes.postgres.connection import told
from cachesvc.changes.postgres.contract import RefusedError, SlotState
from cachesvc.changes.postgres.fitness import faults, fed_namespaces, own_table
from cachesvc.changes.postgres.lsn import lsn_of
from cachesvc.model.errors import TierTimeoutError, TierUnavailableError

T = TypeVar("T")

QUERY_SECONDS = 5.0
MAKE_SECONDS = 60.0
"""Making a slot waits until every transaction that was open has ended."""
OLDEST_VERSION = 130000
"""The first version that says how a slot fares (`wal_status`)."""
_PUBLICATION = """
SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate, pubviaroot
FROM pg_publication WHERE pubname = %s
"""
_PUBLISHED = "SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = %s"
_FILTERED = """
SELECT schemaname, tablename, attnames::text[], rowfilter
FROM pg_publication_tables WHERE pubname = %s
"""
"""With the columns that are sent, and the condition on rows: of version 15 and later."""
_TABLE = """
SELECT c.relreplident::text, c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p')
"""
_COLUMNS = """
SELECT a.attname::text, a.attgenerated::text <> '', t.typcategory::text, format_type(a.atttypid, NULL),
  coalesce(nullif(t.typbasetype, 0), t.oid)::int8,
  c.relreplident = 'f' OR a.attnum = ANY (coalesce((
    SELECT i.indkey FROM pg_index i WHERE i.indrelid = c.oid
    AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END
  ), ''::int2vector)::int2[])
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_type t ON t.oid = a.atttypid
WHERE n.nspname = %s AND c.relname = %s AND a.attnum > 0 AND NOT a.attisdropped
"""
_POORER = """
SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
  pg_partition_tree(c.oid) t JOIN pg_class p ON p.oid = t.relid
WHERE n.nspname = %s AND c.relname = %s AND c.relkind = 'p' AND t.isleaf AND p.relreplident <> 'f'
"""
_USABLE_CATEGORIES = "BSENIUV"
"""Categories of types with a lasting text: booleans, text, enums, numbers, addresses, …."""
_SLOT = """
SELECT confirmed_flush_lsn::text, wal_status, safe_wal_size, pg_current_wal_lsn()::text
FROM pg_replication_slots WHERE slot_name = %s
"""


class PostgresCatalog:
    """One connection for ordinary SQL."""

    def __init__(self, connection: AsyncConnection, where: str) -> None:
        self._connection = connection
        self._where = where
        self._version = connection.info.server_version
        self.database = connection.info.dbname

    def __repr__(self) -> str:
        return f"<PostgresCatalog {self._where}>"

    async def is_replica(self) -> bool:
        return bool((await self.rows("SELECT pg_is_in_recovery()"))[0][0])

    async def slot(self, name: str) -> SlotState | None:
        rows = await self.rows(_SLOT, name)
        if not rows:
            return None
        confirmed, status, safe, current = rows[0]
        return SlotState(lsn_of(confirmed) if confirmed else 0, lsn_of(current), status or "", safe)

    async def make_slot(self, name: str) -> None:
        query: LiteralString = "SELECT lsn::text FROM pg_create_logical_replication_slot(%s, 'pgoutput')"
        await self.rows(query, name, seconds=MAKE_SECONDS)

    async def drop_slot(self, name: str) -> None:
        await self.rows("SELECT pg_drop_replication_slot(%s)", name)

    async def snapshot(self) -> str:
        return str((await self.rows("SELECT pg_current_snapshot()::text"))[0][0])

    async def mistakes(self, publication: str, mapping: RowMapping) -> list[str]:
        if self._version < OLDEST_VERSION:
            return [f"the server is of version {self._version // 10000}: 13 or later is needed"]
        rows = await self.rows(_PUBLICATION, publication)
        if not rows:
            return [f"there is no publication {publication!r}: run `cachesvc cdc setup`"]
        found = []
        if not rows[0][0]:
            found.append(
                f"publication {publication!r} leaves out a kind of changes:"
                f" ALTER PUBLICATION {publication} SET (publish = 'insert, update, delete, truncate')"
            )
        if not fed_namespaces(mapping, self.database):
            found.append(f"no namespace has a source in database {self.database!r}")
        sent = await self._sent(publication)
        for name in mapping.tables:
            table = own_table(name, self.database)
            if table is not None:  # else it is of another reader
                via_root = bool(rows[0][1])
                found += await self._mistakes_of(publication, table, mapping.rules([name]), sent, via_root)
        return list(dict.fromkeys(found))

    async def is_table(self, table: tuple[str, str]) -> bool:
        """True if there is such a table."""
        return bool(await self.rows(_TABLE, *table))

    async def published(self, publication: str) -> set[tuple[str, str]] | None:
        """Returns the tables of a publication; None if there is none of this name."""
        if not await self.rows(_PUBLICATION, publication):
            return None
        return {(schema, name) for schema, name in await self.rows(_PUBLISHED, publication)}

    async def needs_full_identity(self, table: tuple[str, str], rules: Iterable[Rule]) -> bool:
        """True if a template needs old values that the replica identity of its table leaves out."""
        wanted = {column for rule in rules for column in rule.columns}
        return any(name in wanted and not sent for name, *_, sent in await self.rows(_COLUMNS, *table))

    async def run(self, statement: sql.Composed) -> None:
        """Runs a statement. Raises `TierError`."""
        await self._guarded(self._connection.execute(statement), MAKE_SECONDS)

    async def _sent(self, publication: str) -> dict[tuple[str, str], tuple[Sequence[str] | None, str]]:
        """Returns the published tables: the columns that are sent (None: all), the condition."""
        if self._version >= 150000:
            rows = await self.rows(_FILTERED, publication)
            return {(schema, name): (columns, where or "") for schema, name, columns, where in rows}
        return dict.fromkeys(await self.rows(_PUBLISHED, publication), (None, ""))

    async def _mistakes_of(
        self,
        publication: str,
        table: tuple[str, str],
        rules: Iterable[Rule],
        sent: dict[tuple[str, str], tuple[Sequence[str] | None, str]],
        via_root: bool,
    ) -> list[str]:
        name = ".".join(table)
        about = await self.rows(_TABLE, *table)
        if not about:
            return [f"there is no table {name}"]
        if about[0][1] == "p" and not via_root:
            return [
                f"{name} is partitioned, and its rows are sent as those of its partitions:"
                f" ALTER PUBLICATION {publication} SET (publish_via_partition_root = true)"
            ]
        if about[0][0] == "f" and await self.rows(_POORER, *table):
            return [f"a partition of {name} has no REPLICA IDENTITY FULL, as the table itself has"]
        if table not in sent:
            return [
                f"{name} is not in publication {publication!r}:"
                f" ALTER PUBLICATION {publication} ADD TABLE {name}"
            ]
        only, condition = sent[table]
        if condition:
            return [f"publication {publication!r} sends only some rows of {name}: where {condition}"]
        types, identity = {}, set()
        wrong = []
        for column, is_generated, category, type_name, oid, is_identity in await self.rows(_COLUMNS, *table):
            if is_generated or (only is not None and column not in only):
                continue
            types[column] = int(oid)
            if is_identity:
                identity.add(column)
            if category not in _USABLE_CATEGORIES or (category == "B" and type_name != "boolean"):
                wrong.append((column, type_name))
        found = []
        for rule in rules:
            found += [f"{rule.namespace}, {name}: {fault}" for fault in faults(rule, types, identity, types)]
            found += [
                f"{rule.namespace}, {name}: column {column!r} is of type {type_name},"
                " which has no lasting text"
                for column, type_name in wrong
                if column in rule.columns and not any(repr(column) in said for said in found)
            ]
        return found

    async def rows(
        self, query: LiteralString, *values: object, seconds: float = QUERY_SECONDS
    ) -> Sequence[tuple[Any, ...]]:
        """Returns the rows of a query, whose `%s` stand for the values. Raises `TierError`."""
        cursor = await self._guarded(self._connection.execute(query, values or None), seconds)
        return await self._guarded(cursor.fetchall(), seconds)

    async def _guarded(self, exchange: Awaitable[T], seconds: float) -> T:
        try:
            async with asyncio.timeout(seconds):
                return await exchange
        except TimeoutError as error:
            await self._connection.close()
            raise TierTimeoutError(self._where, f"no answer within {seconds:g} s") from error
        except (psycopg.OperationalError, OSError) as error:
            raise TierUnavailableError(self._where, told(error)) from error
        except psycopg.Error as error:
            raise RefusedError(self._where, told(error), error.sqlstate or "") from error
