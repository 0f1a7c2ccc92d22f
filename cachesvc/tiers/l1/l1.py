"""L1: the copies that this process holds, bounded by bytes and by count.

Entries lie in rooms: one for all namespaces, or one for each if the topology gives a namespace
limits of its own. An entry makes room for another in two decisions: `fair_shares.py` decides which
namespace gives way, and the room's shards which of its entries goes. A shard is a
`cachetools.Cache` (`lru_shard.py`, or another class: the policy is an argument). `L1` itself keeps
the totals: the charge of an entry is computed from the entry, so no size is stored per key.

Why shards: a dict stalls its process when it grows, and an `OrderedDict` stalls it longer: 19 ms at
87,000 entries and 74 ms at 350,000. At 32,768 entries it is about 1 ms. All shards share one
budget, or a large object would empty the shard that it falls into. Evictions go round the shards of
a room, each giving its oldest entry: digests spread evenly, so the oldest entry of one shard is
about as old as the oldest of another. With one room and one shard the order is exact LRU.

For short garbage collections, call `gc.freeze()` once after building an `L1`: keys and entries are
invisible to the collector, and then the shards, the only containers, are too. The shards are made
once and never replaced, not even by `clear`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

from msgspec import Struct

from cachesvc.config.l1_rooms import RoomBytes
from cachesvc.model.clock import SECONDS, Clock
from cachesvc.model.entry import Entry, Key
from cachesvc.model.footprint import ENTRY_BYTES, footprint
from cachesvc.telemetry.metrics.histogram import AGES, Histogram
from cachesvc.tiers.l1.fair_shares import FairShares
from cachesvc.tiers.l1.lru_shard import LruShard
from cachesvc.tiers.l1.room import Room, Shard

AGE_SAMPLE = 0xF
"""One eviction in sixteen has its age measured: reading the clock would cost a quarter of
an eviction."""
SHARD_ENTRIES = 1 << 15
"""Entries that a shard is laid out for; the text above has the reason."""
NO_ROOMS: Mapping[str, RoomBytes] = MappingProxyType({})

Policy = Callable[[int], Shard]
"""Makes a shard for at most so many entries. A shard chooses the entry to evict
(`popitem`) and may drop nothing on its own."""


class L1Statistics(Struct, frozen=True):
    """Counters since the start, and the state now."""

    items: int
    bytes: int
    """The sum of the entries' footprints, which `budget` bounds."""
    budget: int
    evictions: int
    """Entries dropped for room."""
    expired: int
    """Entries that a sweep dropped because their last use was over."""
    rejected: int
    """Entries that were not kept: above a tenth of the budget, above `at_most` of their
    namespace, or without a place beside what others are guaranteed."""
    evicted_age_us: int
    """Time since the `as_of` of the entry evicted last. Below the common TTLs, L1 is too small
    for its traffic."""
    shards: int
    """The shards of one room."""


class NamespaceTotals(Struct):
    """One namespace's part of L1."""

    guaranteed: int = 0
    """The bytes that no other namespace evicts."""
    at_most: int = 0
    """The most bytes that the namespace may have."""
    items: int = 0
    bytes: int = 0
    evicted_by_own: int = 0
    """Entries dropped because L1 was full, for an entry of the same namespace."""
    evicted_by_others: int = 0
    """Entries dropped because L1 was full, for an entry of another namespace."""
    evicted_at_limit: int = 0
    """Entries dropped because the namespace had `at_most`."""
    rejected: int = 0
    """Entries that were not kept (`L1Statistics.rejected`)."""
    largest: int = 0
    """The largest charge of an entry that was ever kept, in bytes."""

    @property
    def evictions(self) -> int:
        return self.evicted_by_own + self.evicted_by_others + self.evicted_at_limit


class _Rooms(dict[str, Room]):
    """Maps a namespace to its room; a namespace that was not given one, to the common room."""

    def __init__(self, common: Room) -> None:
        super().__init__()
        self.common = common

    def __missing__(self, namespace: str) -> Room:
        self[namespace] = self.common
        return self.common


