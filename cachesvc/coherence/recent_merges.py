"""The last merges of fences, numbered, for the rule on answers.

A read that joins a load may be answered by it only if no fence of its targets was merged between
the load's lease and the read's own start. Both moments are kept as a count of merges, and `between`
tells whether one of the merges from the one count to the other was of these digests.

Number n lives in slot `n & mask` of three flat rings: its digest, its time, and the number before
it of the same digest. `_newest` leads from a digest to its newest number, the chain of predecessors
to the older ones. So memory is bounded by the capacity whatever the rate, and a merge that was
forgotten too early (a burst above capacity per load deadline) is answered with True: one more load,
never a stale answer.
"""

from array import array
from collections.abc import Iterable, Sequence

CAPACITY = 1 << 16
"""Merges remembered: 20,000 a second over the default load deadline of 3 s."""


class RecentMerges:
    """The merges, numbered 1, 2, 3, …

    `count` is the newest number, and a plain attribute because each read notes it.
    """

    __slots__ = (
        "_digests",
        "_flood",
        "_forgotten",
        "_mask",
        "_newest",
        "_previous",
        "_times",
        "count",
        "window_us",
    )

    def __init__(self, window_us: int, capacity: int = CAPACITY) -> None:
        if capacity < 1 or capacity & (capacity - 1):
            raise ValueError(f"capacity of recent merges must be a power of two, not {capacity}")
        self.count = 0
        self.window_us = window_us
        self._mask = capacity - 1
        self._flood = capacity // 8
        self._digests = array("Q", bytes(8 * capacity))
        self._times = array("Q", bytes(8 * capacity))
        self._previous = array("Q", bytes(8 * capacity))
        self._newest: dict[int, int] = {}
        self._forgotten = 0  # merges up to this number are not known any more

    def __len__(self) -> int:
        return self.count - self._forgotten

    def __repr__(self) -> str:
        return f"<RecentMerges [{len(self)} of {self.count}]>"

    def add(self, digest: int, now_us: int) -> None:
        """Numbers one more merge. First forgets the merge whose slot the new one takes."""
        if self.count - self._forgotten > self._mask:
            self._forget_oldest()
        self.count = number = self.count + 1
        slot = number & self._mask
        self._digests[slot] = digest
        self._times[slot] = now_us
        self._previous[slot] = self._newest.get(digest, 0)
        self._newest[digest] = number

    def forget(self) -> None:
        """Numbers one more merge, of targets that are unknown because fences were lost.

        `between` is True for every range that it is in.
        """
        self.count += 1
        self._forgotten = self.count
        self._newest.clear()

    def add_many(self, digests: Sequence[int], now_us: int) -> None:
        """Numbers these merges.

        Of very many at once, as when a new instance reads all fences that are retained, none is
        remembered: that would cost more than the rest of the merge. `between` is then True for
        every range that they are in.
        """
        if len(digests) <= self._flood:
            for digest in digests:
                self.add(digest, now_us)
            return
        self.count += len(digests)
        self._forgotten = self.count
        self._newest.clear()

    def expire(self, now_us: int) -> None:
        """Forgets the merges older than the window: no running load can ask for them."""
        horizon = now_us - self.window_us
        while self._forgotten < self.count and self._times[self._forgotten + 1 & self._mask] < horizon:
            self._forget_oldest()

    def between(self, after: int, upto: int, digests: Iterable[int]) -> bool:
        """True if one of `digests` was merged with a number in `(after, upto]`.

        True too if that range is not remembered as a whole.
        """
        if upto <= after:
            return False
        if after < self._forgotten:
            return True
        return any(after < self._newest_upto(upto, digest) for digest in digests)

    def _newest_upto(self, upto: int, digest: int) -> int:
        number = self._newest.get(digest, 0)
        while number > upto:
            number = self._previous[number & self._mask]
        return number

    def _forget_oldest(self) -> None:
        self._forgotten = oldest = self._forgotten + 1
        digest = self._digests[oldest & self._mask]
        if self._newest[digest] == oldest:
            del self._newest[digest]
