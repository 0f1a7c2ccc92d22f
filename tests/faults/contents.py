"""The content of servers, asked directly and past the service.

A drill about old content shows something only if the old bytes are really there.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from redis.asyncio import Redis

from cachesvc.config.topology import Topology
from cachesvc.model.entry import Entry, Key
from cachesvc.tiers.envelope import unpack
from cachesvc.tiers.l2.memcached import wire_name
from cachesvc.tiers.l2.ring import Ring
from cachesvc.tiers.l3.placement import Placement
from cachesvc.tiers.l3.record import from_record


class Memcached:
    """One memcached server, reached at its own port."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def entries(self, keys: Sequence[Key]) -> dict[str, Entry]:
        """The server's copies of these keys, by text of the key."""
        held = await self.items(keys)
        found = {key.text: unpack(key, held[name]) for key in keys if (name := wire_name(key.id)) in held}
        return {text: entry for text, entry in found.items() if entry is not None}

    async def items(self, keys: Sequence[Key]) -> dict[bytes, bytes]:
        """The server's items for these keys: name and bytes as stored."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(b"get %b\r\n" % b" ".join(wire_name(key.id) for key in keys))
            found = {}
            while (line := await reader.readline()).startswith(b"VALUE"):
                _, name, _, size = line.split()
                found[name] = (await reader.readexactly(int(size) + 2))[:-2]
            return found
        finally:
            writer.close()

    async def put(self, items: Mapping[bytes, bytes]) -> None:
        """Stores these bytes under these names, without expiry."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            for name, data in items.items():
                writer.write(b"set %b 0 0 %d\r\n%b\r\n" % (name, len(data), data))
                assert await reader.readline() == b"STORED\r\n"
        finally:
            writer.close()


async def records(redis: Redis, keys: Sequence[Key]) -> dict[str, Entry]:
    """The copies of these keys in a cell's Redis, by text of the key."""
    held: list[Any] = await redis.mget([b"v:" + key.id for key in keys])
    found = {key.text: from_record(key, record) for key, record in zip(keys, held, strict=True) if record}
    return {text: entry for text, entry in found.items() if entry is not None}


def on_memcached(topology: Topology, server: str, keys: Sequence[Key]) -> list[Key]:
    """The keys whose place in their region's pool is this server."""
    pool = next(region.pool for region in topology.regions.values() if server in region.pool)
    ring = Ring({name: one.weight for name, one in pool.items()})
    return [key for key in keys if ring.server(key.digest) == server]


def at_home_in(topology: Topology, cell: str, keys: Sequence[Key]) -> list[Key]:
    """The keys whose home cell is this one."""
    placement = Placement(topology)
    return [key for key in keys if placement.home(key.text) == cell]
