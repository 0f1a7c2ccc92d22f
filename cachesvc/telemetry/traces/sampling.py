"""Decides which requests are traced, before any span is built.

So a request that is not traced costs next to nothing. The caller decides if it sent a `traceparent`
(parent-based). Else it is chance: instead of drawing for each request, this draws how many requests
are passed over until the next one is taken (a geometric distribution), and counts down.

The tail rule looks back: a request that failed, or was slow, becomes a span although it was not
taken. A cause that makes many requests fail makes all of them fail, so only so many are kept per
second.
"""

import math
import random

KEPT_PER_SECOND = 100
"""Requests kept by the tail rule per second at most. Under overload each refused request
would be a span, at the time when there is least time for it."""

_NEVER = 1 << 62
_FLAGS_AT = 54
"""Index, in a `traceparent`, of the digit with the sampled flag."""
_SAMPLED = b"13579bdf"


class Sampling:
    """Decides for each request of an instance whether it is traced."""

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
        """True if a request with this `traceparent` header (empty: without) is traced.

        Only the flag is read; a malformed header is noticed when a span is built.
        """
        if len(traceparent) > _FLAGS_AT:
            return traceparent[_FLAGS_AT] in _SAMPLED
        if self._passed_over:
            self._passed_over -= 1
            return False
        self._passed_over = self._next()
        return True

    def keeps(self, now_seconds: float) -> bool:
        """True if a request that was not taken, and failed or was slow, becomes a span."""
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
