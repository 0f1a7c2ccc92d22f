"""A room of L1: the entries of one namespace, in shards, and its limits.

Which of its entries a room gives up is decided by its shards and by going round them; which room
gives one up is decided by `fair_shares.py`.
"""

from collections import OrderedDict
from collections.abc import Callable, MutableMapping, Sequence
from functools import partial
from itertools import islice
from typing import TypeAlias, TypeGuard

from cachetools import Cache

from cachesvc.config.l1_rooms import RoomBytes
from cachesvc.model.entry import Entry, Key, digests_of, ids_of
from cachesvc.tiers.l1.lru_shard import LruShard

Shard: TypeAlias = Cache[bytes, Entry]


class Room:
    """Entries by `Key.id`. The owner of the room keeps its sums `items` and `bytes`.

    The number of shards is a power of two. They are made once and never replaced, not even by
    `clear`.
    """

    def __init__(self, shards: Sequence[Shard], limits: RoomBytes, budget: int, max_entries: int) -> None:
        self.shards = [_entries_of(shard) for shard in shards]
        self.getters: list[Callable[[bytes], Entry | None]] = [shard.get for shard in shards]
        self.peekers = [_peek_of(shard) for shard in shards]
        self._poppers = [_pop_of(shard) for shard in shards]
        self._is_lru = all(isinstance(entries, OrderedDict) for entries in self.shards)
        self.mask = len(shards) - 1
        self.guaranteed = limits.guaranteed
        self.guaranteed_entries = max_entries * limits.guaranteed // budget
        """The guarantee where the number of entries is what L1 is full of: the same share."""
        self.at_most = limits.at_most
        self.largest = min(budget // 10, limits.at_most)
        """The largest charge of an entry that is kept."""
        self.always = budget
        """A charge up to this fits even if the other rooms use all that they are guaranteed."""
        self.items = 0
        self.bytes = 0
        self._victims_from = 0

    def get(self, key: Key) -> Entry | None:
        """Returns the copy, fresh or not; the copy becomes the most recently used."""
        return self.getters[key.digest & self.mask](key.id)

    def get_many(self, keys: Sequence[Key]) -> list[Entry | None]:
        """Returns what `get` returns for each of these keys, in order.

        What `LruShard.get` does is done here by hand: two calls per key cost as much as the rest.
        """
        if not self._is_lru:
            return [self.get(key) for key in keys]
        shards, mask = self.shards, self.mask
        found: list[Entry | None] = []
        for key_id, digest in zip(ids_of(keys), digests_of(keys), strict=True):
            entries = shards[digest & mask]
            if (entry := entries.get(key_id)) is not None:
                entries.move_to_end(key_id)  # type: ignore[attr-defined]  # each is an OrderedDict
            found.append(entry)
        return found

    def pop(self) -> tuple[bytes, Entry]:
        """Removes and returns an entry, in turn of each shard. There must be one."""
        while True:
            place = self._victims_from
            self._victims_from = place + 1 & self.mask
            if self.shards[place]:
                return self._poppers[place]()

    def clear(self) -> None:
        for shard in self.shards:
            shard.clear()
        self.items = self.bytes = 0

    def slice(self, place: int, start: int, limit: int) -> list[bytes]:
        """Returns up to `limit` key ids of a shard, from its `start`-th oldest on."""
        return list(islice(self.shards[place].keys(), start, start + limit))

    def copies(self, place: int) -> list[tuple[bytes, Entry]]:
        """Returns the copies of a shard by key id. Nothing changes."""
        peek = self.peekers[place]
        found = ((key_id, peek(key_id)) for key_id in list(self.shards[place].keys()))
        return [(key_id, entry) for key_id, entry in found if entry is not None]


def _entries_of(shard: Shard) -> MutableMapping[bytes, Entry]:
    """Returns where to put and delete: of an exact LRU the dict itself, without a call."""
    return shard.entries if _is_plain_lru(shard) else shard


def _is_plain_lru(shard: Shard) -> TypeGuard[LruShard[bytes, Entry]]:
    return isinstance(shard, LruShard) and not shard.is_sized


def _peek_of(shard: Shard) -> Callable[[bytes], Entry | None]:
    if _is_plain_lru(shard):
        return shard.entries.get
    return partial(_stored, shard)


def _pop_of(shard: Shard) -> Callable[[], tuple[bytes, Entry]]:
    return partial(shard.entries.popitem, last=False) if _is_plain_lru(shard) else shard.popitem


def _stored(shard: Shard, key_id: bytes) -> Entry | None:
    # The policies of cachetools reorder in their own `__getitem__`; that of the root class only reads.
    return Cache.__getitem__(shard, key_id) if key_id in shard else None
