"""The releases of leases: they share requests with fills, and no caller waits for one."""

import asyncio
import contextlib
from collections.abc import Awaitable

from cachesvc_client.aio.intake import Intake
from cachesvc_client.aio.tasks import Tasks
from cachesvc_client.errors import CacheError
from cachesvc_client.protocol.wire import Put, PutItem


class Releases:
    """The releases of one client, over all namespaces. Closing waits for them."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks.requests

    def send(self, item: PutItem, puts: Intake[PutItem, Put], timeout: float) -> None:
        """Has the release sent in `timeout` seconds. Never waits and never raises."""
        with contextlib.suppress(CacheError):  # too many items wait in this client
            order = puts.join(item, timeout)
            if not isinstance(order, asyncio.Future):
                task = asyncio.create_task(_ended(order), name="cache release")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)


async def _ended(order: Awaitable[object]) -> None:
    await order
