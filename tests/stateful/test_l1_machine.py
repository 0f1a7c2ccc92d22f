"""Any sequence of uses leaves L1 with the entries, the order and the books that a plain model has."""

from collections import OrderedDict

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cachesvc.model.entry import Entry, Key
from cachesvc.model.footprint import footprint
from cachesvc.tiers.l1.l1 import L1
from tests.doubles.clocks import ManualClock

KEYS = [Key.of("ns", f"key-{number}") for number in range(30)]
BUDGET = 10_000
MAX_ENTRIES = 12
SWEPT = 3
keys = st.sampled_from(KEYS)
# From the smallest to above a tenth of the budget: twelve mid-sized ones are bounded by count, fewer large ones by bytes.
sizes = st.integers(0, 600)
lifetimes = st.integers(1, 50)


class L1Machine(RuleBasedStateMachine):
    """One shard, so the model is exact: an ordered mapping, least recently used first."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.l1 = L1(BUDGET, MAX_ENTRIES, self.clock)
        self.model: OrderedDict[Key, Entry] = OrderedDict()
        self.evictions = 0
        self.expired = 0

    def charged(self) -> int:
        return sum(footprint(key.id, entry) for key, entry in self.model.items())

    @rule(key=keys, size=sizes, lifetime=lifetimes)
    def put(self, key: Key, size: int, lifetime: int) -> None:
        now = self.clock.now_us()
        entry = Entry(bytes(size), now, now + lifetime)
        charge = footprint(key.id, entry)
        kept = self.l1.put(key, entry)
        assert kept is (charge <= BUDGET // 10)
        self.model.pop(key, None)
        if kept:
            while len(self.model) >= MAX_ENTRIES or self.charged() + charge > BUDGET:
                self.model.popitem(last=False)
                self.evictions += 1
            self.model[key] = entry

    @rule(key=keys)
    def get(self, key: Key) -> None:
        assert self.l1.get(key) is self.model.get(key)
        if key in self.model:
            self.model.move_to_end(key)

    @rule(key=keys)
    def delete(self, key: Key) -> None:
        assert self.l1.delete(key) is (self.model.pop(key, None) is not None)

    @rule(us=lifetimes)
    def time_passes(self, us: int) -> None:
        self.clock.advance(us=us)

    @rule()
    def sweep_all_in_steps(self) -> None:
        # A step may end a round that began long ago, so two rounds see everything that is there now.
        dropped = sum(
            self.l1.sweep(self.clock.now_us(), SWEPT) for _ in range(2 * (MAX_ENTRIES // SWEPT + 1))
        )
        dead = [key for key, entry in self.model.items() if entry.kept_until <= self.clock.now_us()]
        for key in dead:
            del self.model[key]
        assert dropped == len(dead)
        self.expired += dropped

    @rule()
    def clear(self) -> None:
        self.l1.clear()
        self.model.clear()

    @invariant()
    def it_holds_what_the_model_holds(self) -> None:
        assert {key: self.l1.peek(key) for key in KEYS if self.l1.peek(key)} == self.model

    @invariant()
    def the_books_are_right(self) -> None:
        assert (self.l1.items, self.l1.bytes) == (len(self.model), self.charged())
        assert (self.l1.evictions, self.l1.expired) == (self.evictions, self.expired)

    @invariant()
    def the_namespaces_books_add_up(self) -> None:
        books = self.l1.by_namespace().values()
        assert sum(book.items for book in books) == self.l1.items
        assert sum(book.bytes for book in books) == self.l1.bytes
        assert sum(book.evictions for book in books) == self.l1.evictions


TestL1 = L1Machine.TestCase
TestL1.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
