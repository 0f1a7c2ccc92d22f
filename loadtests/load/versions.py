"""Remembers the writers' changes, to find reads that were answered too stale."""

from collections.abc import Callable
from typing import NamedTuple


class _Written(NamedTuple):
    at: float
    version: int


class Versions:
    """The newest versions that were written to the origin and then invalidated, by key.

    Only the writers of this process are known. Other processes write newer versions, too: a reader
    may meet them, and no read is judged by their changes.
    """

    def __init__(self, *, max_lag: float, longest_read: float, clock: Callable[[], float]) -> None:
        """`max_lag` and `longest_read` are in seconds.

        When an invalidation is answered, every instance obeys it after `max_lag`. No read takes longer
        than `longest_read`, so changes that concern no running read can be forgotten.
        """
        self._max_lag = max_lag
        self._memory = max_lag + longest_read
        self._clock = clock
        self._written: dict[str, list[_Written]] = {}

    def written(self, key: str, version: int) -> None:
        """Notes that the origin has this version and that the invalidation was accepted by now."""
        now = self._clock()
        kept = self._written.get(key, [])
        old = [write for write in kept if write.at <= now - self._memory]
        recent = [write for write in kept if write.at > now - self._memory]
        self._written[key] = [*_newest(old), *recent, _Written(now, version)]

    def is_too_stale(self, key: str, version: int, asked_at: float) -> bool:
        """True if a read that began at `asked_at` should have been given a newer version."""
        return any(
            version < write.version and write.at + self._max_lag < asked_at
            for write in self._written.get(key, ())
        )


def _newest(writes: list[_Written]) -> list[_Written]:
    """The newest of these writes, if there are any.

    Two writers of a key may finish in another order than that of their versions.
    """
    return [max(writes, key=lambda write: write.version)] if writes else []
