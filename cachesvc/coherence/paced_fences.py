"""Paced fences: a big purge that does not send all its keys to the origin at once.

A paced fence (`Fence.over`) makes the entries of its target stale one after the other: an entry
whose key's digest stands at a share s of the 64-bit range becomes stale at `at + s * over`. Digests
are uniform, so the entries of a target spread evenly over the window, and every instance, every
near cache and every tier picks the same moment for the same key.

Paced fences are few and are kept exactly, by target, until no copy that they concern can be left in
any tier: home cells do not know them, so copies that a home vouched for are judged by them here as
well.
"""

from collections.abc import Iterable

MOST = 100_000
"""Targets remembered.

Beyond that number the oldest target is given up: `Fences` then treats every copy up to its `at` as
stale.
"""


def due_at(at: int, over: int, key_digest: int) -> int:
    """The moment at which a window makes the entries of this key stale, µs."""
    return at + (key_digest * over >> 64)


class PacedFences:
    """Windows `(at, over)` µs by the digest of their target. Not thread-safe."""

    def __init__(self, kept_us: int) -> None:
        """`kept_us`: the longest life of a copy in any tier, counted from the end of a window."""
        self._kept_us = kept_us
        self._windows: dict[
            int, tuple[tuple[int, int], ...]
        ] = {}  # in the order in which targets were first fenced

    def __len__(self) -> int:
        return len(self._windows)

    def __repr__(self) -> str:
        return f"<PacedFences [{len(self._windows)} targets]>"

    def merge(self, digest: int, at: int, over: int, now_us: int) -> int:
        """Honours a window from now on.

        Windows of one target add up: a later one does not make fresh again what an earlier one made
        stale. Returns the newest `at` of a target that had to be given up for want of room; 0
        otherwise.
        """
        known = self._windows.get(digest, ())
        if (at, over) not in known:
            self._windows[digest] = (*(w for w in known if not self._is_over(w, now_us)), (at, over))
        return self._give_up() if len(self._windows) > MOST else 0

    def _give_up(self) -> int:
        return max(at for at, _ in self._windows.pop(next(iter(self._windows))))

    def is_due(self, as_of: int, key_digest: int, targets: Iterable[int], now_us: int) -> bool:
        """True if a window of one of `targets` has made this entry stale.

        That is: the window is not earlier than the entry, and the moment of the key in it has come.
        """
        windows = self._windows
        return any(
            as_of <= at and now_us >= due_at(at, over, key_digest)
            for target in targets
            if target in windows
            for at, over in windows[target]
        )

    def windows_of(self, target: int) -> tuple[tuple[int, int], ...]:
        """The windows of a target, `(at, over)` each, µs."""
        return self._windows.get(target, ())

    def drop_outlived(self, now_us: int) -> None:
        """Forgets targets whose windows concern no copy any more.

        Looks at the oldest target only: cheap enough for every merge.
        """
        while self._windows:
            oldest = next(iter(self._windows))
            if not all(self._is_over(window, now_us) for window in self._windows[oldest]):
                return
            del self._windows[oldest]

    def _is_over(self, window: tuple[int, int], now_us: int) -> bool:
        at, over = window
        return at + over + self._kept_us < now_us