class L1:
    """Entries by `Key.id`, at most `budget` bytes and `max_entries` of them.

    The counters are plain attributes to read. `L1` judges nothing: whether an entry is fresh and
    admissible is for the reader to check.
    """

    get: Callable[[Key], Entry | None]
    """Returns the copy, fresh or not; the copy becomes the most recently used."""

    def __init__(
        self,
        budget: int,
        max_entries: int,
        clock: Clock,
        policy: Policy = LruShard,
        rooms: Mapping[str, RoomBytes] = NO_ROOMS,
    ) -> None:
        """`rooms`: the limits of each namespace; without any, all namespaces share one room."""
        if budget < 1 or max_entries < 1:
            raise ValueError(f"L1 needs room for an entry: budget {budget} bytes, max_entries {max_entries}")
        self._budget = budget
        self._max_entries = max_entries
        self._clock = clock
        count = _shard_count(min(max_entries, budget // ENTRY_BYTES))
        self._mask = count - 1

        def room(limits: RoomBytes) -> Room:
            return Room([policy(max_entries) for _ in range(count)], limits, budget, max_entries)

        self._rooms = _Rooms(room(RoomBytes(0, budget)))
        self._rooms.update((name, room(limits)) for name, limits in rooms.items())
        self._each_room = [self._rooms.common, *(self._rooms[name] for name in rooms)]
        _set_always(self._each_room, budget, max_entries)
        self._shares = FairShares(self._each_room, budget, max_entries) if rooms else None
        self.get = self._get if rooms else self._rooms.common.get
        self._swept = 0
        """The place of the sweep: a shard, counted through all rooms."""
        self._swept_to = 0
        """The oldest entries of the shard `_swept` that this round has looked at."""
        self.items = 0
        self.bytes = 0
        self.evictions = 0
        self.expired = 0
        self.rejected = 0
        self.evicted_age_us = 0
        self.eviction_ages = Histogram.of(AGES)
        self._totals: dict[str, NamespaceTotals] = {}
        # The same totals by the bytes of a key id before its `/`: an evicted entry comes without a `Key`.
        self._totals_by_id: dict[bytes, NamespaceTotals] = {}
        for name in rooms:
            self._new_totals(name)

    def __repr__(self) -> str:
        rooms = f", {len(self._each_room) - 1} rooms" if len(self._each_room) > 1 else ""
        shards = f"{self._mask + 1} shards{rooms}"
        return f"<L1 [{self.items} items, {self.bytes} of {self._budget} bytes, {shards}]>"

    def __len__(self) -> int:
        return self.items

    def _get(self, key: Key) -> Entry | None:
        return self._rooms[key.namespace].getters[key.digest & self._mask](key.id)

    def get_many(self, keys: Sequence[Key]) -> list[Entry | None]:
        """Returns what `get` returns for each of these keys, which are of one namespace."""
        return self._rooms[keys[0].namespace].get_many(keys) if keys else []

    def peek(self, key: Key) -> Entry | None:
        """Returns the copy and changes nothing."""
        return self._rooms[key.namespace].peekers[key.digest & self._mask](key.id)

    def put(self, key: Key, entry: Entry) -> bool:
        """Keeps this copy in place of any other copy of the key.

        Returns False if the entry is not kept; then no copy of the key is kept. That is an entry above a
        tenth of the budget or above `at_most` of its namespace, and one that would fit only in place of
        entries that other namespaces are guaranteed.
        """
        key_id, namespace = key.id, key.namespace
        charge = footprint(key_id, entry)
        room = self._rooms[namespace]
        totals = self._totals.get(namespace) or self._new_totals(namespace)
        if charge > room.largest or not (charge <= room.always or self._can_place(room, charge)):
            self.rejected += 1
            totals.rejected += 1
            self.delete(key)
            return False
        place = key.digest & self._mask
        if (held := room.peekers[place](key_id)) is not None:
            # Else an entry that replaces its own copy could be evicted to make room for itself.
            self._take_out(room, place, key_id, held)
        elif self._shares is not None:
            self._shares.came(room, key_id)
        if (
            self.items >= self._max_entries
            or self.bytes + charge > self._budget
            or room.bytes + charge > room.at_most
        ):
            self._make_room(room, charge, totals)
        room.shards[place][key_id] = entry
        self.items += 1
        self.bytes += charge
        room.items += 1
        room.bytes += charge
        totals.items += 1
        totals.bytes += charge
        if charge > totals.largest:
            totals.largest = charge
        return True

    def delete(self, key: Key) -> bool:
        """Drops the copy; true if there was one."""
        return self._drop(self._rooms[key.namespace], key.digest & self._mask, key.id)

    def clear(self) -> None:
        """Drops all copies. The counters of past events stay."""
        for room in self._each_room:
            room.clear()
        self.items = 0
        self.bytes = 0
        for totals in self._totals.values():
            totals.items = totals.bytes = 0

    def drop(self, namespace: str) -> Iterator[int]:
        """Drops the copies of a namespace, one shard at each step, and yields how many there were."""
        room, prefix = self._rooms[namespace], f"{namespace}/".encode()
        for place in range(self._mask + 1):
            gone = [key_id for key_id, _ in room.copies(place) if key_id.startswith(prefix)]
            for key_id in gone:
                self._drop(room, place, key_id)
            yield len(gone)

    def sweep(self, now_us: int, limit: int = 1000) -> int:
        """Drops entries that are past all use, and returns how many.

        Looks at up to `limit` entries, from where the last sweep stopped, and goes round all shards. An
        entry that is used or evicted between two sweeps may shift others out of sight until the next
        round. A list of a shard's keys would not miss them, but would hold the keys of evicted entries,
        which nobody is charged for. A sweep is never part of a put.
        """
        dropped = 0
        while limit > 0:
            room, place = self._each_room[self._swept // (self._mask + 1)], self._swept & self._mask
            looked_at = room.slice(place, self._swept_to, limit)
            gone = self._drop_unusable(room, place, looked_at, now_us)
            dropped += gone
            self._swept_to += len(looked_at) - gone
            if len(looked_at) == limit:
                break
            limit -= len(looked_at) + 1  # a look at an empty shard takes time, too
            self._swept = (self._swept + 1) % (len(self._each_room) * (self._mask + 1))
            self._swept_to = 0
            if self._swept == 0:
                break
        self.expired += dropped
        return dropped

    def copies(self) -> Iterator[list[tuple[bytes, Entry]]]:
        """Yields all copies by key id, one shard of each room at a time.

        They stand as they are at that moment, and nothing changes. Digests spread the copies of each
        namespace evenly over what is yielded.
        """
        for place in range(self._mask + 1):
            yield [copy for room in self._each_room for copy in room.copies(place)]

    def used_last(self, budget: int) -> Iterator[list[tuple[bytes, Entry]]]:
        """Yields the copies that were used last, of about `budget` bytes in all.

        They come by key id, one shard of a room at a time, the longest unused first; each shard gives
        the same share of its copies. So whoever puts them into another L1 has the same order there.
        """
        share = min(1.0, budget / self.bytes) if self.bytes else 0.0
        for room in self._each_room:
            for place in range(self._mask + 1):
                copies = room.copies(place)
                yield copies[len(copies) - int(share * len(copies)) :]

    def statistics(self) -> L1Statistics:
        return L1Statistics(
            items=self.items,
            bytes=self.bytes,
            budget=self._budget,
            evictions=self.evictions,
            expired=self.expired,
            rejected=self.rejected,
            evicted_age_us=self.evicted_age_us,
            shards=self._mask + 1,
        )

    def by_namespace(self) -> Mapping[str, NamespaceTotals]:
        """The totals of every namespace that was ever held; the mapping is live, not a snapshot."""
        return self._totals

    def _new_totals(self, namespace: str) -> NamespaceTotals:
        room = self._rooms[namespace]
        totals = NamespaceTotals(room.guaranteed, room.at_most)
        self._totals[namespace] = self._totals_by_id[namespace.encode()] = totals
        return totals

    def _can_place(self, room: Room, charge: int) -> bool:
        return self._shares is not None and self._shares.can_place(room, charge)

    def _make_room(self, room: Room, charge: int, totals: NamespaceTotals) -> None:
        while room.bytes + charge > room.at_most < self._budget:
            self._evict_from(room).evicted_at_limit += 1
        shares = self._shares
        while (is_too_large := self.bytes + charge > self._budget) or self.items >= self._max_entries:
            giving = shares.giving_way(room, charge, is_counted=not is_too_large) if shares else room
            evicted = self._evict_from(giving, shares)
            if evicted is totals:
                evicted.evicted_by_own += 1
            else:
                evicted.evicted_by_others += 1

    def _evict_from(self, room: Room, shares: FairShares | None = None) -> NamespaceTotals:
        # The books are those of `_subtract`: a call less for each put into a full L1.
        key_id, entry = room.pop()
        charge = footprint(key_id, entry)
        self.evictions = evictions = self.evictions + 1
        if evictions & AGE_SAMPLE == 1:
            self.evicted_age_us = age_us = self._clock.now_us() - entry.as_of
            self.eviction_ages.observe(age_us / SECONDS)
        if shares is not None:
            shares.gave_way(room, key_id, charge)
        self.items -= 1
        self.bytes -= charge
        room.items -= 1
        room.bytes -= charge
        totals = self._totals_by_id[key_id[: key_id.index(b"/")]]
        totals.items -= 1
        totals.bytes -= charge
        return totals

    def _drop_unusable(self, room: Room, place: int, key_ids: list[bytes], now_us: int) -> int:
        peek = room.peekers[place]
        dropped = 0
        for key_id in key_ids:
            entry = peek(key_id)
            if entry is not None and entry.kept_until <= now_us:
                dropped += self._drop(room, place, key_id)
        return dropped

    def _drop(self, room: Room, place: int, key_id: bytes) -> bool:
        entry = room.peekers[place](key_id)
        if entry is None:
            return False
        self._take_out(room, place, key_id, entry)
        return True

    def _take_out(self, room: Room, place: int, key_id: bytes, entry: Entry) -> None:
        del room.shards[place][key_id]
        self._subtract(room, key_id, footprint(key_id, entry))

    def _subtract(self, room: Room, key_id: bytes, charge: int) -> NamespaceTotals:
        self.items -= 1
        self.bytes -= charge
        room.items -= 1
        room.bytes -= charge
        totals = self._totals_by_id[key_id[: key_id.index(b"/")]]
        totals.items -= 1
        totals.bytes -= charge
        return totals


def _set_always(rooms: list[Room], budget: int, max_entries: int) -> None:
    guaranteed = sum(room.guaranteed for room in rooms)
    guaranteed_entries = sum(room.guaranteed_entries for room in rooms)
    for room in rooms:
        has_an_entry = max_entries > guaranteed_entries - room.guaranteed_entries
        room.always = budget - (guaranteed - room.guaranteed) if has_an_entry else 0


def _shard_count(entries: int) -> int:
    count = 1
    while count * SHARD_ENTRIES < entries:
        count *= 2
    return count
