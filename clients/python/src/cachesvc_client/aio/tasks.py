"""The tasks of one client, which closing it cancels or waits for."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger(__name__)

LONGEST_END = 10.0
"""Seconds for which closing waits for loaders that go on after they were cancelled."""


class Tasks:
    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begins anew, on another loop. What runs on the loop that was left is not known here."""
        self.requests: set[asyncio.Task[None]] = set()
        """Requests under way, and the keys that wait in a slow lane. Closing waits for them."""
        self.loads: set[asyncio.Task[Any]] = set()
        """Running loads. Closing cancels them, and their callers get a `CacheError`."""

    def __str__(self) -> str:
        return f"{len(self.requests)} requests, {len(self.loads)} loads"

    async def finished(self, call: Coroutine[Any, Any, None], name: str) -> None:
        """Runs the call to its end, even if the caller is cancelled; closing waits for it."""
        task = asyncio.create_task(call, name=name)
        self.requests.add(task)
        task.add_done_callback(self.requests.discard)
        await asyncio.shield(task)

    def cancel_loads(self) -> None:
        for load in tuple(self.loads):
            load.cancel()

    def all(self) -> list[asyncio.Task[Any]]:
        return [*self.requests, *self.loads]

    async def ended(self) -> None:
        """Cancels the loads, and waits for all tasks, with those of this tick's orders.

        The end of a request may begin a load. A loader that does not end is logged and left.
        """
        loop = asyncio.get_running_loop()
        gives_up = loop.time() + LONGEST_END
        await asyncio.sleep(0)  # orders of this tick become a batch
        while tasks := self.all():
            self.cancel_loads()
            await asyncio.wait(tasks, timeout=max(0.0, gives_up - loop.time()))
            await asyncio.sleep(0)  # the callers of what has ended go on
            if loop.time() >= gives_up:
                names = ", ".join(sorted(task.get_name() for task in self.all())[:10])
                log.warning("the cache closes, and these have not ended: %s", names)
                return
