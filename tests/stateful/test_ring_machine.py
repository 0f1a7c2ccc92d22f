"""Any sequence of servers that join, leave and change weight moves only the keys it must."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cachesvc.model.digest import digest
from cachesvc.tiers.l2.ring import Ring

KEYS = [digest(b"key-%d" % number) for number in range(400)]
NAMES = st.sampled_from(["a", "b", "mc-0", "mc-1", "cache.eu-west", "ключ"])
PARTS = st.sampled_from([0.1, 0.5, 1, 2.5])


class RingMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.weights: dict[str, float] = {}
        self.ring = Ring({"nobody": 1})
        self.owners: dict[int, str] = {}

    @initialize(name=NAMES, weight=PARTS)
    def start(self, name: str, weight: float) -> None:
        self.weights = {name: weight}
        self.rebuild()

    def rebuild(self) -> dict[int, str]:
        """Builds the new ring; the owners before it."""
        before = self.owners
        self.ring = Ring(self.weights)
        self.owners = {key: self.ring.server(key) for key in KEYS}
        return before

    def moved(self, before: dict[int, str]) -> set[tuple[str, str]]:
        return {(before[key], now) for key, now in self.owners.items() if before[key] != now}

    @rule(name=NAMES, weight=PARTS)
    def join_or_reweigh(self, name: str, weight: float) -> None:
        old = self.weights.get(name, 0)
        self.weights[name] = weight
        for loser, winner in self.moved(self.rebuild()):
            assert (winner if weight > old else loser) == name, (
                "keys moved between servers that did not change"
            )

    @rule(name=NAMES)
    def leave(self, name: str) -> None:
        if name in self.weights and len(self.weights) > 1:
            del self.weights[name]
            for loser, _ in self.moved(self.rebuild()):
                assert loser == name, "a key moved whose server stayed"

    @rule(order=st.randoms(use_true_random=False))
    def shuffle(self, order: object) -> None:
        names = list(self.weights)
        order.shuffle(names)  # type: ignore[attr-defined]  # a random.Random by another name
        self.weights = {name: self.weights[name] for name in names}
        assert not self.moved(self.rebuild()), "placement depends on the order of the pool"

    @invariant()
    def every_owner_is_in_the_pool(self) -> None:
        assert set(self.owners.values()) <= self.weights.keys()


RingMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=15, deadline=None)
TestRing = RingMachine.TestCase
