"""Names of servers: how they are looked up, and which of their addresses is taken.

**Look-ups.** A resolver may not answer for a minute, and nothing ends `getaddrinfo` meanwhile. The
event loop's own look-ups run in a pool of threads (libuv's, or the default executor), and both the
loop and the process wait for these threads at their end: a stop would take as long as the
resolver. Here each look-up has a daemon thread, which nobody waits for. Callers of one name share
its look-up, so a resolver that hangs holds one thread per name.

**Addresses.** A name may have several: `localhost` is `::1` and `127.0.0.1`, and its server may
listen on one of them only; a host with two networks may be reachable on one. They are tried in the
resolver's order, IPv6 and IPv4 in turn; the next one begins when the one before has failed, or has
not answered for a quarter of a second (RFC 8305).
"""

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import Any

from aiohappyeyeballs import AddrInfoType, start_connection
from aiohttp.abc import AbstractResolver, ResolveResult

NEXT_ADDRESS_SECONDS = 0.25
"""The time before the next address is tried beside one that has not answered."""

Addresses = Iterable[AddrInfoType]

_Query = tuple[str, int, int, int]
_lock = threading.Lock()
_running: "dict[_Query, Future[Addresses]]" = {}
"""The look-ups under way: host, port, family, flags. Guarded by `_lock`."""


async def look_up(
    host: str, port: int, *, family: int = socket.AF_UNSPEC, flags: int = 0
) -> Sequence[AddrInfoType]:
    """Returns the addresses of a host for TCP, at least one. Raises `OSError`.

    A cancelled call leaves the look-up running.
    """
    literal = _of_literal(host, port)
    if literal is not None:
        return [literal]
    return [*await asyncio.wrap_future(_asked((host, port, family, flags)))]


def look_up_within(seconds: float, host: str, port: int) -> Sequence[AddrInfoType]:
    """The same for a thread that may block. Raises `TimeoutError`, which is an `OSError`, too."""
    literal = _of_literal(host, port)
    if literal is not None:
        return [literal]
    return [*_asked((host, port, socket.AF_UNSPEC, 0)).result(seconds)]


def _asked(query: _Query) -> "Future[Addresses]":
    """Returns the answer of the look-up that is under way, or of one that begins now."""
    with _lock:
        if (answer := _running.get(query)) is None:
            answer = _running[query] = Future()
            answer.set_running_or_notify_cancel()  # from now on, a caller that leaves cancels nothing
            asking = threading.Thread(
                target=_ask, args=(query, answer), name=f"look-up of {query[0]}", daemon=True
            )
            asking.start()
    return answer


def _ask(query: _Query, answer: "Future[Addresses]") -> None:
    host, port, family, flags = query
    found: list[Any] = []
    failure: Exception | None = None
    try:
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, socket.IPPROTO_TCP, flags)
    except Exception as error:  # noqa: BLE001  UnicodeError for a name that is none; the callers are told
        failure = error if isinstance(error, OSError) else OSError(f"{host!r} is no name: {error}")
    with _lock:
        del _running[query]
    if failure is not None:
        answer.set_exception(failure)
    else:
        answer.set_result(found)


def _of_literal(host: str, port: int) -> AddrInfoType | None:
    """Returns the address if the host is one; None for a name, or one with a zone."""
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return None
    if found.version == 4:
        return socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port)
    if found.scope_id:
        return None
    return socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port, 0, 0)


async def reach(host: str, port: int) -> socket.socket:
    """Returns a connected socket. Raises `OSError` if no address can be reached."""
    addresses = await look_up(host, port)
    return await start_connection(addresses, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS, interleave=1)


class Resolver(AbstractResolver):
    """Looks names up for aiohttp's connectors, which try the addresses by themselves."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await look_up(host, port, family=family, flags=socket.AI_ADDRCONFIG)
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=int(address[1]),
                family=of,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for of, _, proto, _, address in found
        ]

    async def close(self) -> None:
        """Does nothing: a look-up ends by itself."""
