"""Whatever is merged in whatever order: the sketch never makes a fence look older, and the numbered merges never lose one."""

from collections import defaultdict

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cachesvc.coherence.fence_sketch import FenceSketch
from cachesvc.coherence.recent_merges import RecentMerges

SLOTS = 4
CAPACITY = 8
WINDOW_US = 20
# Few slots, so that collisions in one row and in both are common.
digests = st.builds(lambda low, high: high << 32 | low, st.integers(0, 11), st.integers(0, 11))
ALL_DIGESTS = [high << 32 | low for high in range(12) for low in range(12)]


class SketchMachine(RuleBasedStateMachine):
    """Beside the sketch stands an exact dict of the fences."""

    def __init__(self) -> None:
        super().__init__()
        self.sketch = FenceSketch(SLOTS)
        self.fences: dict[int, int] = {}

    @rule(digest=digests, at=st.integers(0, 1000))
    def merge(self, digest: int, at: int) -> None:
        self.sketch.merge(digest, at)
        self.fences[digest] = max(at, self.fences.get(digest, 0))

    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        if self.fences:
            digest = data.draw(st.sampled_from(sorted(self.fences)))
            before = [self.sketch.query(other) for other in ALL_DIGESTS]
            self.sketch.merge(digest, self.fences[digest])
            assert [self.sketch.query(other) for other in ALL_DIGESTS] == before

    @invariant()
    def no_fence_looks_older_than_it_is(self) -> None:
        assert all(self.sketch.query(digest) >= at for digest, at in self.fences.items())

    @invariant()
    def an_answer_is_the_smaller_of_what_was_merged_into_the_two_slots(self) -> None:
        rows: tuple[defaultdict[int, int], defaultdict[int, int]] = (defaultdict(int), defaultdict(int))
        for digest, at in self.fences.items():
            rows[0][digest % SLOTS] = max(rows[0][digest % SLOTS], at)
            rows[1][(digest >> 32) % SLOTS] = max(rows[1][(digest >> 32) % SLOTS], at)
        for digest in ALL_DIGESTS:
            assert self.sketch.query(digest) == min(rows[0][digest % SLOTS], rows[1][(digest >> 32) % SLOTS])


class RecentMergesMachine(RuleBasedStateMachine):
    """Beside the rings stands the whole history: a list of (digest, time), number n at n - 1."""

    def __init__(self) -> None:
        super().__init__()
        self.recent = RecentMerges(WINDOW_US, CAPACITY)
        self.history: list[tuple[int, int]] = []
        self.forgotten = 0
        self.now = 1000

    @rule(digest=st.integers(0, 5), passed=st.integers(0, 5))
    def merge(self, digest: int, passed: int) -> None:
        self.now += passed
        self.recent.add(digest, self.now)
        self.history.append((digest, self.now))
        self.forgotten = max(self.forgotten, len(self.history) - CAPACITY)

    @rule(passed=st.integers(0, 30))
    def expire(self, passed: int) -> None:
        self.now += passed
        self.recent.expire(self.now)
        self.forgotten = max(self.forgotten, sum(time < self.now - WINDOW_US for _, time in self.history))

    @invariant()
    def every_range_is_answered_as_the_history_does_or_yes_if_it_is_forgotten(self) -> None:
        count = len(self.history)
        assert self.recent.count == count
        for after in range(max(0, count - CAPACITY - 2), count + 1):
            for upto in range(after, count + 1):
                merged = {digest for digest, _ in self.history[after:upto]}
                for digest in range(6):
                    expected = digest in merged or (upto > after and after < self.forgotten)
                    assert self.recent.between(after, upto, [digest]) is expected

    @invariant()
    def memory_is_that_of_the_remembered(self) -> None:
        assert len(self.recent) == len(self.history) - self.forgotten
        assert set(self.recent._newest) == {digest for digest, _ in self.history[self.forgotten :]}


TestSketch = SketchMachine.TestCase
TestSketch.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestRecentMerges = RecentMergesMachine.TestCase
TestRecentMerges.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
