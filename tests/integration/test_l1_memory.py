"""The figures that L1 was built for, in a fresh process with a million entries."""

import pytest

from loadtests.bench.l1_memory import measure


@pytest.mark.slow
def test_a_million_entries_cost_less_than_they_are_charged_and_no_pauses() -> None:
    figures = measure()
    assert figures["entries"] == 1_000_000
    assert figures["bytes_per_entry"] <= 450
    assert 0 < figures["gc_pause_ms"] <= 10
    assert figures["rss_to_charged"] <= 1.05
