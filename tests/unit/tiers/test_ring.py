"""The ring: keys stay where they are when servers come and go, in every process and release."""

from collections import Counter

import pytest

from cachesvc.model.digest import digest
from cachesvc.tiers.l2.ring import Ring

KEYS = [digest(b"pages/key-%d" % number) for number in range(20_000)]
WEIGHTS = [1, 2, 0.5, 1, 1.5, 3, 1, 0.75, 2, 1]


def pool(servers: int, *, weighted: bool) -> dict[str, float]:
    return {f"mc-{number}": WEIGHTS[number] if weighted else 1 for number in range(servers)}


@pytest.mark.parametrize("weighted", [False, True], ids=["equal", "weighted"])
@pytest.mark.parametrize("servers", range(2, 11))
def test_when_one_of_n_leaves_only_its_keys_move_and_they_are_at_most_1_3_of_its_share(
    servers: int, weighted: bool
) -> None:
    weights = pool(servers, weighted=weighted)
    before = Ring(weights)
    for leaver in weights:
        after = Ring({name: weight for name, weight in weights.items() if name != leaver})
        moved = [key for key in KEYS if before.server(key) != after.server(key)]
        assert all(before.server(key) == leaver for key in moved)
        assert len(moved) / len(KEYS) <= 1.3 * weights[leaver] / sum(weights.values())


@pytest.mark.parametrize("weighted", [False, True], ids=["equal", "weighted"])
@pytest.mark.parametrize("servers", range(2, 11))
def test_shares_follow_the_weights(servers: int, weighted: bool) -> None:
    weights = pool(servers, weighted=weighted)
    owned = Counter(map(Ring(weights).server, KEYS))
    for name, weight in weights.items():
        assert owned[name] / len(KEYS) == pytest.approx(weight / sum(weights.values()), rel=0.3)


def test_the_keys_of_a_leaver_are_spread_over_all_who_stay() -> None:
    weights = pool(6, weighted=False)
    before, after = Ring(weights), Ring({name: 1 for name in weights if name != "mc-3"})
    heirs = Counter(after.server(key) for key in KEYS if before.server(key) == "mc-3")
    assert set(heirs) == weights.keys() - {"mc-3"}


def test_placement_is_the_same_in_every_release() -> None:
    ring = Ring({"mc-0": 1, "mc-1": 2, "mc-2": 0.5})
    owners = " ".join(ring.server(digest(b"pages/key-%d" % number)) for number in range(12))
    assert owners == "mc-1 mc-1 mc-1 mc-1 mc-0 mc-2 mc-1 mc-1 mc-1 mc-0 mc-2 mc-0"


def test_the_order_of_the_pool_does_not_matter() -> None:
    weights = pool(5, weighted=True)
    forwards, backwards = Ring(weights), Ring(dict(reversed(weights.items())))
    assert [forwards.server(key) for key in KEYS] == [backwards.server(key) for key in KEYS]


def test_a_key_belongs_to_the_first_point_at_or_after_it_and_past_the_last_to_the_first() -> None:
    # Points 0, 10, … 1590 are a's and 5, 15, … 1595 are b's.
    ring = Ring({"a": 1, "b": 1}, hash_point=lambda text: int(text[2:]) * 10 + (5 if text[:1] == b"b" else 0))
    owners = {key: ring.server(key) for key in (0, 1, 5, 6, 10, 1590, 1591, 1595, 1596, 2**64 - 1)}
    assert owners == {
        0: "a",
        1: "b",
        5: "b",
        6: "a",
        10: "a",
        1590: "a",
        1591: "b",
        1595: "b",
        1596: "a",
        2**64 - 1: "a",
    }


def test_one_server_owns_everything() -> None:
    assert {Ring({"only": 0.001}).server(key) for key in (0, 1 << 63, 2**64 - 1)} == {"only"}


@pytest.mark.parametrize(
    "weights", [{}, {"a": 0}, {"a": -1}, {"a": float("nan")}, {"a": float("inf")}, {"a": 65536}]
)
def test_an_impossible_pool_is_refused_when_the_ring_is_built(weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"a ring needs|'a' is"):
        Ring(weights)


def test_a_position_names_the_point_that_decides_and_who_would_have_the_key_without_its_server() -> None:
    weights = pool(4, weighted=True)
    ring = Ring(weights)
    for key in KEYS[:200]:
        point, heir = ring.position(key)
        assert ring.server(point) == ring.server(key)
        assert heir == Ring(
            {name: weight for name, weight in weights.items() if name != ring.server(key)}
        ).server(key)
    assert Ring({"alone": 1}).position(KEYS[0])[1] == "alone"


def test_past_the_last_point_comes_the_first() -> None:
    ring = Ring({"a": 1, "b": 1})
    assert ring.position(2**64 - 1) == ring.position(0)
