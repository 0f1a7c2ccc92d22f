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
        self._loop: asyncio.AbstractEventLoop | None = None
        """The loop of the client, while it is open."""
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.start_if_used()

    def start_if_used(self) -> None:
        """Starts the task, from any thread: namespaces are often made where no loop runs."""
        loop = self._loop
        if loop is None or not self._near.is_used or self._task is not None:
            return
        if asyncio._get_running_loop() is loop:
            self._start()
        elif not loop.is_closed():
            loop.call_soon_threadsafe(self._start)

    def _start(self) -> None:
        session = self._transport.session
        if self._loop is not None and self._task is None and session is not None:
            self._task = self._loop.create_task(
                follow(self.feed, session, self._transport.bearer), name="cache feed"
            )

    def begin_anew(self) -> None:
        """Follows the feed anew, over the session of now; near caches forget what they held."""
        loop = self._loop
        task = self.abandon()
        self.feed.forget()
        if loop is not None and not loop.is_closed():
            if task is not None:
                loop.call_soon_threadsafe(task.cancel)
            self._loop = loop
            self.start_if_used()

    async def stop(self) -> None:
        """Returns when the task has ended. It is not started again before the next `open`."""
        self._loop = None
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def abandon(self) -> asyncio.Task[None] | None:
        """Returns the task of a loop that is left, and has near caches bypassed."""
        self._loop = None
        task, self._task = self._task, None
        self.feed.closed()
        return task
