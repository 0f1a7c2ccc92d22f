"""Decides which requests are traced.

The decision is made before a span is built, so a request that is not traced costs next to
nothing.

If the caller sent a `traceparent`, its flag decides (parent-based sampling). Otherwise chance
decides: instead of drawing a number for each request, this draws how many requests are passed
over until the next one is traced (a geometric distribution), and counts down.

The tail rule looks back: a request that failed or was slow becomes a span although it was not
chosen. A cause that makes one request fail often makes all of them fail, so only a bounded number
of them is kept per second.
"""

import math
import random

KEPT_PER_SECOND = 100
"""The most requests per second that the tail rule keeps.

Under overload every refused request would otherwise become a span, when there is least time for
it.
"""

_NEVER = 1 << 62
_FLAGS_AT = 54
"""The place of the digit with the sampled flag in a `traceparent`."""
_SAMPLED = b"13579bdf"


class Sampling:
    """The sampling decisions of one instance. Used on the event loop only."""

    def __init__(self, ratio: float, slow_seconds: float, rng: random.Random) -> None:
        self.slow_seconds = slow_seconds
        self._ratio = ratio
        self._rng = rng
        self._passed_over = self._next()
        """Requests that are passed over until the next one is traced."""
        self._second = 0
        self._kept = 0

    def __repr__(self) -> str:
        return f"<Sampling [{self._ratio:g}; kept if failed or above {self.slow_seconds:g} s]>"

    def takes(self, traceparent: bytes) -> bool:
        """True if a request with this header (empty: without one) is traced.

        Only the flag is looked at: a malformed header is found out when a span is built.
        """
        if len(traceparent) > _FLAGS_AT:
            return traceparent[_FLAGS_AT] in _SAMPLED
        if self._passed_over:
            self._passed_over -= 1
            return False
        self._passed_over = self._next()
        return True

    def keeps(self, now_seconds: float) -> bool:
        """True if a request that was not chosen, and that failed or was slow, becomes a span."""
        second = int(now_seconds)
        if second != self._second:
            self._second, self._kept = second, 0
        self._kept += 1
        return self._kept <= KEPT_PER_SECOND

    def _next(self) -> int:
        if self._ratio >= 1:
            return 0
        if self._ratio <= 0:
            return _NEVER
        return int(math.log(1 - self._rng.random()) / math.log1p(-self._ratio))
