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
    """

    def __init__(self, maxsize: float, getsizeof: Callable[[V], float] | None = None) -> None:
        super().__init__(maxsize, getsizeof)
        self._entries: OrderedDict[K, V] = OrderedDict()  # least recently used first
        self._size: float = 0

    def __repr__(self) -> str:
        sizes = f"maxsize={self.maxsize!r}, currsize={self._size!r}"
        return f"{type(self).__name__}({dict(self._entries)!r}, {sizes})"

    def __getitem__(self, key: K) -> V:
        if key not in self._entries:
            return self.__missing__(key)
        self._entries.move_to_end(key)
        return self._entries[key]

    def get(self, key: K, default: Any = None) -> Any:
        """Returns the value, which becomes the most recently used, or `default`."""
        entries = self._entries
        value = entries.get(key, _ABSENT)
        if value is _ABSENT:
            return default
        entries.move_to_end(key)
        return value

    def peek(self, key: K, default: Any = None) -> Any:
        """Returns the value or `default`; the key keeps its place in the order."""
        return self._entries.get(key, default)

    def __setitem__(self, key: K, value: V) -> None:
        size = self.getsizeof(value)
        if size > self.maxsize:
            raise ValueError("value too large")
        if size < 0:
            raise ValueError("value size must be non-negative")
        if key in self._entries:
            del self[key]
        while self._size + size > self.maxsize:
            self.popitem()
        self._entries[key] = value
        self._size += size

    def __delitem__(self, key: K) -> None:
        self._size -= self.getsizeof(self._entries.pop(key))

    def popitem(self) -> tuple[K, V]:
        """Removes and returns the least recently used pair. Raises `KeyError` if there is none."""
        if not self._entries:
            raise KeyError(f"{type(self).__name__} is empty")
        key, value = self._entries.popitem(last=False)
        self._size -= self.getsizeof(value)
        return key, value

    def clear(self) -> None:
        self._entries.clear()
        self._size = 0

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[K]:
        # Over a copy: each use of a key during the iteration moves it, and an `OrderedDict` cannot be
        # iterated while it changes.
        return iter(list(self._entries))

    # The views are those of the mapping, least recently used first. Reading through a view moves nothing.

    def keys(self) -> KeysView[K]:
        return self._entries.keys()

    def values(self) -> ValuesView[V]:
        return self._entries.values()

    def items(self) -> ItemsView[K, V]:
        return self._entries.items()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def currsize(self) -> float:
        return self._size
