"""L1: the copies that this process holds, bounded by bytes and by count.

Keys are spread by digest over shards. Each shard is a `cachetools.Cache`, which chooses the entries
to evict (`lru_shard.py`, or another class: the policy is an argument). `L1` itself keeps the
totals: the charge of an entry is computed from the entry, so no size is stored per key.

Why shards: a dict stalls its process when it grows, and an `OrderedDict` stalls it longer: 19 ms at
87,000 entries and 74 ms at 350,000. At 32,768 entries it is about 1 ms. All shards share one
budget, or a large object would empty the shard that it falls into. Evictions go round the shards,
each giving its oldest entry: digests spread evenly, so the oldest entry of one shard is about as
old as the oldest of another. With one shard the order is exact LRU.

For short garbage collections, call `gc.freeze()` once after building an `L1`: keys and entries are
invisible to the collector, and then the shards, the only containers, are too. The shards are made
once and never replaced, not even by `clear`.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice

from cachetools import Cache
from msgspec import Struct

from cachesvc.model.clock import SECONDS, Clock
from cachesvc.model.entry import Entry, Key
from cachesvc.model.footprint import ENTRY_BYTES, footprint
from cachesvc.telemetry.metrics.histogram import AGES, Histogram
from cachesvc.tiers.l1.lru_shard import LruShard

AGE_SAMPLE = 0xF
"""One eviction in sixteen has its age measured: reading the clock would cost a quarter of
an eviction."""
SHARD_ENTRIES = 1 << 15
"""Entries that a shard is laid out for; the text above has the reason."""

Policy = Callable[[int], Cache[bytes, Entry]]
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
    """Entries above a tenth of the budget, which were not kept."""
    evicted_age_us: int
    """Time since the `as_of` of the entry evicted last. Below the common TTLs, L1 is too small
    for its traffic."""
    shards: int


class NamespaceTotals(Struct):
    """One namespace's part of L1."""

    items: int = 0
    bytes: int = 0
    evictions: int = 0
    """Entries dropped for room."""
    largest: int = 0
    """The largest charge of an entry that was ever kept, in bytes."""


