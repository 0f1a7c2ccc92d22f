"""When this instance has more to do than it can: refuse at the door what would only wait.

Four times a second: how long do requests stay that need more than a look into L1? By Little's law that is how many are in
progress over how many are done in a second, so nothing is measured at any request. If they stay longer than `server.max_delay`
and the process has no time left, they wait for it and not for an origin: for one window a burst (a herd that joins one load),
for `PATIENCE` of them overload. Then only so many are let in as are done within `max_delay`, found anew in each window by the
same law; all others are answered 503 with `Retry-After`, which costs a small part of serving them. When nobody has been refused
for a second, it is over. So nobody is refused because an origin is slow, or while the core has room.

Tried and rejected. How late timers are, or how long a turn of the loop takes: with 700 requests in progress, and callers gone
before they were answered, turns took 15 ms, because the queue stands in the batches to the tiers; nobody was refused. To let in a
tenth more in each window: from what is left after a first wrong guess that takes many seconds. To measure requests from first
byte to answer: fast ones hide slow ones, or a slow origin looks like overload.

After "controlled delay" (Nichols & Jacobson, ACM Queue 2012; Maurer, "Fail at Scale", ACM Queue 2015), with a bound on what is in
progress in place of one on waiting, since this queue stands in many places and cannot be cut. A plain bound stands behind it.
"""

import asyncio
from collections.abc import Callable

from cachesvc.config.service import Server
from cachesvc.model.errors import RequestError
from cachesvc.model.problems import ProblemKind

WINDOW_SECONDS = 0.25
PATIENCE = 2
"""So many windows on end with a long stay are overload."""
BUSY_SHARE = 0.85
"""Of the time in which the loop's thread ran or was ready to: from here on who waits, waits for this process. What it waits for a
core counts, or an instance that others leave half a core would never be overloaded."""
CALM_SECONDS = 1.0
"""Nobody refused for so long, and it is over."""
LEAST = 32
"""Let in at once whatever happens: so few are no overload, and they keep the process busy while it finds out what fits."""


class Overload:
    """`start` and `stop` once each, on the loop that serves; in between, `with overload:` around what may be refused."""

    def __init__(self, limits: Server, core_time: Callable[[], float]) -> None:
        """`core_time`: seconds that the loop's thread has used a core or waited for one."""
        self._most = limits.max_in_progress
        self._max_delay = limits.max_delay.seconds
        self._core_time = core_time
        self._timer: asyncio.TimerHandle | None = None
        self._long_windows = 0
        self._calm_seconds = 0.0
        self._done = 0
        """Of this window: requests that left, and those refused."""
        self._refused = 0
        self._bound = self._most
        self.is_shedding = False
        self.in_progress = 0
        """Requests within now."""
        self.shed = 0

    def __repr__(self) -> str:
        shedding = f", shedding above {self._bound}" if self.is_shedding else ""
        return f"<Overload [{self.in_progress} in progress, {self.shed} shed{shedding}]>"

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(WINDOW_SECONDS, self._end_window, loop.time(), self._core_time())

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def __enter__(self) -> None:
        """A request that has to wait for something. Raises `RequestError`: 503 `overloaded`."""
        if self.in_progress >= self._bound:
            self.shed += 1
            self._refused += 1
            why = "this instance has more to do than it can do in time; the request was not begun"
            raise RequestError(ProblemKind.OVERLOADED, why)
        self.in_progress += 1

    def __exit__(self, *_: object) -> None:
        self.in_progress -= 1
        self._done += 1

    def _end_window(self, began: float, core_before: float) -> None:
        seconds = asyncio.get_running_loop().time() - began
        is_busy = self._core_time() - core_before >= BUSY_SHARE * seconds
        in_time = int(self._done / seconds * self._max_delay)
        """As many as are done within `max_delay`."""
        self._decide(in_time, seconds, is_long=is_busy and self.in_progress > in_time)
        self._done = self._refused = 0
        self.start()

    def _decide(self, in_time: int, seconds: float, *, is_long: bool) -> None:
        self._long_windows = self._long_windows + 1 if is_long else 0
        if self.is_shedding:
            self._adjust(in_time, seconds, is_long)
        elif self._long_windows >= PATIENCE:
            self.is_shedding, self._calm_seconds = True, 0.0
            self._bound = min(self._most, max(LEAST, in_time))

    def _adjust(self, in_time: int, seconds: float, is_long: bool) -> None:
        self._calm_seconds = 0.0 if self._refused else self._calm_seconds + seconds
        if is_long or self._refused:
            # Half to twice as many as before, since one window is a small sample. If nobody was refused there was room for all:
            # then few were done because few came.
            self._bound = min(self._most, max(LEAST, self._bound // 2, min(in_time, 2 * self._bound)))
        elif self._calm_seconds >= CALM_SECONDS:
            self.is_shedding, self._bound = False, self._most
