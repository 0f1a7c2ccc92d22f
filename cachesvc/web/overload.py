"""When this instance has more to do than it can: refuse at the door what would only wait.

A process that is saturated is late: a timer set for now runs when everything before it is done. So the loop's lateness is the
length of the queue that every request stands in. Late for a moment is a burst (a herd that joins one load) and passes; late for
a whole second is overload. Then requests that need more than a look into L1 are answered 503 with `Retry-After`, which costs as
little as an L1 hit, until the loop is on time again. After "controlled delay" (Nichols & Jacobson, ACM Queue 2012) as Maurer
applied it to servers ("Fail at Scale", ACM Queue 2015). A plain bound on requests in progress stands behind it.
"""

import asyncio

from cachesvc.config import Server
from cachesvc.errors import RequestError

TICK_SECONDS = 0.05
PATIENCE_SECONDS = 1.0
"""Late for this long without a break is overload."""


class Overload:
    """`start` and `stop` once each, on the loop that serves; in between, `with overload:` around what may be refused."""

    def __init__(self, limits: Server) -> None:
        self._most = limits.max_in_progress
        self._max_delay = limits.max_delay.seconds
        self._timer: asyncio.TimerHandle | None = None
        self._late_since: float | None = None
        self.is_shedding = False
        self.in_progress = 0
        """Requests within now."""
        self.shed = 0

    def __repr__(self) -> str:
        return f"<Overload [{self.in_progress} in progress, {self.shed} shed{', shedding' if self.is_shedding else ''}]>"

    def start(self) -> None:
        self._expect()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def __enter__(self) -> None:
        """A request that has to wait for something. Raises `RequestError`: 503 `overloaded`."""
        if self.is_shedding or self.in_progress >= self._most:
            self.shed += 1
            why = "this instance has more to do than it can do in time; the request was not begun"
            raise RequestError(503, "overloaded", why, retryable=True, retry_after=1)
        self.in_progress += 1

    def __exit__(self, *_: object) -> None:
        self.in_progress -= 1

    def _expect(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + TICK_SECONDS
        self._timer = loop.call_at(due, self._tick, due)

    def _tick(self, due: float) -> None:
        now = asyncio.get_running_loop().time()
        if now - due < self._max_delay:
            self._late_since = None
            self.is_shedding = False
        elif self._late_since is None:
            self._late_since = now
        elif now - self._late_since >= PATIENCE_SECONDS:
            self.is_shedding = True
        self._expect()
