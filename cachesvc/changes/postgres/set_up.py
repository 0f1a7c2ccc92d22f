"""The SQL that a database needs before its slot can be read, with the least privileges.

    a role that may log in and read slots; it may read no table
    REPLICA IDENTITY FULL, for tables of whose old rows templates need more than the primary key
    a publication with the tables that the `sources` of namespaces name, and no other
    the slot

Only what is missing is named, so the SQL of a database that is ready is empty.
"""

from collections.abc import AsyncIterator

from psycopg import sql

from cachesvc.changes.events.rows import RowMapping
from cachesvc.changes.postgres.catalog import PostgresCatalog
from cachesvc.changes.postgres.fitness import own_table
from cachesvc.model.errors import ConfigError

_ROLE = "SELECT rolreplication, rolcanlogin FROM pg_roles WHERE rolname = %s"
_MAY_CONNECT = "SELECT has_database_privilege(%s, current_database(), 'CONNECT')"
_SETTINGS = "SELECT current_setting('wal_level'), current_setting('max_slot_wal_keep_size')"


async def statements(
    catalog: PostgresCatalog, mapping: RowMapping, *, slot: str, publication: str, role: str
) -> AsyncIterator[sql.Composed]:
    """Yields the statements in order; with an empty `role`, none is made.

    Raises `ConfigError` for what SQL cannot mend, and `TierError`.
    """
    level, _ = (await catalog.rows(_SETTINGS))[0]
    if level != "logical":
        raise ConfigError("wal_level", f"is {level!r}: set it to `logical`, and start the server again")
    if role:
        async for statement in _of_role(catalog, role):
            yield statement
    tables = []
    for name in mapping.tables:
        table = own_table(name, catalog.database)
        if table is None:  # of another database
            continue
        if not await catalog.is_table(table):
            raise ConfigError(f"source {name}", f"there is no such table in database {catalog.database!r}")
        tables.append(table)
        if await catalog.needs_full_identity(table, mapping.rules([name])):
            yield sql.SQL("ALTER TABLE {} REPLICA IDENTITY FULL").format(sql.Identifier(*table))
    if not tables:
        raise ConfigError("--topology", f"no namespace has a source in database {catalog.database!r}")
    async for statement in _of_publication(catalog, publication, list(dict.fromkeys(tables))):
        yield statement
    if await catalog.slot(slot) is None:
        yield sql.SQL("SELECT pg_create_logical_replication_slot({}, 'pgoutput')").format(slot)


async def warning(catalog: PostgresCatalog) -> str:
    """Returns what an operator should know of the server's settings; empty if nothing."""
    if (await catalog.rows(_SETTINGS))[0][1] != "-1":
        return ""
    return (
        "max_slot_wal_keep_size is not set: while nobody reads the slot, the server keeps its log until its"
        " disk is full. With a limit, a slot that is too far behind is lost, which fences namespaces once"
    )


async def _of_role(catalog: PostgresCatalog, role: str) -> AsyncIterator[sql.Composed]:
    name = sql.Identifier(role)
    found = await catalog.rows(_ROLE, role)
    if not found:
        yield sql.SQL("CREATE ROLE {} LOGIN REPLICATION").format(name)
    elif not all(found[0]):
        yield sql.SQL("ALTER ROLE {} LOGIN REPLICATION").format(name)
    if not found or not (await catalog.rows(_MAY_CONNECT, role))[0][0]:
        yield sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(sql.Identifier(catalog.database), name)


async def _of_publication(
    catalog: PostgresCatalog, publication: str, tables: list[tuple[str, str]]
) -> AsyncIterator[sql.Composed]:
    name = sql.Identifier(publication)
    published = await catalog.published(publication)
    missing = sql.SQL(", ").join(sql.Identifier(*table) for table in tables if table not in (published or ()))
    if published is None:
        yield sql.SQL("CREATE PUBLICATION {} FOR TABLE {} WITH (publish_via_partition_root = true)").format(
            name, missing
        )
    elif missing.as_string():
        yield sql.SQL("ALTER PUBLICATION {} ADD TABLE {}").format(name, missing)
