"""A recorded trace becomes requests for the reference origin's documents."""

import gzip
from itertools import islice
from pathlib import Path

import pytest

from loadtests.load.keys import Part, keys_of
from loadtests.load.traces import repeated, requests_of


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"0,68\n17\n4,9\n"))
    return path


def test_a_line_is_a_key_with_or_without_a_size(trace: Path) -> None:
    assert list(requests_of(trace)) == ["doc-0", "doc-17", "doc-4"]


def test_it_begins_anew_when_it_has_ended(trace: Path) -> None:
    assert list(islice(repeated(trace), 5)) == ["doc-0", "doc-17", "doc-4", "doc-0", "doc-17"]


def test_an_empty_one_is_refused_and_not_repeated_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "empty.csv.gz"
    path.write_bytes(gzip.compress(b""))
    with pytest.raises(ValueError, match="empty trace"):
        repeated(path)


def test_each_request_of_it_is_made_by_one_of_the_processes(trace: Path) -> None:
    halves = [list(islice(keys_of(f"trace:{trace}", Part(index, 2), seed=1), 3)) for index in (0, 1)]
    assert halves == [["doc-0", "doc-4", "doc-17"], ["doc-17", "doc-0", "doc-4"]]
