"""A connection for logical replication, on libpq as psycopg has it.

psycopg opens the connection and runs its commands. What follows `START_REPLICATION` has no call in
psycopg and is spoken here, over its `PGconn`
(https://www.postgresql.org/docs/current/protocol-replication.html):

    from the server    w  place, end of the log, time; then a message of the plugin
                       k  end of the log, time, whether an answer is wanted
    to the server      r  places that are written, flushed and applied, time, whether to answer
"""

import asyncio
import struct
import time
from collections.abc import Sequence

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

from cachesvc.changes.postgres.contract import (
    Data,
    Keepalive,
    Received,
    RefusedError,
    SlotInUseError,
    System,
)
from cachesvc.changes.postgres.transactions import POSTGRES_EPOCH_US
from cachesvc.model.errors import TierError, TierTimeoutError, TierUnavailableError, UnreadableAnswerError

APPLICATION = "cachesvc cdc"
CONNECT_SECONDS = 5
STREAMING_VERSION = 140000
"""The first version with protocol 2, and with messages in it."""
SILENT_SECONDS = 30.0
"""A server that sends nothing for so long is away; it is asked for a word every 10 s."""
MOST_AT_ONCE = 2000
"""Messages that one read returns at most."""
MOST_BYTES = 4 << 20
"""Bytes of messages that one read returns at most, unless a single one has more."""
_DATA, _KEEPALIVE, _FEEDBACK = (struct.Struct(form) for form in ("!xQQQ", "!xQQB", "!cQQQQB"))


def place_of(url: str) -> str:
    """Returns the server that a URL or a `host=…` text names, without the password."""
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error:
        return "postgres"
    host, port = given.get("host") or "localhost", given.get("port") or "5432"
    return f"postgres {host}:{port}/{given.get('dbname') or ''}"


def url_fault(url: str) -> str:
    """Returns what is wrong with a URL or a `host=…` text, without its words; else empty."""
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error:
        return "is not what libpq takes: postgresql://user@host:port/database"
    return "" if given.get("dbname") else "names no database: postgresql://user@host:port/database"


async def connect(url: str, where: str, *, replication: bool = False) -> AsyncConnection:
    """Returns a connection that commits every statement by itself. Raises `TierError`."""
    more: dict[str, str | int] = {"application_name": APPLICATION, "client_encoding": "UTF8"}
    more |= {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
    given = conninfo_to_dict(url)
    more |= {"connect_timeout": given.get("connect_timeout") or CONNECT_SECONDS}
    if replication:
        more["replication"] = "database"
    try:
        return await AsyncConnection.connect(make_conninfo(url, **more), autocommit=True)
    except (psycopg.Error, OSError) as error:
        raise TierUnavailableError(where, told(error)) from error


def options_of(version: int, publication: str) -> list[tuple[str, str]]:
    """Returns the options of the plugin: protocol 2 with messages if the server has it."""
    named = ("publication_names", '"' + publication.replace('"', '""') + '"')
    if version < STREAMING_VERSION:
        return [("proto_version", "1"), named]
    return [("proto_version", "2"), named, ("streaming", "on"), ("messages", "on")]


def told(error: Exception) -> str:
    """Returns what an error says, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


class PostgresReplication:
    """One connection for logical replication."""

    def __init__(self, connection: AsyncConnection, where: str) -> None:
        self._connection = connection
        self._link = connection.pgconn
        self._where = where
        self._heard_at = time.monotonic()

    def __repr__(self) -> str:
        return f"<PostgresReplication {self._where}>"

    async def identify(self) -> System:
        try:
            row = await (await self._connection.execute("IDENTIFY_SYSTEM")).fetchone()
        except (psycopg.Error, OSError) as error:
            raise TierUnavailableError(self._where, told(error)) from error
        if row is None or len(row) < 4:
            raise UnreadableAnswerError(self._where, "no answer to IDENTIFY_SYSTEM")
        return System(str(row[0]), int(row[1]), str(row[3]))

    async def start(self, slot: str, publication: str) -> None:
        options = options_of(self._connection.info.server_version, publication)
        command = sql.SQL("START_REPLICATION SLOT {} LOGICAL 0/0 ({})").format(
            sql.Identifier(slot),
            sql.SQL(", ").join(
                sql.SQL("{} {}").format(sql.Identifier(name), value) for name, value in options
            ),
        )
        link = self._link
        try:
            link.nonblocking = 1
            link.send_query(command.as_bytes(self._connection))
            while link.is_busy():
                await self._readable(SILENT_SECONDS)
            result = link.get_result()
            if result is None or result.status != ExecStatus.COPY_BOTH:
                while link.get_result() is not None:
                    pass  # so that another command may follow
                raise self._refused(result)
        except (psycopg.Error, OSError) as error:
            raise TierUnavailableError(self._where, told(error)) from error
        self._heard_at = time.monotonic()

    async def read(self) -> Sequence[Received]:
        found: list[Received] = []
        total = 0
        while True:
            try:
                size, data = self._link.get_copy_data(1)
                if size == 0 and found:
                    return found
                if size == 0:
                    await self._readable(1.0)
                    continue
                if size < 0:
                    raise self._refused(self._link.get_result())
            except (psycopg.Error, OSError) as error:
                raise TierUnavailableError(self._where, told(error)) from error
            self._heard_at = time.monotonic()
            found.append(self._received(bytes(data)))
            total += size
            if len(found) >= MOST_AT_ONCE or total >= MOST_BYTES:
                return found

    def confirm(self, lsn: int, *, ask: bool = False) -> None:
        if ask and time.monotonic() - self._heard_at > SILENT_SECONDS:
            raise TierTimeoutError(self._where, f"no word for {SILENT_SECONDS:.0f} s")
        now_us = time.time_ns() // 1000 - POSTGRES_EPOCH_US
        try:
            self._link.put_copy_data(_FEEDBACK.pack(b"r", lsn, lsn, lsn, now_us, ask))
            self._link.flush()
        except (psycopg.Error, OSError) as error:
            raise TierUnavailableError(self._where, told(error)) from error

    async def _readable(self, seconds: float) -> None:
        """Waits for bytes of the server, for so long at most, and takes them in."""
        loop = asyncio.get_running_loop()
        came: asyncio.Future[None] = loop.create_future()
        socket = self._link.socket
        loop.add_reader(socket, lambda: None if came.done() else came.set_result(None))
        try:
            async with asyncio.timeout(seconds):
                await came
        except TimeoutError:
            return
        finally:
            loop.remove_reader(socket)
        self._link.consume_input()

    def _received(self, data: bytes) -> Received:
        try:
            if data[:1] == b"w":
                _DATA.unpack_from(data)
                return Data(data[_DATA.size :])
            if data[:1] == b"k":
                end_lsn, _, wants_answer = _KEEPALIVE.unpack(data)
                return Keepalive(end_lsn, bool(wants_answer))
        except struct.error as error:
            raise UnreadableAnswerError(self._where, f"a message that is cut off: {error}") from error
        raise UnreadableAnswerError(self._where, f"a message of the unknown kind {data[:1]!r}")

    def _refused(self, result: PGresult | None) -> TierError:
        if result is None:
            return TierUnavailableError(self._where, "the server has ended the replication")
        error = psycopg.errors.error_from_result(result)
        code = error.sqlstate or ""
        if code == "55006":
            return SlotInUseError(self._where, told(error))
        if code.startswith(("57P", "08")) or not code:
            return TierUnavailableError(self._where, told(error))
        return RefusedError(self._where, told(error), code)
