"""A tier that holds nothing: for a region without a pool."""

from collections.abc import Sequence

from cachesvc.errors import TierError
from cachesvc.interfaces import Lookup
from cachesvc.model import Entry, Key


class NullTier:
    """Every get is a miss; what is set is gone."""

    async def ask(self, key: Key) -> Lookup:
        return (await self.get_many((key,)))[0]

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
