"""Keys stay with their instance when others come and go."""

import pytest
from cachesvc_client.instances.ring import Ring
from xxhash import xxh3_64_intdigest

KEYS = [xxh3_64_intdigest(b"pages/key-%d" % nth) for nth in range(2000)]


def test_the_next_preference_is_whose_the_key_is_once_those_before_are_gone() -> None:
    names = {"eu-a", "eu-b", "eu-c", "eu-d"}
    ring = Ring(names)
    for digest in KEYS[:200]:
        order = ring.preference(digest)
        assert set(order) == names
        for gone in range(1, 4):
            assert Ring(names - set(order[:gone])).first(digest) == order[gone]


def test_the_first_preference_is_its_own() -> None:
    ring = Ring(["a", "b", "c"])
    assert all(ring.preference(digest)[0] == ring.first(digest) for digest in KEYS)


def test_order_and_repetition_of_the_names_make_no_difference() -> None:
    one, other = Ring(["a", "b", "c"]), Ring(["c", "b", "a", "b"])
    assert [one.first(digest) for digest in KEYS] == [other.first(digest) for digest in KEYS]


def test_past_the_last_point_comes_the_first() -> None:
    ring = Ring(["a", "b"])
    assert ring.first(2**64 - 1) == ring.preference(2**64 - 1)[0] == ring.first(0)


def test_a_ring_of_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one name"):
        Ring([])
