"""The tasks of one client, which closing it cancels or waits for."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class Tasks:
    def __init__(self) -> None:
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

    async def ended(self) -> None:
        """Cancels the loads, and waits for all tasks, with those of this tick's orders."""
        self.cancel_loads()
        if self.loads:
            await asyncio.wait(self.loads)
        await asyncio.sleep(0)  # orders of this tick become a batch
        while self.requests:
            await asyncio.wait(self.requests)
