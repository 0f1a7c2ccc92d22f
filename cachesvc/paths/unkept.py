"""The keys whose values could not be kept lately: nobody waits for their leases.

A lease makes the readers of a key wait for one load, whose value then answers them all. If the
value cannot be kept (it is above the namespace's `max_value`, its tags are out of rule, or the
origin forbids to keep it), the wait is for nothing: every reader has to load after all, one behind
the other. So the key is remembered, and a reader that finds its lease held loads at once.

That gives up "one load at a time" (guarantee G3) for these keys only, and only for so long: a key
is forgotten after `REMEMBERED_SECONDS`, or as soon as a value of it can be kept. The lease is still
granted to the first reader, whose value is kept if it can be by then.
"""

import asyncio
from collections import OrderedDict

from cachesvc.model.entry import Key

REMEMBERED_SECONDS = 30.0
"""How long a key is remembered after its value could not be kept.

Long enough that a value which is never kept costs one wait per half minute; short enough that a key
whose values have become smaller is collapsed to one load soon.
"""
MOST_KEYS = 4096
"""The most keys that are remembered, about 1 MB. Of more keys the oldest are forgotten."""


class Unkept:
    """The memory of one instance. On the event loop only; it holds digests, no key text."""

    def __init__(self) -> None:
        self._until: OrderedDict[int, float] = OrderedDict()
        """Key digest → the loop time at which it is forgotten; the oldest first."""

    def __repr__(self) -> str:
        return f"<Unkept [{len(self._until)} keys]>"

    def __len__(self) -> int:
        return len(self._until)

    def __contains__(self, key: Key) -> bool:
        until = self._until.get(key.digest)
        if until is None:
            return False
        if asyncio.get_running_loop().time() < until:
            return True
        del self._until[key.digest]
        return False

    def note(self, key: Key) -> None:
        """Remembers that a value of the key could not be kept."""
        self.forget(key)
        while len(self._until) >= MOST_KEYS:
            del self._until[next(iter(self._until))]
        self._until[key.digest] = asyncio.get_running_loop().time() + REMEMBERED_SECONDS

    def forget(self, key: Key) -> None:
        """Notes that a value of the key was kept, or could have been."""
        self._until.pop(key.digest, None)
