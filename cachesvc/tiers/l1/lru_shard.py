"""Exact LRU in one `OrderedDict`.

`cachetools.LRUCache` does the same with two mappings and three Python calls per hit. Only the
entries are stored: where a size is needed, it is computed again when the entry leaves.
"""

from collections import OrderedDict
from collections.abc import Callable, ItemsView, Iterator, KeysView, ValuesView
from typing import Any, Generic, TypeVar

from cachetools import Cache

K = TypeVar("K")
V = TypeVar("V")
_ABSENT: Any = object()


class LruShard(Cache[K, V], Generic[K, V]):
    """Behaves as `cachetools.LRUCache`.

    `getsizeof`, if given, must always return the same size for the same value: sizes are not stored.
    Without it every size is 1, and `entries` may be changed directly, by whoever bounds it.
    """

    def __init__(self, maxsize: float, getsizeof: Callable[[V], float] | None = None) -> None:
        super().__init__(maxsize, getsizeof)
        self.entries: OrderedDict[K, V] = OrderedDict()
        """Least recently used first. Public for `Room`, which cannot afford a call per key."""
        self.is_sized = getsizeof is not None or type(self).getsizeof is not Cache.getsizeof
        self._size: float = 0
        """The sum of the sizes; 0 unless `is_sized`."""

    def __repr__(self) -> str:
        sizes = f"maxsize={self.maxsize!r}, currsize={self.currsize!r}"
        return f"{type(self).__name__}({dict(self.entries)!r}, {sizes})"

    def __getitem__(self, key: K) -> V:
        if key not in self.entries:
            return self.__missing__(key)
        self.entries.move_to_end(key)
        return self.entries[key]

    def get(self, key: K, default: Any = None) -> Any:
        """Returns the value, which becomes the most recently used, or `default`."""
        entries = self.entries
        value = entries.get(key, _ABSENT)
        if value is _ABSENT:
            return default
        entries.move_to_end(key)
        return value

    def peek(self, key: K, default: Any = None) -> Any:
        """Returns the value or `default`; the key keeps its place in the order."""
        return self.entries.get(key, default)

    def __setitem__(self, key: K, value: V) -> None:
        size = self.getsizeof(value)
        if size > self.maxsize:
            raise ValueError("value too large")
        if size < 0:
            raise ValueError("value size must be non-negative")
        if key in self.entries:
            del self[key]
        while self.currsize + size > self.maxsize:
            self.popitem()
        self.entries[key] = value
        if self.is_sized:
            self._size += size

    def __delitem__(self, key: K) -> None:
        value = self.entries.pop(key)
        if self.is_sized:
            self._size -= self.getsizeof(value)

    def popitem(self) -> tuple[K, V]:
        """Removes and returns the least recently used pair. Raises `KeyError` if there is none."""
        if not self.entries:
            raise KeyError(f"{type(self).__name__} is empty")
        key, value = self.entries.popitem(last=False)
        if self.is_sized:
            self._size -= self.getsizeof(value)
        return key, value

    def clear(self) -> None:
        self.entries.clear()
        self._size = 0

    def __contains__(self, key: object) -> bool:
        return key in self.entries

    def __iter__(self) -> Iterator[K]:
        # Over a copy: each use of a key during the iteration moves it, and an `OrderedDict` cannot be
        # iterated while it changes.
        return iter(list(self.entries))

    # The views are those of the mapping, least recently used first. Reading through a view moves nothing.

    def keys(self) -> KeysView[K]:
        return self.entries.keys()

    def values(self) -> ValuesView[V]:
        return self.entries.values()

    def items(self) -> ItemsView[K, V]:
        return self.entries.items()

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def currsize(self) -> float:
        return self._size if self.is_sized else len(self.entries)
