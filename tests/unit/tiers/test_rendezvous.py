"""Weighted rendezvous hashing: stable for ever, shares follow weights, and only the partitions of a leaving name move."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachesvc.tiers.l3 import rendezvous
from cachesvc.tiers.l3.rendezvous import Rendezvous

TEXTS = [f"ws-{number}".encode() for number in range(20_000)]


def test_placement_is_the_same_in_every_release() -> None:
    """Golden: a change here moves every partition to another cell."""
    even = Rendezvous({"eu-1": 1.0, "eu-2": 1.0, "us-1": 1.0})
    uneven = Rendezvous({"eu-1": 1.0, "eu-2": 0.25, "us-1": 3.0})
    texts = [b"ws-1", b"ws-2", b"ws-3", b"ws-4", b"", b"/", "ümlaut".encode(), b"a" * 1024]
    assert " ".join(even.first(text) for text in texts) == "us-1 eu-1 eu-2 eu-1 eu-2 us-1 eu-1 us-1"
    assert " ".join(uneven.first(text) for text in texts) == "us-1 eu-1 eu-2 eu-1 eu-1 us-1 us-1 us-1"


def test_shares_follow_weights() -> None:
    counts = Counter(map(Rendezvous({"a": 1.0, "b": 2.0, "c": 5.0}).first, TEXTS))
    assert {name: round(count / len(TEXTS), 2) for name, count in counts.items()} == pytest.approx(
        {"a": 1 / 8, "b": 2 / 8, "c": 5 / 8}, abs=0.015
    )


def test_when_a_cell_leaves_only_its_share_moves() -> None:
    before = Rendezvous({f"c{number}": 1.0 for number in range(5)})
    after = Rendezvous({f"c{number}": 1.0 for number in range(4)})
    moved = [text for text in TEXTS if before.first(text) != after.first(text)]
    assert {before.first(text) for text in moved} == {"c4"}
    assert len(moved) / len(TEXTS) == pytest.approx(1 / 5, abs=0.01)


def test_there_must_be_something_to_choose_from() -> None:
    with pytest.raises(ValueError, match="nothing to choose from"):
        Rendezvous({}).first(b"ws-1")


names = st.text("abcdefgh0123-", min_size=1, max_size=6)
weights = st.dictionaries(names, st.floats(0.01, 100), min_size=2, max_size=8)


@given(weights, st.binary(max_size=40), st.data())
def test_a_leaving_name_moves_nobody_elses_text(
    cells: dict[str, float], text: bytes, data: st.DataObject
) -> None:
    leaving = data.draw(st.sampled_from(sorted(cells)))
    chosen = Rendezvous(cells).first(text)
    rest = {name: weight for name, weight in cells.items() if name != leaving}
    assert chosen == leaving or Rendezvous(rest).first(text) == chosen


@given(weights, st.binary(max_size=40), st.data())
def test_a_name_that_gains_weight_loses_no_text(
    cells: dict[str, float], text: bytes, data: st.DataObject
) -> None:
    growing = data.draw(st.sampled_from(sorted(cells)))
    before = Rendezvous(cells).first(text)
    after = Rendezvous({**cells, growing: cells[growing] * 2}).first(text)
    assert after in (before, growing)


@given(weights, st.binary(max_size=40))
def test_the_order_of_the_document_does_not_matter(cells: dict[str, float], text: bytes) -> None:
    assert Rendezvous(cells).first(text) == Rendezvous(dict(reversed(cells.items()))).first(text)


@pytest.mark.parametrize("digest", [0, 2**64 - 1])
def test_the_extreme_digests_have_finite_scores(monkeypatch: pytest.MonkeyPatch, digest: int) -> None:
    monkeypatch.setattr(rendezvous, "xxh3_64_intdigest", lambda _: digest)
    assert Rendezvous({"a": 1.0, "b": 2.0}).first(b"x") == "b"


def test_ranked_names_all_with_the_first_in_front() -> None:
    placed = Rendezvous({"eu-1": 1.0, "eu-2": 0.25, "us-1": 3.0})
    for text in TEXTS[:200]:
        ranked = placed.ranked(text)
        assert ranked[0][0] == placed.first(text)
        assert sorted(name for name, _ in ranked) == ["eu-1", "eu-2", "us-1"]
        assert [score for _, score in ranked] == sorted((score for _, score in ranked), reverse=True)
