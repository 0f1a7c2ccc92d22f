"""L1 keeps within its budget, and nobody takes what a namespace has within its guarantee."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cachesvc.config.l1_rooms import RoomBytes
from cachesvc.model.entry import Entry, Key
from cachesvc.model.footprint import footprint
from cachesvc.tiers.l1 import l1
from cachesvc.tiers.l1.l1 import L1, NamespaceTotals
from tests.doubles.clocks import ManualClock

NAMES = ("a", "b", "c", "unnamed")
KEYS = [Key.of(name, f"key-{number}") for name in NAMES for number in range(15)]
BUDGET = 20_000
keys = st.sampled_from(KEYS)
# To above a tenth of the budget: about 13 large ones or 30 small ones fill it.
sizes = st.sampled_from([0, 10, 100, 400, 900, 1_500, 1_600])


@st.composite
def rooms(draw: st.DrawFn) -> dict[str, RoomBytes]:
    """Limits of three namespaces, whose guarantees are together not above the budget."""
    left, found = BUDGET, {}
    for name in NAMES[:3]:
        guaranteed = draw(st.integers(0, left))
        left -= guaranteed
        found[name] = RoomBytes(guaranteed, draw(st.integers(max(guaranteed, 1), BUDGET)))
    return found


class L1RoomsMachine(RuleBasedStateMachine):
    """Each put is judged by what it took from whom."""

    @initialize(limits=rooms(), max_entries=st.integers(1, 40), shard_entries=st.sampled_from([3, 1 << 15]))
    def build(self, limits: dict[str, RoomBytes], max_entries: int, shard_entries: int) -> None:
        self.limits, self.max_entries = limits, max_entries
        # The number of shards is chosen once, when an L1 is built.
        usual, l1.SHARD_ENTRIES = l1.SHARD_ENTRIES, shard_entries
        self.l1 = L1(BUDGET, max_entries, ManualClock(), rooms=limits)
        l1.SHARD_ENTRIES = usual

    def held(self, name: str) -> dict[Key, Entry]:
        found = {key: self.l1.peek(key) for key in KEYS if key.namespace == name}
        return {key: entry for key, entry in found.items() if entry is not None}

    def sizes_of(self, name: str) -> tuple[int, int]:
        """The bytes and the number of the entries of a namespace, counted anew."""
        held = self.held(name).items()
        return sum(footprint(key.id, entry) for key, entry in held), len(held)

    def guaranteed(self, name: str) -> tuple[int, int]:
        """The bytes and the entries that others leave to a namespace."""
        limits = self.limits.get(name)
        guaranteed = limits.guaranteed if limits else 0
        return guaranteed, self.max_entries * guaranteed // BUDGET

    @rule(key=keys, size=sizes)
    def put(self, key: Key, size: int) -> None:
        entry = Entry(bytes(size), 1, 2)
        charge = footprint(key.id, entry)
        others = [name for name in NAMES if name != key.namespace]
        before = {name: (self.held(name), *self.sizes_of(name)) for name in others}
        own = len(self.held(key.namespace))
        evicted = self.l1.evictions
        kept = self.l1.put(key, entry)
        assert self.l1.peek(key) is (entry if kept else None)
        limits = self.limits.get(key.namespace)
        if not kept:
            assert all(self.held(name) == before[name][0] for name in others), "refused, and took from others"
            assert self.l1.evictions == evicted, "refused, and evicted"
            assert len(self.held(key.namespace)) >= own - 1, "refused, and took more than the copy of the key"
            assert (
                charge > BUDGET // 10
                or (limits is not None and charge > limits.at_most)
                or self.is_crowded_out(key.namespace, charge)
            )
        for name in others:
            held, size_before, count_before = before[name]
            largest = max((footprint(one.id, entry) for one, entry in held.items()), default=0)
            if self.held(name) != held:
                # The last entry that was taken may have been the one on the edge of the guarantee.
                bytes_now, count_now = self.sizes_of(name)
                within_bytes, within_count = self.guaranteed(name)
                assert size_before > within_bytes or count_before > within_count
                assert bytes_now > within_bytes - largest or count_now > within_count - 1

    def is_crowded_out(self, name: str, charge: int) -> bool:
        """True if an entry would fit only in place of what others are guaranteed and use."""
        bytes_, count = charge, 1
        for other in NAMES:
            if other != name:
                used, entries = self.sizes_of(other)
                most_bytes, most_entries = self.guaranteed(other)
                bytes_ += min(used, most_bytes)
                count += min(entries, most_entries)
        return bytes_ > BUDGET or count > self.max_entries

    @rule(key=keys)
    def get(self, key: Key) -> None:
        assert self.l1.get(key) is self.l1.get_many([key])[0]

    @rule(key=keys)
    def delete(self, key: Key) -> None:
        held = self.l1.peek(key) is not None
        assert self.l1.delete(key) is held

    @rule()
    def sweep(self) -> None:
        assert self.l1.sweep(1) == 0

    @rule()
    def clear(self) -> None:
        self.l1.clear()

    @invariant()
    def the_accounts_are_exact(self) -> None:
        if not hasattr(self, "l1"):
            return
        books = self.l1.by_namespace()
        for name in NAMES:
            book = books.get(name, NamespaceTotals())
            assert (book.bytes, book.items) == self.sizes_of(name)
        assert self.l1.bytes == sum(book.bytes for book in books.values())
        assert self.l1.items == sum(book.items for book in books.values())
        assert self.l1.evictions == sum(book.evictions for book in books.values())
        assert self.l1.rejected == sum(book.rejected for book in books.values())
        copies = [key_id for shard in self.l1.copies() for key_id, _ in shard]
        assert sorted(copies) == sorted(key.id for name in NAMES for key in self.held(name))

    @invariant()
    def no_limit_is_exceeded(self) -> None:
        if not hasattr(self, "l1"):
            return
        assert self.l1.bytes <= BUDGET
        assert self.l1.items <= self.max_entries
        for name, limits in self.limits.items():
            assert self.sizes_of(name)[0] <= limits.at_most


TestL1Rooms = L1RoomsMachine.TestCase
TestL1Rooms.settings = settings(max_examples=40, stateful_step_count=50, deadline=None)
