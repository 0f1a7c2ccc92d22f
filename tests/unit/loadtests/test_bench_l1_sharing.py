"""Traces that share an L1: what a trace is, how they are mixed, and the bar."""

import gzip
from pathlib import Path

import pytest

from loadtests.bench.l1_sharing import COMMITTED, generate, main, mixed, trace_of


def test_a_line_is_a_key_with_or_without_a_size_and_the_largest_size_counts(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,10\nb\na,30\n")
    trace = trace_of(path, 1)
    assert [key.id for key in trace.requests] == [b"n1/a", b"n1/b", b"n1/a"]
    assert {text: len(entry.value) for text, entry in trace.entries.items()} == {"a": 30, "b": 100}


def test_traces_end_together(tmp_path: Path) -> None:
    (tmp_path / "long.csv").write_text("a\nb\nc\nd\n")
    (tmp_path / "short.csv.gz").write_bytes(gzip.compress(b"x\ny\n"))
    traces = [trace_of(tmp_path / name, place) for place, name in enumerate(("long.csv", "short.csv.gz"))]
    assert "".join(key.text for _, key in mixed(traces)) == "axbcyd"


def test_the_committed_traces_are_those_that_are_generated(tmp_path: Path) -> None:
    generate(tmp_path)
    for name in ("steady.csv.gz", "moving.csv.gz"):
        assert gzip.decompress((tmp_path / name).read_bytes()) == gzip.decompress(
            (COMMITTED / name).read_bytes()
        )


def test_rooms_do_not_lose_what_lru_hits(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--budget", "5", "--guaranteed", "0%", "10%"]) == 0
    assert capsys.readouterr().out.count("LRU 59.89 %, rooms +") == 2
