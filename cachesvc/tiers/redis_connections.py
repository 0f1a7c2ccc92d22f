"""Connections to Redis servers: clean before each use, left after a demotion.

**Bounded.** Replies are read as `redis_replies.py` says, on every connection to a cell or a queue.

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

**Distance.** Opening a connection takes two round trips, or three with TLS: TCP, TLS, and one
exchange (`CleanConnection.first`) for HELLO with AUTH, SELECT and the first command of the
connection's user. No limit that suits a near server is enough for that with a far one. A caller
whose time ends does not end the opening: it goes on, for `OPEN_SECONDS` at most, and the next
caller finds the connection open. That exchange measures the server's round trip (`round_trip.py`),
which is added to the time that a server has to answer.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import hiredis
from redis.asyncio import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import BusyLoadingError, MasterDownError, ReadOnlyError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.maint_notifications import MaintNotificationsConfig

from cachesvc.config.addresses import Watched, address, watched_in
from cachesvc.config.logins import RedisLogin, RedisLogins, login_for, redis_credentials
from cachesvc.tiers.arrivals import Arrivals, arrivals
from cachesvc.tiers.names import reach
from cachesvc.tiers.redis_replies import BoundedParser
from cachesvc.tiers.round_trip import RoundTrip
from cachesvc.tiers.sentinels import QUESTIONS, Ask, MasterName, Place, Told, told_by

_DEMOTED = re.compile(r"(?:^|-|: )(?:READONLY|MASTERDOWN|LOADING|NOREPLICAS|UNBLOCKED) ")
"""Redis 6 wraps the error of a script in a text, with a `-` before its code."""

OPEN_SECONDS = 5.0
"""The time limit for opening a connection.

That is three round trips, and a packet that is lost twice: TCP sends the first one again after 1 s,
and then after 2 s."""
OPEN_ROUND_TRIPS = 3
"""Round trips of an opening at most: TCP, TLS, and the first exchange."""
MOST_WAY_SECONDS = 1.0
"""The most that the way adds to the time limit of a call to a queue."""

LEAVE_SECONDS = 1.0
"""Connections in use are closed at most this often.

While no master has the name, each refused write would else interrupt every reader of a stream."""


class Login(CredentialProvider):
    """Tells redis-py the user and password for each new connection."""

    def __init__(self, login: RedisLogin, path: str = "$.redis") -> None:
        """`path` is that of the login in the service document."""
        self._login = login
        self._path = path

    def __repr__(self) -> str:
        return f"<Login {self._login.user or 'default'}>"

    def get_credentials(self) -> Any:
        return redis_credentials(self._login, self._path)

    async def get_credentials_async(self) -> Any:
        if not self._login.password_file:
            return self.get_credentials()
        return await asyncio.to_thread(self.get_credentials)


class Access(NamedTuple):
    """The certificates and the login for Redis servers."""

    tls: ssl.SSLContext | None = None
    """For `rediss://`; None: the system's authorities."""
    login: Login | None = None
    """For URLs without user and password."""
    sentinel_login: Login | None = None
    """For sentinels, if the URL has no `sentinel_password`."""

    @property
    def to_sentinels(self) -> "Access":
        """The access to sentinels."""
        return Access(self.tls, self.sentinel_login)

    def settings_for(self, url: str) -> dict[str, Any]:
        """Returns the settings of connections to the server of the URL.

        A URL with certificates of its own (`ssl_…`) keeps them.
        """
        parts = urlsplit(url)
        settings: dict[str, Any] = {}
        asked = dict(parse_qsl(parts.query))
        has_own = any(name.startswith("ssl_") for name in asked)
        if self.tls is not None and parts.scheme == "rediss" and not has_own:
            settings["tls"] = self.tls
        if self.login is not None and "@" not in parts.netloc and not asked.keys() & {"username", "password"}:
            settings["credential_provider"] = self.login
        return settings


DEFAULT_ACCESS = Access()


def access_of(
    logins: RedisLogins,
    kind: Literal["cells", "queues"],
    sentinel: RedisLogin,
    tls: ssl.SSLContext | None,
) -> Access:
    """Returns the access that these settings give to one kind of server, and to its sentinels."""
    path, login = login_for(logins, kind)
    return Access(tls, _login(login, path), _login(sentinel, "$.sentinel"))


