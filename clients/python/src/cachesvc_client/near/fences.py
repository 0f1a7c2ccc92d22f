"""What a near cache remembers of fences, to refuse answers that are older than they are.

Copies that are held need none of this: a fence takes them out when it comes (`near.py`). It is for answers that were asked for
before a fence and arrive after it. A dict of all fences would grow without bound, and forgetting one means refusing every
answer older than it. So keys and tags go into a sketch like the service's: two rows of times, a slot of each by one half of the
digest, merged by maximum. A collision makes a fence look newer than it is, and costs a copy that is not kept, nothing else.

Namespaces are few and exact: one collision there would refuse a whole namespace. Windows of paced fences are exact while they
run; one that is over, or too many, joins the sketch: every copy up to its `at` is stale.

All times are microseconds of the service.
"""

from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence

SLOTS = 1 << 18
"""Per row, 4 MiB in all. 300 fences/s, and copies five minutes old: 8 % of them look fenced and are not kept."""
MOST_RECENT = 8192
"""Hard fences remembered exactly, to be told to an instance that has not heard of them."""
MOST_PACED = 10_000

_SHIFT = 32


class Sketch:
    def __init__(self, slots: int = SLOTS) -> None:
        self._mask = slots - 1
        self._rows = (array("Q", bytes(8 * slots)), array("Q", bytes(8 * slots)))

    def merge(self, digest: int, at: int) -> None:
        low, high = self._rows
        i, j = digest & self._mask, digest >> _SHIFT & self._mask
        if low[i] < at:
            low[i] = at
        if high[j] < at:
            high[j] = at

    def newest(self, digest: int) -> int:
        """Not earlier than the newest fence on `digest`; 0 if there was none."""
        low, high = self._rows
        return min(low[digest & self._mask], high[digest >> _SHIFT & self._mask])


class Fences:
    """Everything merges by maximum, so repeated and reordered fences do no harm."""

    def __init__(
        self, *, slots: int = SLOTS, most_recent: int = MOST_RECENT, most_paced: int = MOST_PACED
    ) -> None:
        self._sketch = Sketch(slots)
        self._namespaces: dict[int, int] = {}
        self._recent: OrderedDict[int, int] = OrderedDict()
        self._most_recent = most_recent
        self._paced: OrderedDict[int, tuple[tuple[int, int], ...]] = OrderedDict()
        self._most_paced = most_paced
        self.floor = 0

    def know_namespace(self, digest: int) -> None:
        """From now on fences on it are kept exactly."""
        self._namespaces.setdefault(digest, 0)

    def merge(self, digest: int, at: int, *, soft: bool = False) -> None:
        """Hard or soft, an answer up to `at` is not worth keeping. Only hard ones are told to instances: a soft one allows
        stale answers, and would forbid them there."""
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
        """Honour this window too; those of one target add up."""
        known = self._paced.get(digest, ())
        if (at, over) not in known:
            self._paced[digest] = (*known, (at, over))
        while self._paced and (len(self._paced) > self._most_paced or self._is_oldest_over(now)):
            target, windows = self._paced.popitem(last=False)
            self.merge(target, max(at for at, _ in windows), soft=True)

    def _is_oldest_over(self, now: int) -> bool:
        return all(at + over < now for at, over in next(iter(self._paced.values())))

    def raise_floor(self, at: int) -> bool:
        """Whether it is higher than before."""
        if at <= self.floor:
            return False
        self.floor = at
        return True

    def admits(self, as_of: int, targets: Iterable[int]) -> bool:
        """Is a copy of these targets (key, tags, namespace) newer than every fence on them? The floor is the caller's to ask."""
        namespaces, newest = self._namespaces, self._sketch.newest
        return all(
            as_of > (namespaces[target] if target in namespaces else newest(target)) for target in targets
        )

    def newest_recent(self, targets: Iterable[int]) -> int:
        """The newest hard fence known exactly on one of them; 0 if there is none, or it was long ago."""
        return max(self._recent.get(target, 0) for target in targets)

    def due(self, as_of: int, key_digest: int, targets: Sequence[int]) -> int | None:
        """When paced fences make the copy stale; None: never."""
        windows = (
            [window for target in targets for window in self._paced.get(target, ())] if self._paced else []
        )
        return min((moment_of(at, over, key_digest) for at, over in windows if as_of <= at), default=None)


def moment_of(at: int, over: int, key_digest: int) -> int:
    """Spread evenly over the window, and equal for everybody who knows the key."""
    return at + (key_digest * over >> 64)
