"""What the writers of this process have changed, and since when no reader may be given what was there before."""

from collections.abc import Callable
from typing import NamedTuple


class _Written(NamedTuple):
    at: float
    version: int


class Versions:
    """The newest versions that were written to the origin and then invalidated, by key.

    Of a process's own writers only: a reader may meet newer versions of others, and is too late for none of theirs.
    """

    def __init__(self, *, max_lag: float, longest_read: float, clock: Callable[[], float]) -> None:
        """`max_lag`: after an invalidation is answered, seconds until every instance obeys it. `longest_read`: no read takes
        longer, so that what concerns none any more can be forgotten.
        """
        self._max_lag = max_lag
        self._memory = max_lag + longest_read
        self._clock = clock
        self._written: dict[str, list[_Written]] = {}

    def written(self, key: str, version: int) -> None:
        """The origin has this version, and the invalidation of the key was accepted by now."""
        now = self._clock()
        kept = self._written.get(key, [])
        old = [write for write in kept if write.at <= now - self._memory]
        recent = [write for write in kept if write.at > now - self._memory]
        self._written[key] = [*_newest(old), *recent, _Written(now, version)]

    def is_too_stale(self, key: str, version: int, asked_at: float) -> bool:
        """Whether a read that began at `asked_at` had to be given a newer version than this one."""
        return any(
            version < write.version and write.at + self._max_lag < asked_at
            for write in self._written.get(key, ())
        )


def _newest(writes: list[_Written]) -> list[_Written]:
    """At most one: two writers of a key may finish in another order than their versions have."""
    return [max(writes, key=lambda write: write.version)] if writes else []
