"""`OwnTime`: a stopwatch that does not count what a busy machine takes away from the event loop."""

import asyncio
from types import TracebackType

TICK_SECONDS = 0.01


class OwnTime:
    """Measures a block: `async with OwnTime() as took: …; took.seconds`.

    A turn of the loop counts for at most twice the time that it should have taken. So a time limit
    that the code under test keeps is seen to be kept on a machine that runs ten other programs.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._ticking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "OwnTime":
        self._ticking = asyncio.create_task(self._tick())
        return self

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await asyncio.sleep(TICK_SECONDS)
            self.seconds += min(loop.time() - began, 2 * TICK_SECONDS)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._ticking is not None
        self._ticking.cancel()
