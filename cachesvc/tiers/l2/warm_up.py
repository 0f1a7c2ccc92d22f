"""A changed ring that is warmed up by the ring before it.

    a key's server now ──► hit: answered
          │ miss
          ▼
    its server on the ring before, if that is another one ──► hit: answered, and copied to the first

Writes and deletes go to the key's server now. What a former server has missed meanwhile is judged
as every copy of L2 is. After WarmUpRoute of mcrouter.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeAlias

from msgspec import Struct

from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import TierError
from cachesvc.tiers.l2.contract import Lookup, Pool
from cachesvc.tiers.l2.ring import Ring

MayHave: TypeAlias = Callable[[Key, Entry], bool]
"""True if a copy may be kept now. A copy that is refused must not replace a younger one."""


class WarmUpTally(Struct):
    """Keys that former servers were asked for, since the start."""

    hits: int = 0
    misses: int = 0
    errors: int = 0
    copied: int = 0
    """Copies that were sent to the server that has the key now."""


class WarmUp:
    """The servers of a ring that is not in force any more, while they are asked on misses."""

    def __init__(
        self,
        ring: Ring,
        children: Mapping[str, Pool],
        tally: WarmUpTally,
        may_have: MayHave,
        spawn: Callable[[Coroutine[Any, Any, object], str], object],
    ) -> None:
        """`spawn` runs work behind an answer, as a task of this name."""
        self.ring = ring
        self._children = children
        self._tally = tally
        self._may_have = may_have
        self._spawn = spawn

    def __repr__(self) -> str:
        return f"<WarmUp by {self.ring!r}>"

    async def find(self, key: Key, now: Pool) -> Lookup:
        """Returns the copy of the key's former server; None if `now` is that one."""
        former = self._children[self.ring.server(key.digest)]
        if former is now:
            return None
        found = await former.ask(key)
        self._note([(key, found)], now)
        return found

    async def find_many(self, keys: Sequence[Key], now: Pool) -> Sequence[Lookup]:
        """Does what `find` does for each key, at all former servers at the same time."""
        places: dict[str, list[int]] = {}
        for place, key in enumerate(keys):
            places.setdefault(self.ring.server(key.digest), []).append(place)
        lookups: list[Lookup] = [None] * len(keys)
        asked = [(self._children[server], those) for server, those in places.items()]
        asked = [(former, those) for former, those in asked if former is not now]
        answers = await asyncio.gather(
            *(former.get_many([keys[place] for place in those]) for former, those in asked)
        )
        for (_, those), found in zip(asked, answers, strict=True):
            for place, lookup in zip(those, found, strict=True):
                lookups[place] = lookup
            self._note([(keys[place], lookups[place]) for place in those], now)
        return lookups

    def _note(self, found: Sequence[tuple[Key, Lookup]], now: Pool) -> None:
        copies = [(key, lookup) for key, lookup in found if isinstance(lookup, Entry)]
        misses = sum(lookup is None for _, lookup in found)
        self._tally.hits += len(copies)
        self._tally.misses += misses
        self._tally.errors += len(found) - len(copies) - misses
        if useful := [(key, entry) for key, entry in copies if self._may_have(key, entry)]:
            self._tally.copied += len(useful)
            self._spawn(now.set_many(useful), "copy to a new memcached server")


class Warmed:
    """A server of the ring now, whose misses are asked for at the ring before.

    A failure of a former server is a miss. `start` and `stop` are the child's own affair.
    """

    def __init__(self, child: Pool, warm_up: WarmUp) -> None:
        self.child = child
        self._warm_up = warm_up

    def __repr__(self) -> str:
        return f"<Warmed {self.child!r}>"

    is_empty = False

    def ask(self, key: Key) -> Awaitable[Lookup]:
        return self._ask(key)

    async def _ask(self, key: Key) -> Lookup:
        found = await self.child.ask(key)
        if found is not None:
            return found
        former = await self._warm_up.find(key, self.child)
        return former if isinstance(former, Entry) else None

    async def get_many(self, keys: Sequence[Key]) -> Sequence[Lookup]:
        found = list(await self.child.get_many(keys))
        missed = [place for place, lookup in enumerate(found) if lookup is None]
        if missed:
            former = await self._warm_up.find_many([keys[place] for place in missed], self.child)
            for place, lookup in zip(missed, former, strict=True):
                found[place] = lookup if isinstance(lookup, Entry) else None
        return found

    def set_many(self, items: Sequence[tuple[Key, Entry]]) -> Coroutine[Any, Any, Sequence[TierError]]:
        return self.child.set_many(items)

    def delete_many(self, keys: Sequence[Key]) -> Coroutine[Any, Any, Sequence[TierError]]:
        return self.child.delete_many(keys)

    async def start(self) -> None:
        await self.child.start()

    async def stop(self) -> None:
        await self.child.stop()
