"""Wires a reader of a slot to the queue of a region, and runs it."""

import argparse
import asyncio
import contextlib
import logging
import signal

from cachesvc.changes.events.rows import RowMapping
from cachesvc.changes.postgres.reader import Reader, Slot
from cachesvc.changes.postgres.server import PostgresServer
from cachesvc.changes.redis.changes import RedisChanges
from cachesvc.changes.redis.source_notes import RedisNotes
from cachesvc.commands.cdc.probes import Probes
from cachesvc.config.topology import Topology
from cachesvc.model.clock import SystemClock
from cachesvc.model.errors import TierError
from cachesvc.tiers.redis_connections import Access

log = logging.getLogger(__name__)


async def read(options: argparse.Namespace, topology: Topology, access: Access) -> None:
    """Reads until SIGTERM, or until it is cancelled.

    Raises `ConfigError` for what the database does not send, and `OSError` if `--listen` cannot be had.
    """
    clock = SystemClock()
    reading = asyncio.current_task()
    assert reading is not None  # noqa: S101  a coroutine runs in a task
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, reading.cancel)
    async with contextlib.AsyncExitStack() as stack:
        queue = topology.regions[options.region].queue
        changes = RedisChanges(queue, options.region, access=access)
        stack.push_async_callback(changes.stop)
        notes = RedisNotes(queue, options.region, access)
        stack.push_async_callback(notes.stop)
        reader = Reader(
            PostgresServer(options.postgres),
            Slot(options.slot, options.publication, options.most_names),
            mapping=RowMapping(topology.namespaces),
            queue=changes,
            notes=notes,
            clock=clock,
        )
        if options.listen:
            runner = await Probes(reader).start(options.listen)
            stack.push_async_callback(runner.cleanup)
        try:
            await reader.check()
        except TierError as error:
            log.warning("%s; it is tried again", error)
        await reader.run()
