"""Decides whether a request is retried, and after which pause.

Only requests that may be repeated come here, and only with failures that may pass. Pauses are drawn
from the whole range ("full jitter"), so that clients that failed together do not come again
together. A `Retry-After` of the service is waited for first, if there is time for it; if there is
not, the caller is told at once rather than at its deadline.

The budget is that of one client: its retries are a share of its requests. Without it, a thousand
clients that each retry modestly would still double the load on a service that is down because of
its load.
"""

import math
import random
from numbers import Real

from msgspec import Struct

from cachesvc_client.errors import CacheError


class Retries(Struct, frozen=True):
    """How often, and how soon, a client retries."""

    most: int = 2
    """The retries of one request at most; 0: none."""
    first_pause: float = 0.02
    """The upper end of the first pause in seconds, doubled for each further one.

    The default is about the time in which a short queue drains.
    """
    longest_pause: float = 0.5
    """The upper end of any pause, in seconds."""
    share: float = 0.1
    """Retries per request in the long run. At 0.1 an outage makes the load a tenth larger."""
    reserve: int = 10
    """The retries that may be saved up, so that a quiet client can retry as well."""

    def __post_init__(self) -> None:
        for field in self.__struct_fields__:
            value = getattr(self, field)
            if not isinstance(value, Real) or not 0 <= float(value) < math.inf:
                raise ValueError(f"retries: {field} is a number from 0 up, not {value!r}")


class RetryBudget:
    """Requests earn retries, and retries spend them.

    Counted without a lock: threads that race may miscount by one.
    """

    def __init__(self, retries: Retries) -> None:
        self._share = retries.share
        self._reserve = float(retries.reserve)
        self._left = self._reserve

    def earn(self) -> None:
        self._left = min(self._reserve, self._left + self._share)

    def spend(self) -> bool:
        """True if there was a retry left to spend."""
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Backoff:
    """The retries of one client."""

    def __init__(self, retries: Retries, rng: random.Random) -> None:
        self._retries = retries
        self._rng = rng
        self._budget = RetryBudget(retries)
        self.granted = 0

    def begin(self) -> None:
        """Notes that a request is sent for the first time."""
        self._budget.earn()

    def pause(self, error: CacheError, retry: int, time_left: float) -> float | None:
        """The seconds to wait before retry number `retry` (from 0). None: give up."""
        if not error.retryable or retry >= self._retries.most:
            return None
        range_ = min(self._retries.longest_pause, self._retries.first_pause * 2.0**retry)
        pause = (error.retry_after or 0.0) + self._rng.random() * range_
        if pause >= time_left or not self._budget.spend():
            return None
        self.granted += 1
        return pause
