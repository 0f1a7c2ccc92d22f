"""The largest of what was seen, by name: at most `LARGEST` of them."""

from collections.abc import Iterable, Sequence
from heapq import nlargest
from operator import itemgetter

LARGEST = 16


class Largest:
    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        self._floor = -1
        """Not larger than this: not among them. Nearly every call ends at this comparison."""

    def __repr__(self) -> str:
        return f"<Largest [{len(self._sizes)} above {self._floor}]>"

    def note(self, name: str, size: int) -> None:
        """The largest size of a name counts."""
        if size <= self._floor:
            return
        self._sizes[name] = max(size, self._sizes.get(name, 0))
        if len(self._sizes) > LARGEST:
            del self._sizes[min(self._sizes, key=self._sizes.__getitem__)]
        if len(self._sizes) == LARGEST:
            self._floor = min(self._sizes.values())

    def found(self) -> Sequence[tuple[str, int]]:
        """The largest first."""
        return sorted(self._sizes.items(), key=lambda found: (-found[1], found[0]))


def largest_of(several: Iterable[Largest]) -> Sequence[tuple[str, int]]:
    """Of all of them together."""
    sizes: dict[str, int] = {}
    for one in several:
        for name, size in one.found():
            sizes[name] = max(size, sizes.get(name, 0))
    return nlargest(LARGEST, sizes.items(), key=itemgetter(1))
