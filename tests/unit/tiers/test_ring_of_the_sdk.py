"""The SDK and the service share no code here, so a test has to say that they agree: on digests, on the ring, on what moves."""

from collections import Counter

import pytest
from cachesvc_client.instances.ring import Ring
from cachesvc_client.near.near import target_digest
from cachesvc_client.requests.own_writes import key_digest

from cachesvc.model.digest import digest, key_id, namespace_id, tag_id
from cachesvc.tiers.l2.ring import Ring as ServiceRing

KEYS = ["a", "{ws-7}:block:42", "Grüße", "a/b", "x" * 1024, *(f"key-{nth}" for nth in range(20_000))]
DIGESTS = [digest(key_id("pages", key)) for key in KEYS]


def names(instances: int) -> list[str]:
    return [f"eu-{'abcdefghij'[nth]}" for nth in range(instances)]


def test_both_have_the_same_digest_of_keys_tags_and_namespaces() -> None:
    assert [key_digest("pages", key) for key in KEYS] == DIGESTS
    assert target_digest("pages#user:9") == digest(tag_id("pages", "user:9"))
    assert target_digest("pages") == digest(namespace_id("pages"))


def test_both_have_the_same_ring() -> None:
    ring, service = Ring(names(5)), ServiceRing(dict.fromkeys(names(5), 1.0))
    assert [ring.first(key) for key in DIGESTS] == [service.server(key) for key in DIGESTS]


@pytest.mark.parametrize("instances", range(2, 11))
def test_an_instance_that_leaves_or_joins_moves_its_own_keys_only_and_at_most_1_3_of_its_share(
    instances: int,
) -> None:
    everyone = names(instances)
    whole = Ring(everyone)
    for one in everyone:
        without = Ring([name for name in everyone if name != one])
        moved = [key for key in DIGESTS if whole.first(key) != without.first(key)]
        assert {whole.first(key) for key in moved} == {one}
        assert len(moved) / len(DIGESTS) <= 1.3 / instances


def test_the_keys_of_one_that_left_are_spread_over_all_the_others() -> None:
    ring = Ring(names(5))
    heirs = Counter(ring.preference(key)[1] for key in DIGESTS if ring.first(key) == "eu-c")
    assert set(heirs) == set(names(5)) - {"eu-c"}
