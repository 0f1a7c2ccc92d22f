"""A full L1 takes its budget of memory, whatever callers and origins chose, and at most a tenth more."""

import pytest

from loadtests.bench.l1_shapes import SHAPES, measure

QUICK = ("all at once", "1 MiB")
"""The shapes that are furthest from an entry of the usual kind; the others are `slow`."""


@pytest.mark.parametrize(
    "shape", [shape if shape in QUICK else pytest.param(shape, marks=pytest.mark.slow) for shape in SHAPES]
)
def test_a_full_l1_takes_no_more_than_its_budget_and_a_tenth(shape: str) -> None:
    figures = measure(shape)
    assert figures["grown"] <= 1.1
    assert figures["trimmed"] <= 1.02
