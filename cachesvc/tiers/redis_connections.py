"""Connections to Redis servers: clean before each use, left after a demotion.

**Clean.** redis-py refuses a connection from its pool that has bytes to read, but looks only at
bytes that the event loop has read already (`arrivals.py` has the interleaving). The connections
here look at the socket, too.

**Demotion.** A server that is no master any more answers, so its connections stay open for ever,
also after its name was given to the promoted server. Only a new connection looks the name up. So a
reply that says this closes every connection that was made before it:

    READONLY      a replica, asked to write
    MASTERDOWN    a replica without its master
    LOADING       a server that has just started; the promoted one may have its name by now
    NOREPLICAS    a master that the failover manager may have cut off (`min-replicas-to-write`)
    UNBLOCKED     a waiting call, as its server becomes a replica

MISCONF and OOM are not among them: the server is the right one, its disk or its memory is full, and
another look at the name would find the same server.
"""

import asyncio
import re
from typing import Any

from redis.asyncio import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, MasterDownError, ReadOnlyError
from redis.maint_notifications import MaintNotificationsConfig

from cachesvc.tiers.arrivals import Arrivals, arrivals

_DEMOTED = re.compile(r"(?:^|-|: )(?:READONLY|MASTERDOWN|LOADING|NOREPLICAS|UNBLOCKED) ")
"""Redis 6 wraps the error of a script in a text, with a `-` before its code."""

LEAVE_SECONDS = 1.0
"""Connections in use are closed at most this often.

While no master has the name, each refused write would else interrupt every reader of a stream."""


def is_demotion(error: Exception) -> bool:
    """True if the reply says that its server is not, or may not be, the master of its name."""
    if isinstance(error, (ReadOnlyError, MasterDownError, BusyLoadingError)):
        return True
    return _DEMOTED.search(str(error)) is not None


class RedisConnections(ConnectionPool):
    """redis-py's pool with clean connections, which can leave a server.

    `at` makes one without retries and without a time limit of an exchange: its users limit the time
    of an exchange as a whole.
    """

    def __init__(self, connection_class: type[AbstractConnection] = Connection, **settings: Any) -> None:
        super().__init__(connection_class=_CLEAN[connection_class], **settings)
        self._left_at = float("-inf")

    @classmethod
    def at(cls, url: str, *, connect_timeout_seconds: float) -> "RedisConnections":
        """Returns a pool for the server of the URL; it is connected when first used."""
        return cls.from_url(
            url,
            protocol=3,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,
            socket_connect_timeout=connect_timeout_seconds,
            driver_info=None,
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )

    async def leave(self) -> None:
        """Closes the connections, so that the next use looks the server's name up anew.

        Connections in use are closed, too, at most once per `LEAVE_SECONDS`: the exchange on such a
        connection fails at once. Nothing here waits for the end of a socket, because the user of a
        connection could open it again meanwhile, and redis-py would then take its new socket away.
        """
        left = list(self._available_connections)
        now = asyncio.get_running_loop().time()
        if now - self._left_at >= LEAVE_SECONDS:
            self._left_at = now
            left += self._in_use_connections
        for connection in left:
            await connection.disconnect(nowait=True)


class CleanConnection(AbstractConnection):
    """A connection that sees the bytes which the event loop has not read yet."""

    _looked_at: tuple[object, Arrivals] | None = None
    """The stream of the open connection, and the look at its socket."""

    async def can_read(self) -> bool:
        """True if there is something to read, or the server closed the connection."""
        return await super().can_read() or self.has_unread()

    def has_unread(self) -> bool:
        """True if there is something to read, or the connection is closed on either side.

        The same as `can_read`, without its coroutines: they cost 1 % of an exchange.
        """
        reader: Any = self._reader
        parser: Any = self._parser
        if reader is None or reader._buffer or reader.at_eof() or parser._reader.has_data():
            return True
        writer: Any = self._writer
        if self._looked_at is None or self._looked_at[0] is not writer:
            self._looked_at = writer, arrivals(writer.get_extra_info("socket").fileno())
        return bool(self._looked_at[1]())


class _CleanTCPConnection(CleanConnection, Connection):
    pass


class _CleanSSLConnection(CleanConnection, SSLConnection):
    pass


class _CleanUnixConnection(CleanConnection, UnixDomainSocketConnection):
    pass


_CLEAN: dict[type[AbstractConnection], type[AbstractConnection]] = {
    Connection: _CleanTCPConnection,
    SSLConnection: _CleanSSLConnection,
    UnixDomainSocketConnection: _CleanUnixConnection,
}