def _login(login: RedisLogin, path: str) -> Login | None:
    return Login(login, path) if login.password or login.password_file else None


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
        settings = {"parser_class": BoundedParser, **settings}
        super().__init__(connection_class=_CLEAN[connection_class], **settings)
        self._left_at = float("-inf")
        self._master: MasterName | None = settings.get("master")
        if self._master is not None:
            self._master.moved = self._leave_others
        self._moved = _ignored
        self.round_trip = RoundTrip(MOST_WAY_SECONDS)
        """That to the server, as the openings of all connections measured it."""

    @classmethod
    def at(
        cls,
        url: str,
        access: Access = DEFAULT_ACCESS,
        *,
        moved: Callable[[], None] | None = None,
        **settings: Any,
    ) -> "RedisConnections":
        """Returns a pool for the server of the URL; it is connected when first used.

        `moved` is called when sentinels name another master than before. `settings` are redis-py's.
        """
        if (watched := watched_in(url)) is not None:
            url, settings["master"] = watched.url, _master_of(watched, access.to_sentinels)
        made: RedisConnections = cls.from_url(
            url,
            **{
                "protocol": 3,
                "retry": Retry(NoBackoff(), 0),
                "socket_timeout": None,
                "socket_connect_timeout": OPEN_SECONDS,
                "driver_info": None,
                "maint_notifications_config": MaintNotificationsConfig(enabled=False),
                **access.settings_for(url),
                **settings,
            },
        )
        made._moved = moved or _ignored
        return made

    @property
    def master(self) -> str:
        """`host:port` of the master that sentinels named last; empty if none did."""
        return address(*self._master.place) if self._master is not None and self._master.place else ""

    def make_connection(self) -> Any:
        connection: Any = super().make_connection()  # type: ignore[no-untyped-call]  # redis-py's
        connection.round_trip = self.round_trip
        return connection

    def follow(self) -> None:
        """Looks now and then whether sentinels name another master, if there are sentinels."""
        if self._master is not None:
            self._master.follow()

    async def aclose(self) -> None:
        if self._master is not None:
            await self._master.close()
        await super().aclose()

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

    async def _leave_others(self, place: Place) -> None:
        """Closes the connections that lead elsewhere than to the master at this place.

        The server that was replaced may hang, or go on as a master for some seconds: a reader that waits
        there would hear nothing, and an idle connection would take a change for the wrong server.
        """
        known: Any = (*self._available_connections, *self._in_use_connections)
        for connection in known:
            if connection.is_connected and (connection.host, connection.port) != place:
                await connection.disconnect(nowait=True)
        self._moved()


def _ignored() -> None:
    pass


class CleanConnection(AbstractConnection):
    """A connection that sees unread bytes, and whose opening outlives a caller that gives up."""

    round_trip: RoundTrip | None = None
    """Told of the time of the first exchange, if there is one."""
    first: "Callable[[], tuple[Any, ...]] | None" = None
    """Makes a command that is sent in the connection's first exchange, if its user has one."""
    first_reply: Any = None
    """The reply to that command; a `ResponseError` if it was refused."""
    first_sent_at = 0.0
    """When the first exchange began, on the loop's clock."""
    _opening: "asyncio.Task[None] | None" = None
    _looked_at: tuple[object, Arrivals] | None = None
    """The stream of the open connection, and the look at its socket."""

    @property
    def taken_bytes(self) -> int:
        """The bytes that have come of the reply that is read now; 0 before the first one."""
        return getattr(self._parser, "taken_bytes", 0)

    async def connect(self) -> None:
        """Opens the connection, or joins the opening that an earlier caller has left behind."""
        if self._opening is None:
            if self.is_connected:
                return
            self._opening = asyncio.get_running_loop().create_task(self._open(), name="opening to Redis")
            self._opening.add_done_callback(self._opened)
        opening = self._opening
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            if opening.cancelled():
                raise RedisConnectionError("closed while it was opened") from None
            raise

    async def _open(self) -> None:
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                await super().connect()  # type: ignore[no-untyped-call]  # redis-py has no types here
        except BaseException:
            # redis-py calls a connection connected from TCP on: the reply to HELLO is still to come.
            await super().disconnect(nowait=True)
            raise

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        """Greets the server, in one exchange.

        redis-py's own needs one for each of HELLO and SELECT. A command whose greeting was refused is
        refused by the server, too: it has no login, or would run in another database.
        """
        del check_health  # there are no health checks: a connection is looked at before each use
        self._parser.on_connect(self)  # type: ignore[no-untyped-call]  # redis-py has no types here
        login = await self._login()
        if int(self.protocol) == 3:
            login = (b"HELLO", b"3", *login)
        commands: list[tuple[Any, ...]] = [login] if login else []
        if self.client_name:
            commands.append((b"CLIENT", b"SETNAME", self.client_name))
        if self.db:
            commands.append((b"SELECT", self.db))
        greetings = len(commands)
        if self.first is not None:
            commands.append(self.first())
        if not commands:
            return
        loop = asyncio.get_running_loop()
        self.first_sent_at = loop.time()
        packed = b"".join(map(hiredis.pack_command, commands))
        await self.send_packed_command(packed, check_health=False)
        for _ in range(greetings):
            await self.read_response(disable_decoding=True)
        if self.round_trip is not None:
            self.round_trip.saw(loop.time() - self.first_sent_at)
        if self.first is not None:
            try:
                self.first_reply = await self.read_response(disable_decoding=True)
            except ResponseError as refusal:
                self.first_reply = refusal

    async def _login(self) -> tuple[Any, ...]:
        if self.credential_provider:
            known = tuple(await self.credential_provider.get_credentials_async())
        else:
            known = tuple(filter(None, (self.username, self.password)))
        return (b"AUTH", *(("default", *known) if len(known) == 1 else known)) if known else ()

    def _opened(self, opening: "asyncio.Task[None]") -> None:
        self._opening = None
        if not opening.cancelled():
            opening.exception()  # its caller may have left

    async def disconnect(self, *args: Any, **settings: Any) -> None:
        """Closes the connection; ends its opening, too."""
        if self._opening is not None and self._opening is not asyncio.current_task():
            self._opening.cancel()
        await super().disconnect(*args, **settings)

    @property
    def bounded_parser(self) -> BoundedParser:
        """The parser of the open connection."""
        parser: Any = self._parser
        found: BoundedParser = parser
        return found

    def hand_over(self) -> tuple[asyncio.Transport, bytes]:
        """Returns the transport, for another protocol, and the bytes that were not parsed yet.

        redis-py must not read the connection any more, and can close it as before.
        """
        reader: Any = self._reader
        writer: Any = self._writer
        unread, reader._buffer = bytes(reader._buffer), bytearray()
        transport: asyncio.Transport = writer.transport
        return transport, unread

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
        if writer.is_closing():  # reset since it was opened: its socket has no descriptor any more
            return True
        if self._looked_at is None or self._looked_at[0] is not writer:
            self._looked_at = writer, arrivals(writer.get_extra_info("socket").fileno())
        return bool(self._looked_at[1]())


