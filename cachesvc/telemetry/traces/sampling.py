"""Which requests are traced. Decided before any span is built, so that a request that is not costs next to nothing.

The caller decides if it sent a `traceparent` (parent-based). Else it is chance: instead of drawing for each request, this draws
how many are passed over until the next one is taken (a geometric distribution), and counts down.

The tail rule looks back: a request that failed, or was slow, is worth a span although nobody took it. What makes many requests
fail makes all of them fail, so only so many are kept in a second.
"""

import math
import random

KEPT_PER_SECOND = 100
"""By the tail rule. Under overload each refused request would be a span, when there is least time for it."""

_NEVER = 1 << 62
_FLAGS_AT = 54
"""Of a `traceparent`, the digit with the sampled flag."""
_SAMPLED = b"13579bdf"


class Sampling:
    def __init__(self, ratio: float, slow_seconds: float, rng: random.Random) -> None:
        self.slow_seconds = slow_seconds
        self._ratio = ratio
        self._rng = rng
        self._passed_over = self._next()
        """Requests until the next one that is taken."""
        self._second = 0
        self._kept = 0

    def __repr__(self) -> str:
        return f"<Sampling [{self._ratio:g}; kept if failed or above {self.slow_seconds:g} s]>"

    def takes(self, traceparent: bytes) -> bool:
        """Whether a request with this header (empty: without) is traced. Looks at its flag only: what is malformed is found out
        when a span is built."""
        if len(traceparent) > _FLAGS_AT:
            return traceparent[_FLAGS_AT] in _SAMPLED
        if self._passed_over:
            self._passed_over -= 1
            return False
        self._passed_over = self._next()
        return True

    def keeps(self, now_seconds: float) -> bool:
        """Whether a request that nobody took and that failed or was slow becomes a span."""
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
