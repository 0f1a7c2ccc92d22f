"""Which key is asked for next, and how several processes share one source."""

from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from loadtests.load.keys import Part, keys_of


def first(form: str, count: int, part: Part | None = None, seed: int = 1) -> list[str]:
    return list(islice(keys_of(form, part or Part(), seed), count))


def test_zipf_draws_each_key_as_often_as_its_rank_says() -> None:
    drawn = Counter(first("zipf:4:1.0", 25_000))
    shares = [drawn[f"doc-{number}"] / 25_000 for number in range(4)]
    assert shares == pytest.approx([12 / 25, 6 / 25, 4 / 25, 3 / 25], abs=0.01)


def test_zipf_draws_no_key_beyond_its_number_and_with_exponent_0_all_alike() -> None:
    drawn = Counter(first("zipf:5:0", 20_000))
    assert set(drawn) == {f"doc-{number}" for number in range(5)}
    assert min(drawn.values()) > 3_700


def test_the_same_seed_draws_the_same_and_each_process_draws_its_own() -> None:
    form = "zipf:1000:1.1"
    assert first(form, 50, Part(1, 2)) == first(form, 50, Part(1, 2))
    assert first(form, 50, Part(0, 2)) != first(form, 50, Part(1, 2))
    assert first(form, 50, seed=1) != first(form, 50, seed=2)


def test_a_hot_key_is_all_there_is_for_every_process() -> None:
    assert first("hot:front:page", 3, Part(1, 2)) == ["front:page"] * 3


def test_a_scan_goes_round_and_processes_take_turns_in_it() -> None:
    assert first("scan:3", 5) == ["doc-0", "doc-1", "doc-2", "doc-0", "doc-1"]
    assert first("scan:4", 3, Part(0, 2)) == ["doc-0", "doc-2", "doc-0"]
    assert first("scan:4", 3, Part(1, 2)) == ["doc-1", "doc-3", "doc-1"]


@pytest.mark.parametrize(
    "form", ["", "zipf", "zipf:20000", "zipf:0:1.1", "zipf:9:-1", "scan:0", "scan:x", "hot:", "cold:a"]
)
def test_what_is_no_source_is_refused_when_it_is_made(form: str) -> None:
    with pytest.raises(ValueError, match=f"^'{form}': "):
        keys_of(form, Part(), seed=1)


def test_a_trace_that_is_not_there_is_refused_when_it_is_made(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No such file"):
        keys_of(f"trace:{tmp_path / 'none.csv.gz'}", Part(), seed=1)
