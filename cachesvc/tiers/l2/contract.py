"""The contracts between the paths and what they stand on. Batch-first: everything remote takes many at once.

A miss is an answer (`None`, `Miss`), a failure is a `TierError`. A batch may fail in part, so in the results of a batch a
`TierError` stands as a *value* in the slots it concerns; these methods raise it only where the docstring says so.

Cancellation, for all of them: a cancelled caller leaves the exchange to end by itself (or its connection is closed); no
connection is ever left out of step.
"""

from collections.abc import Awaitable, Sequence
from typing import Protocol, TypeAlias

from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import TierError

Lookup: TypeAlias = Entry | TierError | None


class Tier(Protocol):
    """A holder of copies, or a route made of tiers. It judges nothing: expiry and fences are the reader's to check."""

    async def get_many(self, keys: Sequence[Key]) -> Sequence[Lookup]:
        """What is held, in the order of `keys`: an entry, `None` for a miss, a `TierError` for no answer. Never raises it."""
        ...

    async def set_many(self, items: Sequence[tuple[Key, Entry]]) -> Sequence[TierError]:
        """Keep these until their `kept_until`. Returns the failures; an entry the tier cannot hold (too large) is dropped."""
        ...

    async def delete_many(self, keys: Sequence[Key]) -> Sequence[TierError]:
        """Drop these; absent ones are fine. Frees memory and saves a round trip; correctness never depends on it."""
        ...

    async def start(self) -> None:
        """Never fails because a server is down: it connects when it is first used, and again after a failure."""
        ...

    async def stop(self) -> None:
        """Close what `start` opened. At most once, after `start`."""
        ...


class Pool(Tier, Protocol):
    """A tier that takes single keys as well, for callers that would rather be called back than wait in a task."""

    def ask(self, key: Key) -> Awaitable[Lookup]:
        """As `get_many` of one key. Where it batches, this is a future already: no coroutine and no task per key."""
        ...
