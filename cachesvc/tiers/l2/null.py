"""A tier that holds nothing, for a region without a pool."""

import asyncio
from collections.abc import Awaitable, Sequence

from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import TierError
from cachesvc.tiers.l2.contract import Lookup


class NullTier:
    """Answers every get with a miss and drops every entry that is set."""

    is_empty = True

    def ask(self, key: Key) -> Awaitable[Lookup]:
        answer: asyncio.Future[Lookup] = asyncio.get_running_loop().create_future()
        answer.set_result(None)
        return answer

    async def get_many(self, keys: Sequence[Key]) -> Sequence[Lookup]:
        return [None] * len(keys)

    async def set_many(self, items: Sequence[tuple[Key, Entry]]) -> Sequence[TierError]:
        return ()

    async def delete_many(self, keys: Sequence[Key]) -> Sequence[TierError]:
        return ()

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass
