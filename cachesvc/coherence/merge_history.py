"""The last fences merged here and the moment of each, for explanations only.

Kept in whole batches, as they were merged: noting one batch costs the same however many fences it
has.
"""

from collections import deque
from collections.abc import Sequence

from msgspec import Struct

from cachesvc.model.fence import Fence

MOST = 1 << 14
"""Fences remembered: 1.5 s of 10,000 a second, hours of a quiet day.

A look walks over all of them: 0.3 ms.
"""


class Merged(Struct, frozen=True):
    """A fence, and when and from where it was merged here."""

    fence: Fence
    region: str
    """The region whose feed brought the fence.

    Empty if this instance issued it.
    """
    merged_at: int
    """The moment of the merge, µs, by the own clock."""


class MergeLog:
    """The last merges, at most `most` fences."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._batches: deque[tuple[tuple[Fence, ...], str, int]] = deque()
        self._fences = 0
        self.forgotten_until = 0
        """Merges up to this time may be missing here, µs; 0 while all of them are here."""

    def __len__(self) -> int:
        return self._fences

    def __repr__(self) -> str:
        return f"<MergeLog [{self._fences} fences, {len(self._batches)} batches]>"

    def note(self, fences: Sequence[Fence], region: str, now_us: int) -> None:
        if not fences:  # batches without fences would be counted by nothing
            return
        if len(fences) > self._most:  # a new instance reads all that is retained: a million
            fences = fences[-self._most :]
            self.forgotten_until = now_us
        self._batches.append((tuple(fences), region, now_us))
        self._fences += len(fences)
        while self._fences > self._most:
            forgotten, _, self.forgotten_until = self._batches.popleft()
            self._fences -= len(forgotten)

    def of(self, digest: int) -> list[Merged]:
        """The fences on this target, newest first.

        A fence that came twice (from its issuer, then from a feed) is there once, as it came first.
        """
        found: dict[Fence, Merged] = {}
        for fences, region, merged_at in self._batches:
            for fence in fences:
                if fence.digest == digest:
                    found.setdefault(_same(fence), Merged(fence, region, merged_at))
        return sorted(found.values(), key=lambda merged: merged.fence.at, reverse=True)


def _same(fence: Fence) -> Fence:
    """The part by which two announcements are of one fence: not how far its home had got."""
    return Fence(fence.digest, fence.at, fence.soft, over=fence.over)
