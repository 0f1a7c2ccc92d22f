"""The contract of an L2 tier. Every method takes many keys at once.

A miss is an answer (`None`), a failure is a `TierError`. A batch may fail in part, so in the
results of a batch a `TierError` stands as a *value* in the places that it concerns; a method raises
it only where its docstring says so.

Cancellation, for all methods: the exchange of a cancelled caller ends by itself, or its connection
is closed. A connection is never left out of step.
"""

from collections.abc import Awaitable, Sequence
from typing import Protocol, TypeAlias

from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import TierError

Lookup: TypeAlias = Entry | TierError | None
"""The answer for one key: an entry, a failure, or None for a miss."""


class Tier(Protocol):
    """A holder of copies, or a wrapper of tiers.

    A tier judges nothing: expiry and fences are for the reader to check.
    """

    async def get_many(self, keys: Sequence[Key]) -> Sequence[Lookup]:
        """Returns the copies, in the order of `keys`. Never raises `TierError`.

        Each place holds an entry, `None` for a miss, or a `TierError` if there was no answer.
        """
        ...

    async def set_many(self, items: Sequence[tuple[Key, Entry]]) -> Sequence[TierError]:
        """Keeps these entries until their `kept_until`. Returns the failures.

        An entry that the tier cannot hold (too large) is dropped, which is no failure.
        """
        ...

    async def delete_many(self, keys: Sequence[Key]) -> Sequence[TierError]:
        """Drops the copies of these keys; a key without a copy is fine. Returns the failures.

        Deleting frees memory and saves a round trip; correctness never depends on it.
        """
        ...

    async def start(self) -> None:
        """Never fails because a server is down.

        A tier connects when it is first used, and again after a failure.
        """
        ...

    async def stop(self) -> None:
        """Closes what `start` opened. Called at most once, after `start`."""
        ...


class Pool(Tier, Protocol):
    """A tier that takes single keys as well, without a task per key."""

    @property
    def is_empty(self) -> bool:
        """True if the tier has no server now, so that nothing is kept."""
        ...

    def ask(self, key: Key) -> Awaitable[Lookup]:
        """Returns the awaitable answer for one key, as `get_many` would answer it.

        Where the tier batches, the awaitable is a future: no coroutine and no task per key.
        """
        ...
