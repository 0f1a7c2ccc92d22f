"""Decides when a client is open, and on which event loop.

    a call, or `open()`           → open, until `aclose` or the end of the loop
    `async with`, also nested     → open; the end of the outermost block closes, unless a call or
                                    `open()` had opened the client before
    closed                        → calls raise `CacheError` (`closed`), until it is opened again
    another loop                  → the client starts anew there; it keeps what it has learnt:
                                    instances, own writes, counters
    … while the first one runs    → `CacheError` (`other-loop`)
    a forked child                → as another loop; the connections stay the parent's

A loop that ends tells nobody but its asynchronous generators (`loop.shutdown_asyncgens`, which
`asyncio.run` and pytest call). So a generator of each open client waits there, and closes it: a
client that a call has opened leaves no connection behind.
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncGenerator
from typing import Any, Protocol
from weakref import WeakSet

from cachesvc_client.aio.clean_connector import CleanConnector
from cachesvc_client.aio.feed import Feeding
from cachesvc_client.aio.loading import Loads
from cachesvc_client.aio.resending import Resending
from cachesvc_client.aio.tasks import Tasks
from cachesvc_client.aio.transport import Transport
from cachesvc_client.errors import CacheError

_of_parents: list[object] = []
"""The objects that a forked child got from its parent's loop.

They are kept: to collect a task or a connection would change the loop's selector, which both have.
"""
_endings: set[asyncio.Task[Any]] = set()


class Movable(Protocol):
    """A part of a client with orders or flights, which belong to one loop."""

    def begin(self) -> None:
        """Makes new ones; what runs on the loop that was left keeps the old ones."""
        ...


class Lifecycle:
    """The beginnings and ends of one client."""

    def __init__(
        self, transport: Transport, feeding: Feeding, tasks: Tasks, loads: Loads, resending: Resending
    ) -> None:
        self._transport = transport
        self._feeding = feeding
        self._tasks = tasks
        self._loads = loads
        self._resending = resending
        self._movable: WeakSet[Movable] = WeakSet()
        self._moving = threading.Lock()  # loops of two threads may ask at once; not held while waiting
        self._loop: asyncio.AbstractEventLoop | None = None
        """The loop on which the client is open."""
        self._home: asyncio.AbstractEventLoop | None = None
        """The loop on which the client was open last: its orders and flights are of that loop."""
        self._pid = 0
        self._blocks = 0
        self._stays = False
        """True if the client stays open when its last block is left."""
        self._closing: asyncio.Event | None = None
        self._keeper: AsyncGenerator[None, None] | None = None

    def register(self, part: Movable) -> None:
        """Has the part begin anew on each further loop. The part is held weakly."""
        self._movable.add(part)

    @property
    def is_open(self) -> bool:
        return self._loop is not None

    def ready(self) -> None:
        """Opens the client for a call, unless it is open on the running loop.

        Raises `CacheError` (`closed`, `other-loop`).
        """
        if self._loop is not asyncio.get_running_loop():
            self._open_for_call()

    def _open_for_call(self) -> None:
        if self._home is asyncio.get_running_loop() and self._pid == os.getpid():
            raise CacheError("closed", "the cache was closed: `async with`, or `open()`, opens it again")
        self._begin()
        self._stays = True

    async def open(self) -> None:
        await self._opened()
        self._stays = True

    async def enter(self) -> None:
        await self._opened()
        self._blocks += 1

    async def leave(self) -> None:
        """Closes the client, if nothing else asks for it to be open on this loop."""
        if self._loop is not asyncio.get_running_loop():
            return
        self._blocks -= 1
        if self._blocks <= 0 and not self._stays:
            await self.close()

    async def _opened(self) -> None:
        while self._closing is not None and self._home is asyncio.get_running_loop():
            await self._closing.wait()
        if self._loop is not asyncio.get_running_loop():
            self._begin()

    def _begin(self) -> None:
        """Opens the client on the running loop."""
        loop = asyncio.get_running_loop()
        with self._moving:
            if self._home is not None and (self._home is not loop or self._pid != os.getpid()):
                self._leave_home(self._home)
            self._transport.open()
            self._loop = self._home = loop
            self._pid = os.getpid()
            self._feeding.open()
            self._resending.start_if_any()
        self._keeper = self._until_the_end_of(loop)
        with contextlib.suppress(StopIteration):  # it has come to its `yield`
            self._keeper.asend(None).send(None)

    def _leave_home(self, left: asyncio.AbstractEventLoop) -> None:
        is_of_parent = self._pid != os.getpid()
        in_use = self._loop is not None or self._closing is not None
        if in_use and left.is_running() and not is_of_parent:
            raise CacheError(
                "other-loop",
                "the cache is open on another event loop, which still runs:"
                " make a Cache for each loop, or use cachesvc_client.sync",
            )
        self._transport.check_movable()
        session, errands = self._transport.abandon()
        runners = [self._feeding.abandon(), self._resending.abandon()]
        if is_of_parent:
            if session is not None and isinstance(session.connector, CleanConnector):
                session.connector.disown()
            _of_parents.append((left, session, errands, runners, self._keeper, self._tasks.all()))
            self._resending.unsent.clear()  # the parent sends it
        elif left.is_closed():
            if session is not None:
                _end(asyncio.get_running_loop(), session, [])
        elif in_use:
            left.call_soon_threadsafe(_end, left, session, runners)  # should that loop run again
        self._loop = self._keeper = self._closing = None
        self._blocks, self._stays = 0, False
        self._tasks.begin()
        self._loads.begin()
        for part in tuple(self._movable):
            part.begin()

    async def _until_the_end_of(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            if self._loop is loop:
                self._keeper = None
                await self.close()

    async def close(self) -> None:
        """Ends the loads, waits for the requests under way, and closes the connections.

        From its beginning on, calls raise `CacheError`. A client that is open on another loop is
        left alone.
        """
        if self._loop is not asyncio.get_running_loop():
            return
        keeper, self._keeper = self._keeper, None
        self._loop = None
        if keeper is not None:
            await keeper.aclose()  # it does not wait: the client is not open any more
        self._blocks, self._stays = 0, False
        closing = self._closing = asyncio.Event()
        self._tasks.cancel_loads()
        try:
            await self._feeding.stop()
            await self._resending.stop()
            await self._tasks.ended()
        finally:
            try:
                if self._closing is closing:  # no other loop has taken the client over meanwhile
                    await self._transport.close()
            finally:
                self._closing = None if self._closing is closing else self._closing
                closing.set()


def _end(loop: asyncio.AbstractEventLoop, session: Any, runners: list[asyncio.Task[None] | None]) -> None:
    """Ends, on `loop`, what a client has left behind."""
    for runner in runners:
        if runner is not None:
            runner.cancel()
    if session is not None:
        ending = loop.create_task(session.close(), name="cache end")
        _endings.add(ending)
        ending.add_done_callback(_endings.discard)
