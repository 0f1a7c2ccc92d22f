"""A look at one copy that does not count as a use of it.

The look has a connection of its own. So it neither waits behind batches nor ends one of their
exchanges, and it also asks a server that the breaker leaves alone. `mg … v u` is memcached's read
without a bump (1.6 and later): the server's order of use stays, and so do the counters that the
paths see; only the server's own count of gets grows by one.
"""

import asyncio
from collections.abc import Callable
from contextlib import closing

from cachesvc.config.addresses import TLS_PREFIX
from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import TierTimeoutError, TierUnavailableError, UnreadableAnswerError
from cachesvc.telemetry.link_faults import tls_fault
from cachesvc.tiers.fair_timeout import FairTimeout
from cachesvc.tiers.l2.contract import Lookup
from cachesvc.tiers.l2.memcached_access import MemcachedAccess, refusal_of_login
from cachesvc.tiers.l2.memcached_client import LARGEST_VALUE
from cachesvc.tiers.names import reach

_MISS = b"EN"
_VALUE = b"VA"


Unpack = Callable[[Key, bytes], Entry | None]
"""Returns the entry that the bytes hold for the key, or None."""


async def look(
    name: str,
    address: str,
    access: MemcachedAccess,
    wire_name: bytes,
    key: Key,
    unpack: Unpack,
    timeout_seconds: float,
) -> Lookup:
    """Returns the copy that the server holds of the key; a failure is a `TierError` value.

    `address` is `host:port`, `tls:host:port` or `unix:/path`.
    """
    try:
        async with FairTimeout(timeout_seconds):
            return await _look(name, address, access, wire_name, key, unpack)
    except TimeoutError:
        return TierTimeoutError(name, f"no answer within {timeout_seconds * 1000:g} ms")
    except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:  # closed, or not memcached
        return TierUnavailableError(name, tls_fault(error) or f"{type(error).__name__}: {error}")


async def _look(
    name: str, address: str, access: MemcachedAccess, wire_name: bytes, key: Key, unpack: Unpack
) -> Lookup:
    reader, writer = await _connect(address, access)
    with closing(writer):
        if command := await asyncio.to_thread(access.login):
            writer.write(command)
            if why := refusal_of_login(await reader.readuntil(b"\r\n")):
                return TierUnavailableError(name, why)
        writer.write(b"mg %b v u\r\n" % wire_name)
        words = (await reader.readuntil(b"\r\n")).split()
        if words[:1] == [_MISS]:
            return None
        size = words[1] if len(words) > 1 and words[0] == _VALUE else b""
        if len(size) > 7 or not size.isdigit() or int(size) > LARGEST_VALUE:
            return UnreadableAnswerError(name, f"does not answer as memcached 1.6 does: {words[:3]!r:.80}")
        return unpack(key, await reader.readexactly(int(size)))


async def _connect(
    address: str, access: MemcachedAccess
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if address.startswith("unix:"):
        return await asyncio.open_unix_connection(address.removeprefix("unix:"))
    host, _, port = address.removeprefix(TLS_PREFIX).rpartition(":")
    host = host.strip("[]")
    link = await reach(host, int(port))
    if address.startswith(TLS_PREFIX):
        return await asyncio.open_connection(sock=link, ssl=access.context, server_hostname=host)
    return await asyncio.open_connection(sock=link)
