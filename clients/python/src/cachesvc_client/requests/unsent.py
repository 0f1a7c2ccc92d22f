"""Invalidations of committed transactions that could not be sent, kept to be sent again.

Until one of them is sent, readers may get what was true before the change. They are in the memory
of one process: a change that must not be lost is written to an outbox (docs/sdk.md) as well.
"""

import logging
import random
from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Struct

from cachesvc_client.errors import CacheError
from cachesvc_client.protocol.wire import Invalidation

log = logging.getLogger(__name__)

KEPT_SECONDS = 3600.0
"""Seconds after which an invalidation is given up, which is logged."""
MOST_KEPT = 10_000
"""The most invalidations that are kept; further ones are not sent again, which is told."""
FIRST_PAUSE = 0.5
"""Seconds before the first try, doubled with each failure in a row."""
LONGEST_PAUSE = 30.0


class Kept(Struct, eq=False, frozen=True):
    """One invalidation that is to be sent again."""

    asked: Invalidation
    send: Callable[[Invalidation], Any]
    """Sends the invalidation; in the async flavour, what it returns is awaited."""
    gives_up_at: float


class Unsent:
    """The invalidations that one client is to send again. Its methods need no lock."""

    def __init__(self, clock: Callable[[], float], rng: random.Random) -> None:
        """`clock` returns monotonic seconds."""
        self._clock = clock
        self._rng = rng
        self._kept: dict[int, Kept] = {}
        self._failures = 0

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, asked: Invalidation, send: Callable[[Invalidation], Any]) -> Kept | None:
        """Keeps an invalidation; None if there is no room for it."""
        if len(self._kept) >= MOST_KEPT:
            return None
        kept = Kept(asked, send, self._clock() + KEPT_SECONDS)
        self._kept[id(kept)] = kept
        return kept

    def withdraw(self, kept: Iterable[Kept]) -> None:
        for one in kept:
            self._kept.pop(id(one), None)

    def all(self) -> list[Kept]:
        """Returns what is kept, the oldest first."""
        return list(self._kept.values())

    def clear(self) -> None:
        self._kept = {}

    def pause(self) -> float:
        """Returns the seconds until the next try, a random share of a range that doubles."""
        return min(FIRST_PAUSE * 2.0 ** min(self._failures, 16), LONGEST_PAUSE) * self._rng.uniform(0.5, 1.0)

    def sent(self, kept: Kept) -> None:
        self.withdraw([kept])
        if self._failures and not self._kept:
            log.warning("all invalidations that could not be sent have been sent")
        self._failures = 0 if not self._kept else self._failures

    def failed(self, kept: Kept, error: Exception) -> bool:
        """Notes a failure. True if the next ones are worth a try now: the cache can be reached."""
        self._failures += 1
        if not may_pass(error):
            log.error("an invalidation of %r is refused: %s", kept.asked.namespace, error)
        elif self._clock() >= kept.gives_up_at:
            log.error("an invalidation of %r is given up: %s", kept.asked.namespace, error)
        else:
            return False
        self.withdraw([kept])
        return True

    def left(self) -> None:
        """Logs what is not sent when the client closes."""
        if self._kept:
            log.error("the cache closes, and %d invalidations could not be sent", len(self._kept))


def may_pass(error: Exception) -> bool:
    """True if the same invalidation may succeed later."""
    return isinstance(error, CacheError) and (error.is_outage or error.retryable)
