"""The bytes that values are expected to have, by what this instance has met.

All items of an exchange share its time limit, so an exchange is bounded by bytes as well. The bytes
of a write are known. Those of a read are known if this instance has met a large value of that key.
A key whose value was not met as a large one has the mean of such keys of its namespace: of the last
reads, misses among them.
"""

from collections.abc import Iterable, Sequence

from cachesvc.model.entry import Key

LARGE_BYTES = 16 << 10
"""A value of this size is large: its key is remembered with it."""
MOST_LARGE = 10_000
"""Large keys remembered; beyond them the one met least recently is forgotten."""
UNMET_BYTES = 16 << 10
"""The mean of a namespace of which nothing was read yet."""
MOST_READS = 1024
"""The mean is that of the last reads, between half of this number and all of it."""


class ValueSizes:
    """The sizes that were met."""

    def __init__(self) -> None:
        self._large: dict[int, int] = {}
        """Bytes of large values by the digest of their key, the one met last at the end."""
        self._means: dict[str, tuple[int, int]] = {}
        """Reads and bytes of the last reads, by namespace."""

    def of_large(self, keys: Iterable[Key]) -> int:
        """Returns the bytes of those values that were met as large ones."""
        large = self._large
        return sum([large.get(key.digest, 0) for key in keys]) if large else 0

    def expected(self, keys: Sequence[Key]) -> int:
        """Returns the bytes that a read of these keys of one namespace is expected to bring."""
        reads, size = self._means.get(keys[0].namespace, (1, UNMET_BYTES))
        return len(keys) * size // reads + self.of_large(keys)

    def is_large(self, key: Key) -> bool:
        """True if a large value of the key was met."""
        return key.digest in self._large

    def met(self, key: Key, size: int) -> None:
        """Remembers the key of a large value; forgets it if its value has become small."""
        large = self._large
        if size >= LARGE_BYTES:
            large.pop(key.digest, None)
            large[key.digest] = size
            if len(large) > MOST_LARGE:
                del large[next(iter(large))]
        elif large:
            large.pop(key.digest, None)

    def learn(self, namespace: str, reads: int, size: int) -> None:
        """Notes the bytes of so many reads of keys that had not been met as large."""
        if not reads:
            return
        before, bytes_before = self._means.get(namespace, (0, 0))
        if before + reads > MOST_READS:
            before, bytes_before = before // 2, bytes_before // 2
        self._means[namespace] = before + reads, bytes_before + size
