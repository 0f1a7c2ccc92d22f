"""The ports of an instance: the routes that each serves, and its own connections.

    the data port          reads, writes, invalidations, receipts, fences
    the operations port    explanations, hot keys, the audit, metrics, the relay; `/readyz?verbose`
    either                 the topology, probes, the description of the API

Without an operations port (`server.operations.port`) the data port serves every route. With one, a
request to the wrong port is refused with 421 `wrong-port`, which names the right one, and the data
port shows of the topology only what clients need: the instances. Who shows a known identity is told
so whatever its scopes are; for a path with a namespace, if it may do anything there.

A port has its own listening sockets, names, and connections with their limits. So probes and
metrics are answered on the operations port however crowded the data port is.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import NoReturn, TypeAlias
from urllib.parse import urlsplit

from aiohttp import web

from cachesvc.config.addresses import address, is_wildcard
from cachesvc.model.errors import RequestError
from cachesvc.model.problems import ProblemKind
from cachesvc.web.connections import Connections
from cachesvc.web.handshakes import Handshakes
from cachesvc.web.listener import Listener
from cachesvc.web.replies.reply import Reply
from cachesvc.web.requests.hosts import Hosts
from cachesvc.web.routing import Kind, Place

Handler: TypeAlias = Callable[[web.BaseRequest, Place], Awaitable[Reply]]
Calls: TypeAlias = Mapping[Kind, Mapping[str, tuple[str, Handler]]]
"""Kind of place → method → operation's name and handler."""

DATA = frozenset([Kind.KEY, Kind.GET_MANY, Kind.PUT_MANY, Kind.INVALIDATIONS, Kind.RECEIPT, Kind.FENCES])
"""The routes of callers."""
OPERATIONS = frozenset([Kind.EXPLAIN, Kind.HOT_KEYS, Kind.AUDIT, Kind.METRICS, Kind.RELAY])
"""The routes of operators, and of other instances."""
EITHER = frozenset([Kind.TOPOLOGY, Kind.LIVEZ, Kind.READYZ, Kind.OPENAPI])
"""The routes that both ports serve."""


class Port:
    """One listening port. `start` and `stop` are called once each."""

    def __init__(
        self,
        name: str,
        calls: Calls,
        hosts: Hosts,
        connections: Connections,
        listener: Callable[["Port"], Listener],
        handshakes: Handshakes | None,
        *,
        has_keys: bool,
    ) -> None:
        """`name` is the one that messages have: `data port`; `listener` makes the sockets' side."""
        self.name = name
        self.has_keys = has_keys
        """True if it answers reads and writes."""
        self.calls = calls
        self.hosts = hosts
        self.connections = connections
        self.handshakes = handshakes
        """Its TLS handshakes; None if it speaks plain HTTP."""
        self.address = ""
        """`host:port` as it is bound; empty before the start."""
        self._listener = listener(self)

    def __repr__(self) -> str:
        return f"<Port [{self.name}, {self._listener!r}]>"

    @property
    def is_stopping(self) -> bool:
        return self._listener.is_stopping

    async def start(
        self, host: str, port: int, own: int | None = None, *, is_shared: bool = False, reserved: int = 0
    ) -> int:
        """Starts to listen; returns the bound port.

        `own` and `is_shared` are those of a worker (`Listener.start`). `reserved` are descriptors that
        others need. Raises `OSError`, whose `filename` is the address, if it cannot be bound.
        """
        self.connections.start(reserved)
        bound = await self._listener.start(host, port, own, is_shared=is_shared)
        self.address = address(host, bound)
        return bound

    def drain(self) -> None:
        """Closes each connection with its next answer from now on; new ones are still accepted."""
        self._listener.drain()

    async def stop(self) -> None:
        """Stops to listen, lets running requests end, then closes their connections."""
        await self._listener.stop()
        self.connections.stop()


def only(served: frozenset[Kind], calls: Calls, other: Callable[[], Port]) -> Calls:
    """Returns the table of a port that serves `served`; all other places are those of `other`."""
    refuse = Elsewhere(other)
    return {
        kind: methods if kind in served else {method: (name, refuse) for method, (name, _) in methods.items()}
        for kind, methods in calls.items()
    }


def wrong_port(right: Port, asked: str) -> NoReturn:
    """Raises `RequestError` (`wrong-port`), which names an address that the caller can ask.

    `asked`: the `Host` of the request. If the right port is bound to all addresses of this machine, the
    one by which the caller has reached it is one of them.
    """
    host, _, port = right.address.rpartition(":")
    if is_wildcard(host.strip("[]")) and (reached := urlsplit(f"//{asked}").hostname):
        at = address(reached, int(port))
    else:
        at = right.address
    raise RequestError(ProblemKind.WRONG_PORT, f"this instance answers it on its {right.name}, {at}")


class Elsewhere:
    """The handler of a route that the other port serves. It raises `RequestError`."""

    def __init__(self, other: Callable[[], Port]) -> None:
        self._other = other

    async def __call__(self, request: web.BaseRequest, _: Place) -> Reply:
        wrong_port(self._other(), request.headers.get("Host", ""))
