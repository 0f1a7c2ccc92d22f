"""A sketch of fences: the newest fence on any target, in a bounded amount of memory.

Two rows of 64-bit times. A target's slot in a row is one half of its 64-bit digest; a merge raises
both slots to `at`, a query takes the smaller of the two. A collision can only make a fence look
newer than it is: a miss, never a stale read. Nothing is evicted. This is a count-min sketch
(Cormode & Muthukrishnan, 2005) with `max` in the place of `+`.

The rows begin short, and double when they are full of young fences. Each half of a longer row
begins as the row was, so that no slot is earlier than before. So the longer row is as full at
first, and only the number of fences says how long it has to be.
"""

import mmap

_SAMPLES = 4096
"""Slots looked at per row for the estimate.

Enough to see one refusal in a million; a look costs a third of a millisecond.
"""


FIRST_SLOTS = 1 << 16
"""The slots of a row at first, 1 MiB for both rows."""
MOST_FULL = 0.1
"""The share of slots with young fences above which a row doubles.

With a tenth of both rows, 1 % of the targets without a fence look as if they had one."""


class FenceSketch:
    """The two rows of a sketch, each of `most_slots` slots at most: a power of two.

    Pages of the rows become memory when they are first written. `rows` and `mask` are public for
    the callers that cannot afford a call (`Fences.admits`, `Fences.merge`); `make_room` replaces both.
    """

    __slots__ = ("_most_slots", "mask", "rows", "slots")

    def __init__(self, most_slots: int) -> None:
        if most_slots < 1 or most_slots & (most_slots - 1) or most_slots > 1 << 32:
            raise ValueError(f"sketch slots must be a power of two up to 2**32, not {most_slots}")
        self._most_slots = most_slots
        self.slots = min(most_slots, FIRST_SLOTS)
        self.mask = self.slots - 1
        self.rows = (_zeros(self.slots), _zeros(self.slots))

    def __repr__(self) -> str:
        return f"<FenceSketch [2 x {self.slots} slots]>"

    def merge(self, digest: int, at: int) -> None:
        """Raises the fence on `digest` to `at` µs. Order and repetition make no difference."""
        row0, row1 = self.rows
        low = digest & self.mask
        high = digest >> 32 & self.mask
        if row0[low] < at:
            row0[low] = at
        if row1[high] < at:
            row1[high] = at

    def query(self, digest: int) -> int:
        """A time not earlier than the newest fence merged for `digest`, µs; 0 if there was none."""
        row0, row1 = self.rows
        low = row0[digest & self.mask]
        high = row1[digest >> 32 & self.mask]
        return low if low < high else high

    def make_room(self, young: int, since: int) -> bool:
        """Doubles the rows as often as needed for so many fences; True if it did.

        `young`: the fences newer than `since` µs, or more. Where they have few targets, they fill few
        slots, and nothing is doubled. The last step, to 32 MiB, takes some 30 ms.
        """
        before = self.slots
        while (
            self.slots < self._most_slots
            and young > MOST_FULL * self.slots
            and _share_after(self._sample(0), since) > MOST_FULL
        ):
            row0, row1 = self.rows
            self.rows = (_twice(row0), _twice(row1))
            self.slots *= 2
            self.mask = self.slots - 1
        return self.slots != before

    def collision_share(self, since: int) -> float:
        """The probability that a target without a fence since `since` µs looks as if it had one.

        It is the product of the rows' shares of slots newer than that, from evenly spaced samples
        (digests are uniform, so any samples are random ones). With r fences/s over T seconds it
        comes to `(1 - e**(-rT/slots))**2`.
        """
        return _share_after(self._sample(0), since) * _share_after(self._sample(1), since)

    def _sample(self, row: int) -> "memoryview[int]":
        return self.rows[row][:: max(1, self.slots // _SAMPLES)]


def _zeros(slots: int) -> "memoryview[int]":
    # Not array('Q', bytes(n)): copying the zeros touches every page, 32 MiB and 10 ms for a sketch
    # that may stay empty.
    return memoryview(mmap.mmap(-1, 8 * slots, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)).cast("Q")


def _twice(row: "memoryview[int]") -> "memoryview[int]":
    """Returns a row twice as long: a target's slot in it is as late as in the shorter one."""
    longer = _zeros(2 * len(row))
    longer[: len(row)] = longer[len(row) :] = row
    return longer


def _share_after(row: "memoryview[int]", since: int) -> float:
    return sum(at > since for at in row) / len(row)
