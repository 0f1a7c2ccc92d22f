"""The fences that a near cache remembers, to refuse answers that are older than a fence.

Copies that are held need no such memory: a fence takes them out when it comes (`near.py`). The
memory is for answers that were asked for before a fence and arrive after it. A dict of all fences
would grow without bound, and to forget a fence means to refuse every answer older than it. So the
fences of keys and tags go into a sketch like the service's: two rows of times, in each row one slot
chosen by one half of the digest, merged by maximum. A collision makes a fence look newer than it
is; its only cost is a copy that is not kept.

Namespaces are few and are kept exactly, because one collision would refuse a whole namespace.
Windows of paced fences are kept while they run, exactly up to `MOST_WINDOWS` of one target: beyond
them two neighbours become one that is at least as strict as both. A window that is over, or whose
target is one too many, goes into the sketch: every copy up to its `at` is then taken for stale.

All times are microseconds of the service.
"""

from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TypeAlias

SLOTS = 1 << 18
"""Slots of each of the two rows, 4 MiB in all.

At 300 fences/s, 8 % of the copies that are five minutes old look fenced and are not kept.
"""
MOST_RECENT = 8192
"""Hard fences remembered exactly, to be told to an instance that has not merged them."""
MOST_PACED = 10_000
"""Targets whose windows of paced fences are remembered."""
MOST_WINDOWS = 8
"""Windows of one target, however often it is purged: a reader looks at all of them."""

_Window: TypeAlias = tuple[int, int, int]
"""`(at, start, over)`, µs.

Copies with `as_of <= at` become stale between `start` and `start + over`."""

_SHIFT = 32


class Sketch:
    """An upper bound of the newest time merged for each digest, in constant memory.

    It is a count-min sketch (Cormode and Muthukrishnan) of two rows with maximum in the place of sum.
    """

    def __init__(self, slots: int = SLOTS) -> None:
        self._mask = slots - 1
        self._rows = (array("Q", bytes(8 * slots)), array("Q", bytes(8 * slots)))

    def merge(self, digest: int, at: int) -> None:
        """Raises the time of `digest` to `at`, at least."""
        low, high = self._rows
        i, j = digest & self._mask, digest >> _SHIFT & self._mask
        if low[i] < at:
            low[i] = at
        if high[j] < at:
            high[j] = at

    def newest(self, digest: int) -> int:
        """Returns a time not earlier than the newest fence on `digest`; 0 if nothing was merged."""
        low, high = self._rows
        return min(low[digest & self._mask], high[digest >> _SHIFT & self._mask])


class Fences:
    """The fences, the windows of paced fences and the floor that a client knows.

    All of it merges by maximum, so repeated and reordered fences do no harm. `Near` holds its lock
    around every call.
    """

    def __init__(
        self, *, slots: int = SLOTS, most_recent: int = MOST_RECENT, most_paced: int = MOST_PACED
    ) -> None:
        self._sketch = Sketch(slots)
        self._namespaces: dict[int, int] = {}
        self._recent: OrderedDict[int, int] = OrderedDict()
        self._most_recent = most_recent
        self._paced: OrderedDict[int, tuple[_Window, ...]] = OrderedDict()
        self._most_paced = most_paced
        self.floor = 0

    def know_namespace(self, digest: int) -> None:
        """Keeps the fences on this namespace exactly from now on."""
        self._namespaces.setdefault(digest, 0)

    def merge(self, digest: int, at: int, *, soft: bool = False) -> None:
        """Merges a fence: answers with `as_of` up to `at` are no longer admitted.

        A soft fence refuses answers here as a hard one does. Only hard fences are told to
        instances, because a soft fence allows stale answers and a token would forbid them there.
        """
        if digest in self._namespaces:
            self._namespaces[digest] = max(self._namespaces[digest], at)
        else:
            self._sketch.merge(digest, at)
        if not soft:
            recent = self._recent
            recent[digest] = max(at, recent.pop(digest, 0))
            if len(recent) > self._most_recent:
                recent.popitem(last=False)

    def pace(self, digest: int, at: int, over: int, now: int) -> None:
        """Adds the window of a paced fence, `over` µs from `at`; windows of a target add up."""
        known = self._paced.get(digest, ())
        if (at, at, over) not in known:
            self._paced[digest] = self._bounded([*known, (at, at, over)], digest, now)
        while self._paced and (len(self._paced) > self._most_paced or self._is_oldest_over(now)):
            target, windows = self._paced.popitem(last=False)
            self.merge(target, max((at for at, _, _ in windows), default=0), soft=True)

    def _bounded(self, windows: Sequence[_Window], digest: int, now: int) -> tuple[_Window, ...]:
        """Returns the windows that run, in few; those that are over go into the sketch.

        The two neighbours become one whose times lie closest together.
        """
        for at, start, over in windows:
            if start + over < now:
                self.merge(digest, at, soft=True)
        running = sorted(window for window in windows if window[1] + window[2] >= now)
        while len(running) > MOST_WINDOWS:
            spans = [max(one[0], two[0]) - min(one[1], two[1]) for one, two in pairwise(running)]
            closest = spans.index(min(spans))
            running[closest : closest + 2] = [_merged(running[closest], running[closest + 1])]
        return tuple(running)

    def _is_oldest_over(self, now: int) -> bool:
        return all(start + over < now for _, start, over in next(iter(self._paced.values())))

    def raise_floor(self, at: int) -> bool:
        """Raises the floor to `at`; true if the floor was lower before."""
        if at <= self.floor:
            return False
        self.floor = at
        return True

    def admits(self, as_of: int, targets: Iterable[int]) -> bool:
        """True if a copy of these targets is newer than every fence on them.

        The targets are the digests of the copy's key, tags and namespace. The floor is not compared
        here: the caller compares it.
        """
        namespaces, newest = self._namespaces, self._sketch.newest
        return all(
            as_of > (namespaces[target] if target in namespaces else newest(target)) for target in targets
        )

    def newest_recent(self, targets: Iterable[int]) -> int:
        """Returns the newest hard fence that is known exactly on one of the targets.

        0 if there was none, or if it has made room for more recent fences.
        """
        return max(self._recent.get(target, 0) for target in targets)

    def due(self, as_of: int, key_digest: int, targets: Sequence[int]) -> int | None:
        """Returns the time at which paced fences make the copy stale; None if they never do."""
        windows = (
            [window for target in targets for window in self._paced.get(target, ())] if self._paced else []
        )
        return min(
            (moment_of(start, over, key_digest) for at, start, over in windows if as_of <= at), default=None
        )


def _merged(one: _Window, two: _Window) -> _Window:
    """Returns one window that makes a copy stale no later than either of these would.

    It begins and ends with the first of them. The earlier of two moments is a concave function of the
    key's share of the range, so it lies above the straight line from that beginning to that end.
    """
    start = min(one[1], two[1])
    end = min(one[1] + one[2], two[1] + two[2])
    return max(one[0], two[0]), start, max(end - start, 0)


def moment_of(at: int, over: int, key_digest: int) -> int:
    """Returns the time in the window at which a paced fence makes the key's copies stale.

    Keys are spread evenly over the window. Everybody who knows the key computes the same time.
    """
    return at + (key_digest * over >> 64)
