"""Any sequence of uses leaves L1 with the entries, the order and the books that a plain model has."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import ClassVar
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cachesvc.config.l1_rooms import RoomBytes
from cachesvc.model.entry import Entry, Key
from cachesvc.model.footprint import footprint
from cachesvc.tiers.l1 import l1
from cachesvc.tiers.l1.l1 import L1
from tests.doubles.clocks import ManualClock

KEYS = tuple(Key.of(namespace, f"key-{number}") for number in range(20) for namespace in ("ns", "other"))
BUDGET = 10_000
MAX_ENTRIES = 12
SWEPT = 3
# From the smallest to above a tenth of the budget: twelve mid-sized ones are bounded by count, fewer large ones by bytes.
sizes = st.integers(0, 600)
lifetimes = st.integers(1, 50)


class L1Machine(RuleBasedStateMachine):
    """The model: an ordered mapping per shard, least recently used first; victims in turn."""

    keys = KEYS
    shards = 1
    rooms: ClassVar[Mapping[str, RoomBytes]] = l1.NO_ROOMS

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        with patch.object(l1, "SHARD_ENTRIES", 1 + MAX_ENTRIES // self.shards):
            self.l1 = L1(BUDGET, MAX_ENTRIES, self.clock, rooms=self.rooms)
        assert self.l1.statistics().shards == self.shards
        self.model: list[OrderedDict[Key, Entry]] = [OrderedDict() for _ in range(self.shards)]
        self.next_victim = 0
        self.evictions = 0
        self.expired = 0

    def shard_of(self, key: Key) -> OrderedDict[Key, Entry]:
        return self.model[key.digest % self.shards]

    def count(self) -> int:
        return sum(map(len, self.model))

    def charged(self) -> int:
        return sum(footprint(key.id, entry) for shard in self.model for key, entry in shard.items())

    def evict(self) -> None:
        shard = self.model[self.next_victim]
        self.next_victim = (self.next_victim + 1) % self.shards
        if shard:
            shard.popitem(last=False)
            self.evictions += 1

    @rule(data=st.data(), size=sizes, lifetime=lifetimes)
    def put(self, data: st.DataObject, size: int, lifetime: int) -> None:
        key = data.draw(st.sampled_from(self.keys))
        now = self.clock.now_us()
        entry = Entry(bytes(size), now, now + lifetime)
        charge = footprint(key.id, entry)
        kept = self.l1.put(key, entry)
        assert kept is (charge <= BUDGET // 10)
        self.shard_of(key).pop(key, None)
        if kept:
            while self.count() >= MAX_ENTRIES or self.charged() + charge > BUDGET:
                self.evict()
            self.shard_of(key)[key] = entry

    @rule(data=st.data())
    def get(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(self.keys))
        assert self.l1.get(key) is self.shard_of(key).get(key)
        if key in self.shard_of(key):
            self.shard_of(key).move_to_end(key)

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(self.keys))
        assert self.l1.delete(key) is (self.shard_of(key).pop(key, None) is not None)

    @rule(us=lifetimes)
    def time_passes(self, us: int) -> None:
        self.clock.advance(us=us)

    @rule()
    def sweep_all_in_steps(self) -> None:
        # A step may end a round that began long ago, so two rounds see everything that is there now.
        places = len(self.rooms) + 1
        steps = 2 * (MAX_ENTRIES // SWEPT + places * self.shards)
        dropped = sum(self.l1.sweep(self.clock.now_us(), SWEPT) for _ in range(steps))
        dead = [
            (shard, key)
            for shard in self.model
            for key, entry in shard.items()
            if entry.kept_until <= self.clock.now_us()
        ]
        for shard, key in dead:
            del shard[key]
        assert dropped == len(dead)
        self.expired += dropped

    @rule()
    def clear(self) -> None:
        self.l1.clear()
        for shard in self.model:
            shard.clear()

    @invariant()
    def it_holds_what_the_model_holds(self) -> None:
        held = {key: self.l1.peek(key) for key in KEYS if self.l1.peek(key)}
        assert held == {key: entry for shard in self.model for key, entry in shard.items()}

    @invariant()
    def the_books_are_right(self) -> None:
        assert (self.l1.items, self.l1.bytes) == (self.count(), self.charged())
        assert (self.l1.evictions, self.l1.expired) == (self.evictions, self.expired)

    @invariant()
    def the_namespaces_books_add_up(self) -> None:
        books = self.l1.by_namespace().values()
        assert sum(book.items for book in books) == self.l1.items
        assert sum(book.bytes for book in books) == self.l1.bytes
        assert sum(book.evictions for book in books) == self.l1.evictions


class ShardedL1Machine(L1Machine):
    """Without rooms, namespaces share the order of each shard."""

    shards = 4


class OneRoomMachine(L1Machine):
    """With a room for the only namespace, its limits change nothing below the whole budget."""

    keys = tuple(key for key in KEYS if key.namespace == "ns")
    shards = 2
    rooms: ClassVar[Mapping[str, RoomBytes]] = {"ns": RoomBytes(BUDGET // 3, BUDGET)}


TestL1 = L1Machine.TestCase
TestShardedL1 = ShardedL1Machine.TestCase
TestOneRoom = OneRoomMachine.TestCase
for case in (TestL1, TestShardedL1, TestOneRoom):
    case.settings = settings(max_examples=30, stateful_step_count=60, deadline=None)