class L1:
    """Entries by `Key.id`, at most `budget` bytes and `max_entries` of them.

    The counters are plain attributes to read. `L1` judges nothing: whether an entry is fresh and
    admissible is for the reader to check.
    """

    def __init__(self, budget: int, max_entries: int, clock: Clock, policy: Policy = LruShard) -> None:
        if budget < 1 or max_entries < 1:
            raise ValueError(f"L1 needs room for an entry: budget {budget} bytes, max_entries {max_entries}")
        self._budget = budget
        self._largest = budget // 10
        self._max_entries = max_entries
        self._clock = clock
        count = _shard_count(min(max_entries, budget // ENTRY_BYTES))
        self._mask = count - 1
        self._shards = [policy(max_entries) for _ in range(count)]
        self._getters: list[Callable[[bytes], Entry | None]] = [shard.get for shard in self._shards]
        self._peekers = [_peek_of(shard) for shard in self._shards]
        self._victims_from = 0
        self._swept = 0
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

    def __repr__(self) -> str:
        return f"<L1 [{self.items} items, {self.bytes} of {self._budget} bytes, {len(self._shards)} shards]>"

    def __len__(self) -> int:
        return self.items

    def get(self, key: Key) -> Entry | None:
        """Returns the copy, fresh or not; the copy becomes the most recently used."""
        return self._getters[key.digest & self._mask](key.id)

    def peek(self, key: Key) -> Entry | None:
        """Returns the copy and changes nothing."""
        return self._peekers[key.digest & self._mask](key.id)

    def put(self, key: Key, entry: Entry) -> bool:
        """Keeps this copy in place of any other copy of the key.

        Returns False if the entry is above a tenth of the budget; then no copy of the key is kept.
        """
        charge = footprint(key.id, entry)
        if charge > self._largest:
            self.rejected += 1
            self.delete(key)
            return False
        place = key.digest & self._mask
        if (held := self._peekers[place](key.id)) is not None:
            # Else an entry that replaces its own copy could be evicted to make room for itself.
            self._take_out(place, key.id, held)
        if self.items >= self._max_entries or self.bytes + charge > self._budget:
            self._make_room(charge)
        self._shards[place][key.id] = entry
        self.items += 1
        self.bytes += charge
        totals = self._totals.get(key.namespace) or self._new_totals(key.namespace)
        totals.items += 1
        totals.bytes += charge
        if charge > totals.largest:
            totals.largest = charge
        return True

    def delete(self, key: Key) -> bool:
        """Drops the copy; true if there was one."""
        return self._drop(key.digest & self._mask, key.id)

    def clear(self) -> None:
        """Drops all copies. The counters of past events stay."""
        for shard in self._shards:
            shard.clear()
        self.items = 0
        self.bytes = 0
        for totals in self._totals.values():
            totals.items = totals.bytes = 0

    def sweep(self, now_us: int, limit: int = 1000) -> int:
        """Drops entries that are past all use, and returns how many.

        Looks at up to `limit` entries, from where the last sweep stopped, and goes round all shards. An
        entry that is used or evicted between two sweeps may shift others out of sight until the next
        round. A list of a shard's keys would not miss them, but would hold the keys of evicted entries,
        which nobody is charged for. A sweep is never part of a put.
        """
        looked_at = list(islice(self._shards[self._swept].keys(), self._swept_to, self._swept_to + limit))
        peek = self._peekers[self._swept]
        dropped = 0
        for key_id in looked_at:
            entry = peek(key_id)
            if entry is not None and entry.kept_until <= now_us:
                dropped += self._drop(self._swept, key_id)
        self._swept_to += len(looked_at) - dropped
        if len(looked_at) < limit:
            self._swept, self._swept_to = self._swept + 1 & self._mask, 0
        self.expired += dropped
        return dropped

    def copies(self) -> Iterator[list[tuple[bytes, Entry]]]:
        """Yields all copies by key id, a shard at a time, as they stand at that moment.

        Nothing changes.
        """
        for shard, peek in zip(self._shards, self._peekers, strict=True):
            found = ((key_id, peek(key_id)) for key_id in list(shard.keys()))
            yield [(key_id, entry) for key_id, entry in found if entry is not None]

    def statistics(self) -> L1Statistics:
        return L1Statistics(
            items=self.items,
            bytes=self.bytes,
            budget=self._budget,
            evictions=self.evictions,
            expired=self.expired,
            rejected=self.rejected,
            evicted_age_us=self.evicted_age_us,
            shards=len(self._shards),
        )

    def by_namespace(self) -> Mapping[str, NamespaceTotals]:
        """The totals of every namespace that was ever held; the mapping is live, not a snapshot."""
        return self._totals

    def _new_totals(self, namespace: str) -> NamespaceTotals:
        totals = self._totals[namespace] = self._totals_by_id[namespace.encode()] = NamespaceTotals()
        return totals

    def _make_room(self, charge: int) -> None:
        while self.items >= self._max_entries or self.bytes + charge > self._budget:
            shard = self._shards[self._victims_from]
            self._victims_from = self._victims_from + 1 & self._mask
            if shard:
                self._evict_from(shard)

    def _evict_from(self, shard: Cache[bytes, Entry]) -> None:
        key_id, entry = shard.popitem()
        self._subtract(key_id, entry).evictions += 1
        self.evictions += 1
        if self.evictions & AGE_SAMPLE == 1:
            self.evicted_age_us = age_us = self._clock.now_us() - entry.as_of
            self.eviction_ages.observe(age_us / SECONDS)

    def _drop(self, place: int, key_id: bytes) -> bool:
        entry = self._peekers[place](key_id)
        if entry is None:
            return False
        self._take_out(place, key_id, entry)
        return True

    def _take_out(self, place: int, key_id: bytes, entry: Entry) -> None:
        del self._shards[place][key_id]
        self._subtract(key_id, entry)

    def _subtract(self, key_id: bytes, entry: Entry) -> NamespaceTotals:
        charge = footprint(key_id, entry)
        self.items -= 1
        self.bytes -= charge
        totals = self._totals_by_id[key_id[: key_id.index(b"/")]]
        totals.items -= 1
        totals.bytes -= charge
        return totals


def _shard_count(entries: int) -> int:
    count = 1
    while count * SHARD_ENTRIES < entries:
        count *= 2
    return count


def _peek_of(shard: Cache[bytes, Entry]) -> Callable[[bytes], Entry | None]:
    if isinstance(shard, LruShard):
        return shard.peek
    return partial(_stored, shard)


def _stored(shard: Cache[bytes, Entry], key_id: bytes) -> Entry | None:
    # The policies of cachetools reorder in their own `__getitem__`; that of the root class only reads.
    return Cache.__getitem__(shard, key_id) if key_id in shard else None
