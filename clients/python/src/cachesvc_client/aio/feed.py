"""Decides when a client follows the feed of fences.

It does while it is open, from its first namespace with a near cache on.
"""

import asyncio

from cachesvc_client.aio.feed_task import follow
from cachesvc_client.aio.transport import Transport
from cachesvc_client.near.feed import NearFeed
from cachesvc_client.near.near import Near


class Feeding:
    """One client's follower of the feed: a task on its event loop."""

    def __init__(self, near: Near, feed: NearFeed, transport: Transport) -> None:
        self.feed = feed
        self._near = near
        self._transport = transport
        self._is_open = False
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        self._is_open = True
        self.start_if_used()

    def start_if_used(self) -> None:
        session = self._transport.session
        if self._is_open and self._near.is_used and self._task is None and session is not None:
            self._task = asyncio.create_task(follow(self.feed, session), name="cache feed")

    async def stop(self) -> None:
        """Returns when the task has ended. It is not started again before the next `open`."""
        self._is_open = False
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
