"""A memo table answers as its function does, and keeps within its budget whatever it is asked."""

import tracemalloc

import pytest
from msgspec import Struct

from cachesvc.model.memo import MEMO_BYTES, memo
from cachesvc.web.replies import rendering


def test_a_result_is_computed_once() -> None:
    asked = []

    @memo
    def twice(text: str) -> str:
        asked.append(text)
        return text * 2

    assert [twice("a"), twice("b"), twice("a")] == ["aa", "bb", "aa"]
    assert asked == ["a", "b"]


def test_an_exception_is_raised_each_time() -> None:
    @memo
    def refused(text: str) -> str:
        raise ValueError(text)

    for _ in range(2):
        with pytest.raises(ValueError, match="a"):
            refused("a")


class Step(Struct, frozen=True):
    """A part of an argument."""

    text: str


@pytest.mark.parametrize("size", [1, 100, 3_000, 100_000])
def test_the_table_keeps_within_its_budget(size: int) -> None:
    @memo
    def shown(steps: tuple[Step, ...]) -> str:
        return ", ".join(step.text for step in steps)

    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(3 * MEMO_BYTES // (size + 400)):
            shown((Step(f"{number:08}".rjust(size, "x")), Step("b")))
        assert tracemalloc.get_traced_memory()[0] - before <= 1.1 * MEMO_BYTES
    finally:
        tracemalloc.stop()


def test_lists_of_many_tags_are_kept_within_a_budget() -> None:
    """A thousand lists of 128 tags of 256 bytes were 80 MB."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(500):
            rendering._groups_line(tuple(f"{number:08}-{nth}".ljust(256, "t") for nth in range(128)))
        assert tracemalloc.get_traced_memory()[0] - before <= 1.1 * MEMO_BYTES
    finally:
        tracemalloc.stop()
