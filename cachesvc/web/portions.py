"""The bound of one answer's bytes, and of the bytes that are gathered for it.

An answer of `:get` has values of `server.max_answer` bytes at most, and one value in any case. The
keys without room are answered `answer-full`, and the caller asks for them again. What has no room
is not read at all if that can be known before: keys that L1 does not answer are read in portions,
and each portion has so many keys that their values fit into the room that is left.

How large values are is learnt for each namespace, from the portions themselves: it is the largest
value of a portion, and falls to an eighth with every portion of smaller values. It begins with the
namespace's `max_value`. So a namespace of small values has every batch in one portion from its
third portion on, and one of large values never has more in memory than an answer takes, beside the
first portion after its values have become larger.
"""

from collections.abc import Sequence

from cachesvc.config.topology import Namespace
from cachesvc.model.entry import Entry

FALL = 8
"""The expected size of a value falls to this part with a portion of smaller values."""


class Portions:
    """The number of keys of each namespace that are read beyond L1 at once."""

    def __init__(self) -> None:
        self._expected: dict[str, int] = {}

    def keys_at_once(self, name: str, contract: Namespace, room: int) -> int:
        """Returns how many values are expected to fit into `room` bytes; at least 1."""
        return max(1, room // max(1, self._expected.get(name, contract.max_value)))

    def bytes_of(self, name: str, contract: Namespace, keys: int) -> int:
        """Returns the bytes of so many values, if each is as large as the largest is expected."""
        return keys * self._expected.get(name, contract.max_value)

    def learn(self, name: str, contract: Namespace, sizes: Sequence[int]) -> None:
        """Notes the sizes of the values of one portion; none if it brought no value."""
        if sizes:
            before = self._expected.get(name, contract.max_value)
            self._expected[name] = max(max(sizes), before // FALL)


class Room:
    """The room that is left in one answer."""

    __slots__ = ("_is_empty", "is_short", "left")

    def __init__(self, most: int) -> None:
        self.left = most
        self.is_short = False
        """True if there was no room for a key."""
        self._is_empty = True

    @property
    def is_open(self) -> bool:
        """True if one more value may fit."""
        return self.left > 0 or self._is_empty

    def takes_all(self, sizes: Sequence[int]) -> bool:
        """True if values of these sizes all fit, and then takes their place; else nothing changes."""
        total = sum(sizes)
        if total > self.left:
            return False
        self._is_empty = self._is_empty and not total
        self.left -= total
        return True

    def takes(self, entry: Entry | None) -> bool:
        """True if the value still fits, and then takes its place; the first one fits in any case."""
        if entry is None:
            return True
        size = len(entry.value)
        if size > self.left and not self._is_empty:
            self.left, self.is_short = 0, True
            return False
        self._is_empty = self._is_empty and not size
        self.left -= size
        return True
