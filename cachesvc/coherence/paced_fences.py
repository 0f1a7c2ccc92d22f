"""Paced fences: a big purge that does not send all its keys to the origin at once.

A paced fence (`Fence.over`) makes the entries of its target stale one after the other: an entry
whose key's digest stands at a share s of the 64-bit range becomes stale at `at + s * over`. Digests
are uniform, so the entries of a target spread evenly over the window, and every instance, every
near cache and every tier picks the same moment for the same key.

Paced fences are kept by target, until no copy that they concern can be left in any tier: home cells
do not know them, so copies that a home vouched for are judged by them here as well.

The windows of one target are kept exactly while they are at most `MOST_WINDOWS`. Beyond that number
two neighbours become one that is at least as strict as both (`_merged`), so that a hit looks at a
bounded number of windows however often its tag is purged.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

MOST = 100_000
"""Windows remembered, of all targets together: 40 MB at most.

Beyond that number the oldest targets are given up: `Fences` then treats every copy up to their `at`
as stale.
"""

MOST_WINDOWS = 8
"""Windows of one target.

Under a steady stream of purges, each paced over `w`, an entry then becomes stale at most about
`w / 4` before its own moment.
"""


def due_at(start: int, over: int, key_digest: int) -> int:
    """The moment at which a window makes the entries of this key stale, µs."""
    return start + (key_digest * over >> 64)


class PacedWindow(NamedTuple):
    """A window in which the entries of a target become stale; all times in µs."""

    at: int
    """Entries with `as_of <= at` become stale in this window."""
    start: int
    """When the window begins: `at`, or earlier if it was merged of several."""
    over: int

    @property
    def end(self) -> int:
        return self.start + self.over


class PacedFences:
    """Windows by the digest of their target. Not thread-safe."""

    def __init__(self, kept_us: int) -> None:
        """`kept_us`: the longest life of a copy in any tier, counted from the end of a window."""
        self._kept_us = kept_us
        self._windows: OrderedDict[int, tuple[PacedWindow, ...]] = OrderedDict()
        """In the order in which targets were first fenced; those of a target by their `at`."""
        self._count = 0
        """The windows of all targets."""

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
        window = PacedWindow(at, at, over)
        if window not in known:
            kept = [one for one in known if not self._is_over(one, now_us)]
            self._windows[digest] = bounded = _bounded([*kept, window], now_us)
            self._count += len(bounded) - len(known)
        return self._give_up() if self._count > MOST else 0

    def _give_up(self) -> int:
        newest = 0
        while self._count > MOST:
            newest = max(newest, *(window.at for window in self._drop_oldest()))
        return newest

    def _drop_oldest(self) -> tuple[PacedWindow, ...]:
        _, windows = self._windows.popitem(last=False)
        self._count -= len(windows)
        return windows

    def is_due(self, as_of: int, key_digest: int, targets: Iterable[int], now_us: int) -> bool:
        """True if a window of one of `targets` has made this entry stale.

        That is: the window is not earlier than the entry, and the moment of the key in it has come.
        """
        windows = self._windows
        return any(
            as_of <= at and now_us >= due_at(start, over, key_digest)
            for target in targets
            if target in windows
            for at, start, over in windows[target]
        )

    def windows_of(self, target: int) -> tuple[PacedWindow, ...]:
        """The windows of a target."""
        return self._windows.get(target, ())

    def drop_outlived(self, now_us: int) -> None:
        """Forgets targets whose windows concern no copy any more.

        Looks at the oldest target only: cheap enough for every merge.
        """
        while self._windows:
            oldest = next(iter(self._windows))
            if not all(self._is_over(window, now_us) for window in self._windows[oldest]):
                return
            self._drop_oldest()

    def _is_over(self, window: PacedWindow, now_us: int) -> bool:
        return max(window.at, window.end) + self._kept_us < now_us


def _bounded(windows: Sequence[PacedWindow], now_us: int) -> tuple[PacedWindow, ...]:
    """Returns windows that are together at least as strict as these, and few.

    Windows that have ended count only by their newest `at`, so they become one. Of the others those
    two neighbours become one whose times lie closest together. To merge the oldest two instead would
    let one window swallow all others: its `at` would be a moment old and its end long past, so that
    under a steady stream of purges everything would be stale at once.
    """
    ended = [window for window in windows if window.end <= now_us]
    running = sorted(window for window in windows if window.end > now_us)
    first = [_merged(ended)] if ended else []
    while len(first) + len(running) > MOST_WINDOWS:
        pairs = list(pairwise(running))
        closest = min(range(len(pairs)), key=lambda i: _span(pairs[i]))
        running[closest : closest + 2] = [_merged(pairs[closest])]
    return (*first, *running)


def _span(pair: Sequence[PacedWindow]) -> int:
    return max(window.at for window in pair) - min(window.start for window in pair)


def _merged(windows: Sequence[PacedWindow]) -> PacedWindow:
    """Returns one window that makes an entry stale no later than each of these would.

    It concerns the entries that any of them concerns, and begins and ends with the first of them. For a
    key's share s of the range its moment is `start + s * (end - start)`. That is not later than any
    window's own: the least of straight lines is concave, so it lies above the straight line between its
    two ends.
    """
    start = min(window.start for window in windows)
    end = min(window.end for window in windows)
    return PacedWindow(max(window.at for window in windows), start, max(end - start, 0))
