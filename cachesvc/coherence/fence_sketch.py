"""A sketch of fences: the newest fence on any target, in a fixed amount of memory.

Two rows of 64-bit times. A target's slot in a row is one half of its 64-bit digest; a merge raises
both slots to `at`, a query takes the smaller of the two. A collision can only make a fence look
newer than it is: a miss, never a stale read. Nothing is evicted. This is a count-min sketch
(Cormode & Muthukrishnan, 2005) with `max` in the place of `+`.
"""

import mmap

_SAMPLES = 4096
"""Slots looked at per row for the estimate.

Enough to see one refusal in a million; a look costs a third of a millisecond.
"""


class FenceSketch:
    """The two rows of a sketch, with `slots` slots each: a power of two up to 2**32.

    Pages of the rows become memory when they are first written. `rows` and `mask` are public for
    the callers that cannot afford a call (`Fences.admits`, `Fences.merge`).
    """

    __slots__ = ("mask", "rows", "slots")

    def __init__(self, slots: int) -> None:
        if slots < 1 or slots & (slots - 1) or slots > 1 << 32:
            raise ValueError(f"sketch slots must be a power of two up to 2**32, not {slots}")
        self.slots = slots
        self.mask = slots - 1
        self.rows = (_zeros(slots), _zeros(slots))

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

    def collision_share(self, since: int) -> float:
        """The probability that a target without a fence since `since` µs looks as if it had one.

        It is the product of the rows' shares of slots newer than that, from evenly spaced samples
        (digests are uniform, so any samples are random ones). With r fences/s over T seconds it
        comes to `(1 - e**(-rT/slots))**2`.
        """
        step = max(1, self.slots // _SAMPLES)
        return _share_after(self.rows[0][::step], since) * _share_after(self.rows[1][::step], since)


def _zeros(slots: int) -> "memoryview[int]":
    # Not array('Q', bytes(n)): copying the zeros touches every page, 32 MiB and 10 ms for a sketch
    # that may stay empty.
    return memoryview(mmap.mmap(-1, 8 * slots, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)).cast("Q")


def _share_after(row: "memoryview[int]", since: int) -> float:
    return sum(at > since for at in row) / len(row)
