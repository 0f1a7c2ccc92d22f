"""A real server of PostgreSQL, by psycopg."""

import contextlib
from collections.abc import AsyncIterator

from cachesvc.changes.postgres.catalog import PostgresCatalog
from cachesvc.changes.postgres.connection import PostgresReplication, connect, place_of


class PostgresServer:
    """The database at a URL. Nothing is connected between blocks."""

    def __init__(self, url: str) -> None:
        """`url` is what libpq takes: `postgresql://…` or `host=… dbname=…`."""
        self._url = url
        self.where = place_of(url)

    def __repr__(self) -> str:
        return f"<PostgresServer {self.where}>"

    @contextlib.asynccontextmanager
    async def catalog(self) -> AsyncIterator[PostgresCatalog]:
        connection = await connect(self._url, self.where)
        try:
            yield PostgresCatalog(connection, self.where)
        finally:
            await connection.close()

    @contextlib.asynccontextmanager
    async def replication(self) -> AsyncIterator[PostgresReplication]:
        connection = await connect(self._url, self.where, replication=True)
        try:
            yield PostgresReplication(connection, self.where)
        finally:
            await connection.close()