class _CleanTCPConnection(CleanConnection, Connection):
    """A connection to whichever address of the server's name answers (`names.py`)."""

    _reached: socket.socket | None = None

    def __init__(self, *, master: MasterName | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self._master = master

    async def _connect(self) -> None:
        if self._master is not None:
            self.host, self.port = await self._master.look_up()
        self._reached = await reach(self.host, int(self.port))
        try:
            await super()._connect()  # type: ignore[no-untyped-call]  # redis-py has no types here
        finally:
            self._reached = None

    def _connection_arguments(self) -> Mapping[str, Any]:
        arguments = {**super()._connection_arguments(), "sock": self._reached}
        del arguments["host"], arguments["port"]
        if "ssl" in arguments:
            arguments["server_hostname"] = self.host
        return arguments


class _CleanSSLConnection(_CleanTCPConnection, SSLConnection):
    def __init__(self, *, tls: ssl.SSLContext | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self._tls = tls

    def _connection_arguments(self) -> Mapping[str, Any]:
        arguments = super()._connection_arguments()
        return arguments if self._tls is None else {**arguments, "ssl": self._tls}


class _CleanUnixConnection(CleanConnection, UnixDomainSocketConnection):
    pass


_CLEAN: dict[type[AbstractConnection], type[AbstractConnection]] = {
    Connection: _CleanTCPConnection,
    SSLConnection: _CleanSSLConnection,
    UnixDomainSocketConnection: _CleanUnixConnection,
}


async def master_of(watched: Watched, access: Access) -> Place:
    """Returns host and port of the master. Raises redis-py's `ConnectionError`."""
    return await _master_of(watched, access.to_sentinels).look_up()


def _master_of(watched: Watched, access: Access) -> MasterName:
    """Returns the name that these sentinels watch; nothing is connected yet.

    Each look-up opens a connection to each sentinel: look-ups are rare, and an idle connection to a
    sentinel that hangs would have to be noticed.
    """
    connections: Any = RedisConnections.at(watched.sentinel_url, access, protocol=2)

    def asking(place: Place) -> Ask:
        async def ask() -> Told:
            connection: Any = connections.make_connection()
            connection.host, connection.port = place
            try:
                await connection.connect()
                packed = connection.pack_commands(("SENTINEL", one, watched.name) for one in QUESTIONS)
                await connection.send_packed_command(packed, check_health=False)
                said = [await connection.read_response(disable_decoding=True) for _ in QUESTIONS]
                return told_by(watched.name, said)
            finally:
                await connection.disconnect(nowait=True)

        return ask

    return MasterName(watched.name, [(place, asking(place)) for place in watched.sentinels])
