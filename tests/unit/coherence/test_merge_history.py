from cachesvc.coherence.merge_history import Merged, MergeLog
from cachesvc.model.fence import Fence

A, B = Fence(11, at=100), Fence(22, at=200)


def test_it_tells_when_a_fence_was_merged_and_whose_feed_brought_it() -> None:
    log = MergeLog()
    log.note([A, B], "eu", 1000)
    log.note([Fence(11, at=300, soft=True)], "us", 2000)
    assert log.of(11) == [Merged(Fence(11, at=300, soft=True), "us", 2000), Merged(A, "eu", 1000)]
    assert log.of(33) == []


def test_a_fence_that_its_issuer_merges_and_the_feed_brings_again_came_the_first_time() -> None:
    log = MergeLog()
    log.note([Fence(11, at=100, placement=7)], "", 1000)
    log.note([Fence(11, at=100, unapplied=True)], "eu", 1500)
    assert [merged.merged_at for merged in log.of(11)] == [1000]


def test_whole_batches_are_forgotten_oldest_first_and_until_when_is_known() -> None:
    log = MergeLog(most=3)
    log.note([A, B], "eu", 1000)
    assert log.forgotten_until == 0
    log.note([A, B], "eu", 2000)
    assert (len(log), log.forgotten_until) == (2, 1000)
    assert [merged.merged_at for merged in log.of(11)] == [2000]


def test_of_a_batch_above_its_size_the_last_are_remembered() -> None:
    log = MergeLog(most=2)
    log.note([Fence(n, at=n) for n in range(5)], "eu", 1000)
    assert (log.of(2), len(log.of(3)), len(log)) == ([], 1, 2)
    assert log.forgotten_until == 1000


def test_batches_without_fences_are_not_kept() -> None:
    """They are counted by no bound."""
    log = MergeLog()
    for _ in range(10):
        log.note([], "eu", 1000)
    assert repr(log) == "<MergeLog [0 fences, 0 batches]>"
