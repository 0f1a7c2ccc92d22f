"""Sends again what transactions could not send, on a task, until nothing is left."""

import asyncio

from cachesvc_client.requests.unsent import Unsent


class Resending:
    """The task of one client. What is kept outlives the client's event loop."""

    def __init__(self, unsent: Unsent) -> None:
        self.unsent = unsent
        self._task: asyncio.Task[None] | None = None

    def start_if_any(self) -> None:
        if self.unsent and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="cache resending")

    async def _run(self) -> None:
        while self.unsent:
            await asyncio.sleep(self.unsent.pause())
            await self._try_all()
        self._task = None

    async def _try_all(self) -> None:
        """Sends one after the other, until one fails: then the others would fail as well."""
        for kept in self.unsent.all():
            try:
                await kept.send(kept.asked)
            except Exception as error:  # noqa: BLE001  or nothing would be sent again any more
                if not self.unsent.failed(kept, error):
                    return
            else:
                self.unsent.sent(kept)

    async def stop(self) -> None:
        """Tries once more. What is then left is logged, and sent when the client opens again."""
        task = self.abandon()
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        await self._try_all()
        self.unsent.left()

    def abandon(self) -> asyncio.Task[None] | None:
        """Returns the task of a loop that is left."""
        task, self._task = self._task, None
        return task
