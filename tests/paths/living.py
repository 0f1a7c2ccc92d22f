"""Instances that live for the length of a block, and what may be wrong with them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from cachesvc.changes.contract import OpenChange
from cachesvc.changes.relay.follower import RelayWay
from cachesvc.config.topology import Topology
from tests.doubles.memory_journal import MemoryDisk
from tests.paths.running import Running
from tests.paths.world import TOPOLOGY, FarSide

IN_TIME = 1 << 62
"""The watermark of a feed that is never late: fences and the floor alone have to refuse what is old."""


@asynccontextmanager
async def living(
    far: FarSide,
    name: str,
    *,
    consuming: bool = True,
    deaf: bool = False,
    topology: Topology = TOPOLOGY,
    disk: MemoryDisk | None = None,
    ways: Sequence[RelayWay] = (),
) -> AsyncIterator[Running]:
    """An instance with its loops, for the block. Deaf: it cannot reach its queue.

    `disk`: where its journal is. When the block ends, the process is gone as if it was killed: what it
    has not written is lost.
    """
    instance = Running(far, name, topology=topology, disk=disk, ways=ways)
    instance.paths.stream.down = instance.paths.changes.down = deaf
    if instance.paths.journal is not None:
        await instance.paths.journal.start()
    instance.start(consuming=consuming)
    try:
        yield instance
    finally:
        await instance.stop()


async def hang(*_: object, **__: object) -> list[OpenChange]:
    """A consumer that takes nothing any more, while its heartbeats go on."""
    return await asyncio.Event().wait() and []
