"""The most frequent items of a stream, in fixed memory: the Space-Saving algorithm.

(Metwally, Agrawal & El Abbadi, ICDT 2005.) At most `capacity` items are counted. A new item takes
the place and the count of the least counted item, and remembers that count as its `error`. After n
noted items:

    every item that came more than n / capacity times is among the counted ones
    count - error <= how often the item came <= count, and error <= n / capacity

Items of equal count share a bucket. Counts grow by one, so the least bucket, once empty, is
followed by the next number: no search for the minimum, which in a plain dict of 128 would cost 4 µs
for every item of an even stream.
"""

from collections.abc import Hashable
from typing import Generic, TypeVar

from msgspec import Struct

ItemT = TypeVar("ItemT", bound=Hashable)


class Hitter(Struct, Generic[ItemT], frozen=True):
    """A counted item."""

    item: ItemT
    count: int
    """How often the item came, at most."""
    error: int
    """By how much `count` may be too high."""

    @property
    def surely(self) -> int:
        """How often the item came, at least."""
        return self.count - self.error


class HeavyHitters(Generic[ItemT]):
    """Counts the most frequent items of one stream."""

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"a sketch of heavy hitters counts at least one item, not {capacity}")
        self.capacity = capacity
        self.noted = 0
        """The number of all noted items, counted or not."""
        self._counts: dict[ItemT, int] = {}
        self._errors: dict[ItemT, int] = {}
        self._buckets: dict[int, dict[ItemT, None]] = {}
        self._least = 0

    def __len__(self) -> int:
        return len(self._counts)

    def __repr__(self) -> str:
        return f"<HeavyHitters [{len(self)} of {self.capacity} counted, {self.noted} noted]>"

    @property
    def unseen(self) -> int:
        """How often an item that is not counted may have come, at most."""
        return self._least if len(self) == self.capacity else 0

    def note(self, item: ItemT) -> None:
        """Notes one more occurrence of the item."""
        self.noted += 1
        count = self._counts.get(item)
        if count is not None:
            self._raise(item, count)
        elif len(self._counts) < self.capacity:
            self._add(item, 1, 0)
            self._least = 1
        else:
            least = self._least
            self._drop(next(iter(self._buckets[least])), least)
            self._add(item, least + 1, least)
            self._step(least)

    def counted(self) -> list[Hitter[ItemT]]:
        """Returns the counted items, in no order."""
        return [Hitter(item, count, self._errors[item]) for item, count in self._counts.items()]

    def _raise(self, item: ItemT, count: int) -> None:
        error = self._errors[item]
        self._drop(item, count)
        self._add(item, count + 1, error)
        self._step(count)

    def _add(self, item: ItemT, count: int, error: int) -> None:
        self._counts[item] = count
        self._errors[item] = error
        self._buckets.setdefault(count, {})[item] = None

    def _drop(self, item: ItemT, count: int) -> None:
        del self._counts[item], self._errors[item], self._buckets[count][item]

    def _step(self, count: int) -> None:
        """Updates the buckets after an item moved from the bucket of `count` to the next one.

        An empty bucket is removed; if it was the least bucket, the next one is the least now.
        """
        if not self._buckets[count]:
            del self._buckets[count]
            if count == self._least:
                self._least = count + 1


def together(first: HeavyHitters[ItemT], second: HeavyHitters[ItemT]) -> list[Hitter[ItemT]]:
    """Returns the items of two streams as if they were one, the most frequent first.

    The order is by the sure counts. The guarantees hold with n / capacity the sum of both (Agarwal et
    al., Mergeable Summaries, 2012).
    """
    left = {hitter.item: hitter for hitter in first.counted()}
    right = {hitter.item: hitter for hitter in second.counted()}
    found = [
        _sum(left.get(item) or _not_counted(item, first), right.get(item) or _not_counted(item, second))
        for item in left | right
    ]
    return sorted(found, key=lambda hitter: (hitter.surely, hitter.count), reverse=True)


def _not_counted(item: ItemT, sketch: HeavyHitters[ItemT]) -> Hitter[ItemT]:
    return Hitter(item, sketch.unseen, sketch.unseen)


def _sum(one: Hitter[ItemT], other: Hitter[ItemT]) -> Hitter[ItemT]:
    return Hitter(one.item, one.count + other.count, one.error + other.error)
