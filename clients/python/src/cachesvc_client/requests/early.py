"""Which values are loaded anew before they expire, one load per key and so many at a time.

The service draws the moment for each read of a fresh value (XFetch, from what the last load took)
and says so in its answer (`Got.early`). The client then asks for the lease over the value. Another
process that loads has the lease, and draws go on until its fill: so a key whose lease was not
granted, or whose load failed, is left alone for a moment.
"""

import math
from collections.abc import Callable

MOST = 64
"""The most keys that load early or are left alone at the same time."""
PAUSE_SECONDS = 1.0
"""How long a key is left alone after an early load that failed, or was not granted."""


class EarlyLoads:
    """The early loads of one namespace object. Not thread-safe."""

    def __init__(self, now: Callable[[], float]) -> None:
        """`now`: a monotonic clock, in seconds."""
        self._now = now
        self._until: dict[str, float] = {}
        """Key → the time until which it is left alone; infinite while it is being loaded."""

    def begin(self, key: str) -> bool:
        """True if the caller is to load the key early; the caller then calls `end`."""
        if self._until:
            now = self._now()
            self._until = {one: until for one, until in self._until.items() if until > now}
        if key in self._until or len(self._until) >= MOST:
            return False
        self._until[key] = math.inf
        return True

    def end(self, key: str, *, is_filled: bool) -> None:
        """Ends the early load of a key; `is_filled`: it brought a value."""
        if is_filled:
            self._until.pop(key, None)
        else:
            self._until[key] = self._now() + PAUSE_SECONDS
