"""Traces of a database whose commits are read: nothing is announced too early, or never."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cachesvc.changes.events.rows import RowMapping
from cachesvc.changes.postgres.reader import Reader, Slot
from cachesvc.config.topology import Namespace, Source
from cachesvc.model.errors import TierUnavailableError
from tests.doubles.memory_postgres import MemoryNotes, MemoryServer
from tests.doubles.memory_queue import MemoryChanges
from tests.paths.living import living
from tests.paths.truth import Store
from tests.paths.world import FarSide

pytestmark = pytest.mark.looptime

SLOT = Slot("cdc", "cachesvc")
FED = {"docs": Namespace("web", sources=(Source("public.docs", key="{key}"),))}


class RefusableChanges(MemoryChanges):
    """A queue that takes no events while `refuses`."""

    refuses = False

    async def append_event(self, event: bytes) -> str:
        if self.refuses:
            raise TierUnavailableError("queue", "is away")
        return await super().append_event(event)


class Database:
    """A database behind the origin, and a reader of its slot."""

    def __init__(self, far: FarSide) -> None:
        self.server, self.notes = MemoryServer(), MemoryNotes()
        self.queue = RefusableChanges(far.queue)
        self.server.slots["cdc"] = self.server.end
        self.clock = far.clock

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Reader]:
        """A reader that lives for the block; at its end the process is gone."""
        mapping = RowMapping(FED)
        reader = Reader(
            self.server, SLOT, mapping=mapping, queue=self.queue, notes=self.notes, clock=self.clock
        )
        task = asyncio.create_task(reader.run())
        try:
            yield reader
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_trace_92_a_commit_must_not_be_announced_before_others_can_see_it() -> None:
    far = FarSide()
    store, database = Store(far), Database(far)
    async with living(far, "i0") as i0, database.read():
        await asyncio.sleep(5)
        assert await i0.paths.value("a") == b"0"
        commit = database.server.commit("a", is_visible=False)  # it waits for a synchronous replica
        await asyncio.sleep(5)
        assert await i0.paths.value("a") == b"0"
        store.commit()
        commit.is_visible = True
        await asyncio.sleep(5)
        assert await i0.paths.value("a") == b"1"


async def test_trace_93_a_reader_that_dies_must_not_have_confirmed_what_the_queue_does_not_have() -> None:
    far = FarSide()
    store, database = Store(far), Database(far)
    async with living(far, "i0") as i0:
        async with database.read():
            await asyncio.sleep(5)
            assert await i0.paths.value("a") == b"0"
            database.queue.refuses = True
            store.commit()
            database.server.commit("a")
            await asyncio.sleep(5)
        database.queue.refuses = False
        async with database.read():
            await asyncio.sleep(5)
            assert await i0.paths.value("a") == b"1"


async def test_trace_94_a_slot_that_was_made_again_must_not_pass_for_the_one_before() -> None:
    far = FarSide()
    store, database = Store(far), Database(far)
    async with living(far, "i0") as i0:
        async with database.read():
            await asyncio.sleep(5)
            assert await i0.paths.value("a") == b"0"
        store.commit()
        database.server.commit("a")
        await database.server.drop_slot("cdc")
        await database.server.make_slot("cdc")
        async with database.read():
            await asyncio.sleep(5)
            assert await i0.paths.value("a") == b"1"


async def test_trace_94_a_fence_that_the_queue_did_not_take_must_not_be_forgotten() -> None:
    far = FarSide()
    store, database = Store(far), Database(far)
    async with living(far, "i0") as i0:
        async with database.read():
            await asyncio.sleep(5)
            assert await i0.paths.value("a") == b"0"
        store.commit()
        database.server.commit("a")
        await database.server.drop_slot("cdc")
        await database.server.make_slot("cdc")
        database.queue.refuses = True  # it is full: it takes notes, and no changes
        async with database.read():
            await asyncio.sleep(5)
        database.queue.refuses = False
        async with database.read():
            await asyncio.sleep(5)
            assert await i0.paths.value("a") == b"1"


async def test_trace_94_a_server_that_was_failed_over_must_not_pass_for_the_one_before() -> None:
    far = FarSide()
    store, database = Store(far), Database(far)
    store.value = b"1"
    async with living(far, "i0") as i0, database.read():
        await asyncio.sleep(5)
        assert await i0.paths.value("a") == b"1"
        database.server.down = True
        await asyncio.sleep(5)
        store.value = b"0"  # the promoted replica had not got the commit
        database.server.timeline, database.server.down = 2, False
        await asyncio.sleep(5)
        assert await i0.paths.value("a") == b"0"
