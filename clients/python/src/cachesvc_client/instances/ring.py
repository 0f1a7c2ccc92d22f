"""The ring that says which instance a key is asked of.

So the key's copy in L1, its flight and its lease are in one place. Consistent hashing (Karger et
al., STOC 1997) over the names of instances: each has 160 points on a circle of 64-bit numbers, and
a key belongs to the first point at or after its digest. An instance that leaves gives its keys to
the others, one that joins takes its share, and no other key moves. Points depend on names alone, so
every client, in every language, agrees.
"""

from bisect import bisect_left
from collections.abc import Iterable

from xxhash import xxh3_64_intdigest

POINTS = 160


class Ring:
    """The ring of a set of instances; immutable, as other instances make another ring."""

    def __init__(self, names: Iterable[str]) -> None:
        """Raises `ValueError` if there are none."""
        placed = sorted(
            (xxh3_64_intdigest(b"%s#%d" % (name.encode(), nth)), name)
            for name in set(names)
            for nth in range(POINTS)
        )
        if not placed:
            raise ValueError("a ring needs at least one name")
        self._points = [point for point, _ in placed]
        self._owners = [name for _, name in placed]
        self.names = frozenset(self._owners)

    def __repr__(self) -> str:
        return f"<Ring of {', '.join(sorted(self.names))}>"

    def first(self, key_digest: int) -> str:
        """The instance that the key belongs to."""
        return self._owners[bisect_left(self._points, key_digest) % len(self._owners)]

    def preference(self, key_digest: int, most: int | None = None) -> list[str]:
        """All names, or the first `most`: the key's own, then who has it if those before are gone."""
        start, found = bisect_left(self._points, key_digest), dict[str, None]()
        wanted = len(self.names) if most is None else min(most, len(self.names))
        for nth in range(start, start + len(self._owners)):
            found[self._owners[nth % len(self._owners)]] = None
            if len(found) == wanted:
                break
        return list(found)
