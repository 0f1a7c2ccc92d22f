"""A time limit on a server that does not blame the server for a stall of this process.

When the event loop was busy past a deadline, the loop's next turn runs timers before it looks at
sockets: an answer that arrived long ago would count as missing. So a deadline that is noticed late
is set once more, a bounded number of times.

Nor does a value's size blame the server: an answer of many bytes has the time that these bytes take
at an honest pace, on top. A deadline that is over is looked at again, and moved by what has come by
then. So a server that says nothing, or a byte now and then, has no more time than before.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType

STALLED_SECONDS = 0.01
"""A timer that runs at least this late shows that the loop was busy, not the server."""
AGAIN = 3
"""How often a deadline that was noticed late is set once more."""


HONEST_BYTES_PER_SECOND = 8 << 20
"""The least pace of a server that is good enough for a cache: a tenth of 1 Gbit/s."""
MOST_HONEST_BYTES = 64 << 20
"""No exchange has time for more bytes than the largest answer has."""


def seconds_for(size: int) -> float:
    """Returns the time that so many bytes may take, in seconds."""
    return min(size, MOST_HONEST_BYTES) / HONEST_BYTES_PER_SECOND


def _nothing() -> int:
    return 0


class FairTimeout:
    """A block with a time limit: `async with FairTimeout(seconds)`, for one use.

    Raises `TimeoutError` out of the block, as `asyncio.timeout` does.
    """

    __slots__ = ("_again", "_bytes_come", "_due", "_earned", "_handle", "_loop", "_seconds", "_timeout")

    def __init__(self, seconds: float, bytes_come: Callable[[], int] = _nothing) -> None:
        """`bytes_come` returns the bytes of the answer that have come since the block began."""
        self._seconds = seconds
        self._bytes_come = bytes_come
        self._earned = 0.0
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
        if (earned := seconds_for(self._bytes_come())) > self._earned:
            self._due += earned - self._earned
            self._earned = earned
            if self._due > now:
                self._handle = self._loop.call_at(self._due, self._run_out)
                return
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
