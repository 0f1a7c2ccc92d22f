"""The sizes of values that reads are expected to bring."""

from cachesvc.model.entry import Key
from cachesvc.tiers.value_sizes import LARGE_BYTES, MOST_READS, UNMET_BYTES, ValueSizes

KEYS = [Key.of("pages", f"k{number}") for number in range(10)]


def test_nothing_is_known_of_a_namespace_at_first() -> None:
    assert ValueSizes().expected(KEYS) == 10 * UNMET_BYTES


def test_a_key_that_was_not_met_has_the_mean_of_its_namespace() -> None:
    sizes = ValueSizes()
    sizes.learn("pages", 10, 1000)
    assert sizes.expected(KEYS) == 1000
    sizes.learn("pages", 90, 0)
    assert sizes.expected(KEYS) == 100, "a miss has no bytes"
    assert sizes.expected([Key.of("docs", "k")]) == UNMET_BYTES


def test_the_mean_is_that_of_the_last_reads() -> None:
    sizes = ValueSizes()
    sizes.learn("pages", MOST_READS, MOST_READS * 1000)
    for _ in range(20):
        sizes.learn("pages", MOST_READS, 0)
    assert sizes.expected(KEYS) == 0


def test_a_large_value_that_was_met_counts_by_itself() -> None:
    sizes = ValueSizes()
    sizes.learn("pages", 100, 0)
    sizes.met(KEYS[0], 500_000)
    assert sizes.is_large(KEYS[0])
    assert sizes.expected(KEYS) == sizes.of_large(KEYS) == 500_000
    sizes.met(KEYS[0], LARGE_BYTES - 1)
    assert sizes.of_large(KEYS) == 0
