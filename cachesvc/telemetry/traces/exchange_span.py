"""The client span of an exchange with a server.

Its attributes follow OpenTelemetry's conventions for databases.

An exchange carries the commands of many callers. Its span is a child of the first caller's span,
so that it stands in a whole trace, and is linked from the span of every other caller.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

from msgspec import Struct

from cachesvc.config.addresses import TLS_PREFIX, watched_in
from cachesvc.model.errors import TierError, TierTimeoutError, TierUnavailableError
from cachesvc.telemetry.traces.trace import Attribute, Span, under


class Server(Struct, frozen=True):
    """A remote server. Its address is configuration and holds no secrets."""

    system: str
    """`memcached` or `redis`; it becomes the attribute `db.system.name`."""
    name: str
    address: str
    """A host, or the path of a unix socket."""
    port: int | None = None
    """None for a unix socket, or if a Redis URL names no port."""

    @classmethod
    def memcached(cls, name: str, address: str) -> "Server":
        """The server at `address`, which is `host:port`, `tls:host:port` or `unix:/path`."""
        address = address.removeprefix(TLS_PREFIX)
        if address.startswith("unix:"):
            return cls("memcached", name, address.removeprefix("unix:"))
        host, _, port = address.rpartition(":")
        return cls("memcached", name, host, int(port))

    @classmethod
    def redis(cls, name: str, url: str) -> "Server":
        """The server at `url`, which is `redis(s)://host:port/db` or `unix:///path`.

        User and password are left out. Of a server that sentinels watch, the name stands there.
        """
        if (watched := watched_in(url)) is not None:
            return cls("redis", name, watched.name)
        parts = urlsplit(url)
        return (
            cls("redis", name, parts.path)
            if parts.scheme == "unix"
            else cls("redis", name, parts.hostname or "", parts.port)
        )


class ExchangeSpan:
    """Makes the spans of one kind of operation with one server."""

    def __init__(self, server: Server, operation: str) -> None:
        self.server = server
        self.operation = operation
        self._name = f"{operation} {server.name}"
        self._attributes: dict[str, Attribute] = {
            "db.system.name": server.system,
            "db.operation.name": operation,
            "server.address": server.address,
        }
        if server.port is not None:
            self._attributes["server.port"] = server.port

    def __repr__(self) -> str:
        return f"<ExchangeSpan {self._name}>"

    @contextmanager
    def around(self, callers: Sequence[Span], items: int) -> Iterator[Span]:
        """A span around the exchange that runs inside.

        `callers` are the spans of the callers whose commands the exchange carries: at least one, and the
        same one may stand there many times. `items` is the number of commands.
        """
        first, *others = dict.fromkeys(callers)
        span = first.child(self._name, "client")
        span.attributes |= self._attributes
        if items > 1:
            span.attributes["db.operation.batch.size"] = items
        for caller in others:
            caller.link(span.context)
        try:
            with under(span):
                yield span
        except BaseException as error:
            span.end(error=_kind_of(error))
            raise
        span.end()


def failure_in(results: Sequence[object]) -> str:
    """The `error.type` of an exchange in which the server answered no item.

    Empty if at least one item was answered.
    """
    # The first item nearly always decides: the rest is looked at only if the first one failed.
    if (
        results
        and isinstance(results[0], TierError)
        and all(isinstance(result, TierError) for result in results)
    ):
        return _kind_of(results[0])
    return ""


def _kind_of(error: BaseException) -> str:
    match error:
        case TierTimeoutError():
            return "timeout"
        case TierUnavailableError():
            return "unavailable"
        case TierError():
            return "refused"
        case _:
            return type(error).__name__
