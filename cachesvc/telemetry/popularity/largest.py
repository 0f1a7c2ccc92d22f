"""The largest sizes that were seen, by name: at most `LARGEST` of them."""

from collections.abc import Iterable, Sequence
from heapq import nlargest
from operator import itemgetter

LARGEST = 16
"""Names that are kept."""


class Largest:
    """Keeps the names with the largest sizes."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        self._floor = -1
        """A size that is not above this is not among the largest. Nearly every call ends at
        this comparison."""

    def __repr__(self) -> str:
        return f"<Largest [{len(self._sizes)} above {self._floor}]>"

    def note(self, name: str, size: int) -> None:
        """Notes the size of a name; the largest size of a name counts."""
        if size <= self._floor:
            return
        self._sizes[name] = max(size, self._sizes.get(name, 0))
        if len(self._sizes) > LARGEST:
            del self._sizes[min(self._sizes, key=self._sizes.__getitem__)]
        if len(self._sizes) == LARGEST:
            self._floor = min(self._sizes.values())

    def found(self) -> Sequence[tuple[str, int]]:
        """Returns names and sizes, the largest first."""
        return sorted(self._sizes.items(), key=lambda found: (-found[1], found[0]))


def largest_of(several: Iterable[Largest]) -> Sequence[tuple[str, int]]:
    """Returns the largest of all of them, the largest first."""
    sizes: dict[str, int] = {}
    for one in several:
        for name, size in one.found():
            sizes[name] = max(size, sizes.get(name, 0))
    return nlargest(LARGEST, sizes.items(), key=itemgetter(1))
