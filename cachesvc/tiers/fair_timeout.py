"""A time limit on a server that does not blame the server for a stall of this process.

When the event loop was busy past a deadline, the loop's next turn runs timers before it looks at
sockets: an answer that arrived long ago would count as missing. So a deadline that is noticed late
is set once more, a bounded number of times.
"""

import asyncio
from types import TracebackType

STALLED_SECONDS = 0.01
"""A timer that runs at least this late shows that the loop was busy, not the server."""
AGAIN = 3
"""How often a deadline that was noticed late is set once more."""


class FairTimeout:
    """A block with a time limit: `async with FairTimeout(seconds)`, for one use.

    Raises `TimeoutError` out of the block, as `asyncio.timeout` does.
    """

    __slots__ = ("_again", "_due", "_handle", "_loop", "_seconds", "_timeout")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._again = AGAIN
        self._timeout = asyncio.timeout(None)
        self._loop = asyncio.get_running_loop()
        self._due = 0.0
        self._handle: asyncio.TimerHandle | None = None

    @property
    def due(self) -> float:
        """The deadline as it stands now, on the loop's clock. It only ever moves to later."""
        return self._due

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._set()

    def extend(self, seconds: float) -> None:
        """Moves the deadline of the running block: one more round trip turned out to be needed."""
        if self._handle is not None and not self._handle.cancelled():
            self._handle.cancel()
            self._due += seconds
            self._handle = self._loop.call_at(self._due, self._run_out)

    def _set(self) -> None:
        self._due = self._loop.time() + self._seconds
        self._handle = self._loop.call_at(self._due, self._run_out)

    def _run_out(self) -> None:
        now = self._loop.time()
        if self._again and now - self._due > STALLED_SECONDS:
            self._again -= 1
            self._set()
        else:
            self._timeout.reschedule(now)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is not None:
            self._handle.cancel()
        await self._timeout.__aexit__(kind, error, trace)
