"""Background tasks with an owner: each has a name, and its end is reported.

Stopping the owner stops them all.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger(__name__)

STOP_TRIES = 3
STOP_SECONDS = 1.0


class Tasks:
    """Owns the tasks that it spawns. On the event loop only."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def __repr__(self) -> str:
        return f"<Tasks [{len(self._running)} running]>"

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Runs `work` until it ends; an exception is logged once, here, with the task's name."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    async def stop(self) -> None:
        """Cancels the tasks that still run, and waits until they have ended.

        A task that swallowed its cancellation (as `asyncio.wait_for` may on Python 3.11) is
        cancelled again; one that will not end is named in the log and left.
        """
        for _ in range(STOP_TRIES):
            running = [task for task in self._running if not task.done()]
            if not running:
                return
            for task in running:
                task.cancel()
            await asyncio.wait(running, timeout=STOP_SECONDS)
        log.error("not stopped: %s", ", ".join(task.get_name() for task in self._running))

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task %s failed", task.get_name(), exc_info=error)
