"""A tier made of many servers: each key has its server on the ring."""

import asyncio
from collections.abc import Awaitable, Coroutine, Iterable, Mapping, Sequence
from typing import Any

from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import TierError
from cachesvc.tiers.l2.contract import Lookup, Pool
from cachesvc.tiers.l2.null import NullTier
from cachesvc.tiers.l2.ring import Ring


class Sharded:
    """Asks each key's own server, all servers of a call at the same time.

    No other server can take a server's place: a copy is on the key's own server or nowhere.
    """

    ring: Ring | None
    """The ring in force; None if there is no server. Then nothing is kept."""

    def __init__(self, ring: Ring | None, children: Mapping[str, Pool]) -> None:
        """Raises `ValueError` unless the ring and `children` name the same servers."""
        self._ring_of_many: Ring
        self._children: dict[str, Pool] = {}
        self._only: Pool | None = None
        """The server that has all keys, if there is one only."""
        self.change(ring, children)

    def change(self, ring: Ring | None, children: Mapping[str, Pool]) -> None:
        """Asks these servers from now on; a call under way ends at those that it began with.

        Starts and stops nothing. Raises `ValueError` as the constructor does; then nothing has changed.
        """
        named = set(ring.weights) if ring is not None else set()
        if named != set(children):
            raise ValueError(f"the ring has {sorted(named)}, the children are {sorted(children)}")
        self.ring = ring
        self._children = dict(children)
        self._only = next(iter(self._children.values()), NullTier()) if len(self._children) <= 1 else None
        if ring is not None:
            self._ring_of_many = ring

    @property
    def is_empty(self) -> bool:
        return self.ring is None

    def ask(self, key: Key) -> Awaitable[Lookup]:
        if self._only is not None:
            return self._only.ask(key)
        return self._children[self._ring_of_many.server(key.digest)].ask(key)

    # The three methods return the child's coroutine when one server is concerned, which is the common
    # case: one frame less per key.

    def get_many(self, keys: Sequence[Key]) -> Coroutine[Any, Any, Sequence[Lookup]]:
        if self._only is not None:
            return self._only.get_many(keys)
        if len(keys) == 1:
            return self._children[self._ring_of_many.server(keys[0].digest)].get_many(keys)
        return self._get_from_several(keys)

    async def _get_from_several(self, keys: Sequence[Key]) -> Sequence[Lookup]:
        places, children = self._places_by_server(keys), self._children
        answers = await asyncio.gather(
            *(children[server].get_many([keys[place] for place in found]) for server, found in places.items())
        )
        lookups: list[Lookup] = [None] * len(keys)
        for found, answer in zip(places.values(), answers, strict=True):
            for place, lookup in zip(found, answer, strict=True):
                lookups[place] = lookup
        return lookups

    def set_many(self, items: Sequence[tuple[Key, Entry]]) -> Coroutine[Any, Any, Sequence[TierError]]:
        if self._only is not None:
            return self._only.set_many(items)
        if len(items) == 1:
            return self._children[self._ring_of_many.server(items[0][0].digest)].set_many(items)
        places = self._places_by_server([key for key, _ in items])
        return _failures_of(
            self._children[server].set_many([items[place] for place in found])
            for server, found in places.items()
        )

    def delete_many(self, keys: Sequence[Key]) -> Coroutine[Any, Any, Sequence[TierError]]:
        if self._only is not None:
            return self._only.delete_many(keys)
        if len(keys) == 1:
            return self._children[self._ring_of_many.server(keys[0].digest)].delete_many(keys)
        places = self._places_by_server(keys)
        return _failures_of(
            self._children[server].delete_many([keys[place] for place in found])
            for server, found in places.items()
        )

    def _places_by_server(self, keys: Sequence[Key]) -> dict[str, list[int]]:
        server_of = self._ring_of_many.server
        places: dict[str, list[int]] = {}
        for place, key in enumerate(keys):
            places.setdefault(server_of(key.digest), []).append(place)
        return places

    async def start(self) -> None:
        for child in self._children.values():
            await child.start()

    async def stop(self) -> None:
        """Stops all children, then raises the first error if there was one."""
        ends = await asyncio.gather(
            *(child.stop() for child in self._children.values()), return_exceptions=True
        )
        for end in ends:
            if isinstance(end, BaseException):
                raise end

    def __repr__(self) -> str:
        return f"<Sharded {self._children}>"


async def _failures_of(calls: Iterable[Coroutine[Any, Any, Sequence[TierError]]]) -> Sequence[TierError]:
    return [failure for failures in await asyncio.gather(*calls) for failure in failures]
