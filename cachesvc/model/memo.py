"""Memo tables under a budget of bytes, which nobody can make large.

`functools.lru_cache` bounds the number of results. Arguments that others chose may be long, though:
a thousand lists of 128 tags are 80 MB. Here the arguments and results together have a budget. A
table that is full is emptied, and a result that is large by itself is not kept.
"""

from collections.abc import Callable, Hashable
from sys import getsizeof
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import astuple

MEMO_BYTES = 1 << 20
"""The budget of one table."""
ITEM_BYTES = 100
"""Bytes of an item's place in its table."""
LARGEST_SHARE = 16
"""A result above 1/16 of the budget is not kept."""

A = TypeVar("A", bound=Hashable)
R = TypeVar("R")


class _Memo(dict[A, R]):
    """Argument → result; a look-up of what is there is C code."""

    def __init__(self, compute: Callable[[A], R], budget: int) -> None:
        super().__init__()
        self.budget = budget
        self.bytes = 0
        self._compute = compute

    def __missing__(self, argument: A) -> R:
        result = self._compute(argument)
        size = bytes_of(argument) + bytes_of(result) + ITEM_BYTES
        if size <= self.budget // LARGEST_SHARE:
            if self.bytes + size > self.budget:
                self.clear()
                self.bytes = 0
            self[argument] = result
            self.bytes += size
        return result


def memo(compute: Callable[[A], R]) -> Callable[[A], R]:
    """Returns the function with its results remembered, `MEMO_BYTES` of them.

    An exception is raised each time. Used on one thread.
    """
    return _Memo(compute, MEMO_BYTES).__getitem__


def bytes_of(value: object) -> int:
    """Returns the bytes of texts, numbers, and tuples and structs of such."""
    if isinstance(value, Struct):
        return getsizeof(value) + sum(map(bytes_of, astuple(value)))
    return getsizeof(value) + (sum(map(bytes_of, value)) if isinstance(value, tuple) else 0)
