"""`cachesvc cdc setup`: shows the SQL that a database needs, and runs it with `--apply`."""

import argparse

from cachesvc.changes.events.rows import RowMapping
from cachesvc.changes.postgres.server import PostgresServer
from cachesvc.changes.postgres.set_up import statements, warning
from cachesvc.config.topology import Topology
from cachesvc.model.errors import ConfigError


async def set_up(options: argparse.Namespace, topology: Topology) -> int:
    """Prints the missing statements, runs them with `--apply`, and looks at the result.

    Raises `ConfigError` for what SQL cannot mend, and for what is wrong afterwards; and `TierError`.
    """
    mapping = RowMapping(topology.namespaces)
    async with PostgresServer(options.postgres).catalog() as catalog:
        made = 0
        async for statement in statements(
            catalog, mapping, slot=options.slot, publication=options.publication, role=options.role
        ):
            print(f"{statement.as_string()};", flush=True)
            made += 1
            if options.apply:
                await catalog.run(statement)
        if said := await warning(catalog):
            print(f"-- {said}")
        if made and not options.apply:
            print("-- Nothing was changed: run this SQL, or the command with --apply.")
            return 0
        if mistakes := await catalog.mistakes(options.publication, mapping):
            first, *others = (ConfigError(options.publication, why) for why in mistakes)
            raise ConfigError(first.path, first.why, *others)
        print("-- The database is ready: cachesvc cdc may read it.")
    return 0
