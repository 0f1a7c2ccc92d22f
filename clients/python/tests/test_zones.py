"""The instances of the client's own zone are asked, as long as enough of them are well."""

import random
from collections import Counter

import msgspec
import pytest
from cachesvc_client import Cache
from cachesvc_client.instances.endpoints import Endpoint, urls_of
from cachesvc_client.instances.region import Region
from xxhash import xxh3_64_intdigest

KEYS = [xxh3_64_intdigest(b"pages/key-%d" % nth) for nth in range(2000)]
ZONES = {f"{zone}{nth}": zone for zone in "abc" for nth in range(4)}
INSTANCES = {name: f"http://10.0.{ord(name[0])}.{name[1]}:8080" for name in ZONES}


def document(zones: dict[str, str], instances: dict[str, str] = INSTANCES) -> bytes:
    region = {"instances": instances, "zones": zones}
    return msgspec.json.encode({"here": {"region": "eu", "instance": "a0"}, "regions": {"eu": region}})


def learned(zone: str, zones: dict[str, str] = ZONES, instances: dict[str, str] = INSTANCES) -> Region:
    """The instances as a client in `zone` knows them, once all have answered their probes."""
    known = Region(urls_of("http://lb:8080"), random.Random(1), shared=False, zone=zone)
    known.learn(document(zones, instances))
    for endpoint in known.probes(0.0):
        endpoint.probed(0.001)
    known.probes(0.2)
    return known


def put_out(known: Region, *names: str, now: float = 1.0) -> list[Endpoint]:
    found = [known._instances[name] for name in names]
    for endpoint in found:
        endpoint.failed(now)
        endpoint.failed(now)
    known.probes(now + 0.2)
    return found


def asked(known: Region, now: float = 1.3) -> dict[str, float]:
    """The part of the keys that each instance is asked for, by its name."""
    names = {endpoint: name for name, endpoint in known._instances.items()}
    homes = Counter(names[known.home(key, now)] for key in KEYS)
    return {name: count / len(KEYS) for name, count in homes.items()}


def in_zone(parts: dict[str, float], zone: str) -> float:
    return sum(part for name, part in parts.items() if ZONES[name] == zone)


def test_only_the_own_zone_is_asked_and_each_key_at_one_instance() -> None:
    parts = asked(learned("b"))
    assert set(parts) == {"b0", "b1", "b2", "b3"}
    assert min(parts.values()) > 0.15
    two = learned("b"), learned("b")
    assert [str(two[0].home(key, 1.0).base) for key in KEYS] == [
        str(two[1].home(key, 1.0).base) for key in KEYS
    ]


@pytest.mark.parametrize("zone", ["", "elsewhere"])
def test_without_an_instance_in_the_own_zone_all_are_asked(zone: str) -> None:
    assert set(asked(learned(zone))) == set(INSTANCES)


def test_where_all_are_in_the_own_zone_nothing_changes() -> None:
    zones = dict.fromkeys(INSTANCES, "a")
    plain, zoned = learned("", zones), learned("a", zones)
    assert [plain.home(key, 1.0).base for key in KEYS] == [zoned.home(key, 1.0).base for key in KEYS]


def test_one_of_four_that_is_out_is_made_up_for_within_the_zone() -> None:
    known = learned("a")
    put_out(known, "a0")
    assert set(asked(known)) == {"a1", "a2", "a3"}


def test_a_zone_that_is_half_out_keeps_what_its_others_can_take_and_no_zone_takes_the_rest_alone() -> None:
    known = learned("a")
    put_out(known, "a0", "a1")
    parts = asked(known)
    assert set(parts) == set(INSTANCES) - {"a0", "a1"}
    assert 0.7 < in_zone(parts, "a") < 0.85, "70 % are kept, and a part of the rest comes back by its ring"
    assert abs(in_zone(parts, "b") - in_zone(parts, "c")) < 0.05
    assert max(parts["a2"], parts["a3"]) < 1.8 / 4


def test_without_any_of_the_zone_the_others_share_its_keys_until_it_is_back() -> None:
    known = learned("a")
    before = [known.home(key, 1.0) for key in KEYS]
    out = put_out(known, "a0", "a1", "a2", "a3")
    parts = asked(known)
    assert in_zone(parts, "a") == 0
    assert 0.4 < in_zone(parts, "b") < 0.6
    for endpoint in out:
        endpoint.worked(0.001)
    known.probes(2.0)
    assert [known.home(key, 2.0) for key in KEYS] == before


def test_before_the_zone_is_decided_anew_its_keys_go_to_whoever_is_well() -> None:
    known = learned("a")
    for name in ("a0", "a1", "a2", "a3"):
        known._instances[name].failed(1.0)
    assert in_zone(asked(known, 1.01), "a") == 0


def test_a_single_instance_in_the_zone_needs_no_digest_while_it_is_well() -> None:
    known = learned("a", {"a0": "a", "b0": "b", "b1": "b"})
    assert known.sole is known._instances["a0"]
    put_out(known, "a0")
    assert known.sole is None
    assert "a0" not in asked(known)


def test_a_request_without_a_key_begins_in_the_own_zone_and_so_does_the_feed() -> None:
    known = learned("c")
    first = [str(one.base) for one in known.candidates(1.0)[:4]]
    assert first == known.feed_urls() == [INSTANCES[name] for name in ("c0", "c1", "c2", "c3")]
    put_out(known, "c0", "c1", "c2", "c3")
    assert set(known.feed_urls()) > {INSTANCES["a0"]}


def test_a_hot_key_is_spread_within_the_zone() -> None:
    known = learned("b")
    known.heed_spread(KEYS[0], 8, 1.0)
    readers = {known.reader(KEYS[0], 2.0) for _ in range(100)}
    assert readers == {known._instances[name] for name in ("b0", "b1", "b2", "b3")}
    own = known.home(KEYS[0], 2.0)
    assert [known.is_elsewhere(KEYS[0], one, 2.0) for one in readers] == [one is not own for one in readers]


def test_the_zone_is_given_or_said_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    def zone(**given: str) -> str:
        return Cache.from_url("http://a", **given)._region._zone  # type: ignore[arg-type]  # names a keyword

    assert zone() == ""
    monkeypatch.setenv("CACHESVC_ZONE", "eu-1a")
    assert (zone(), zone(zone="b"), zone(zone="")) == ("eu-1a", "b", "")
    with pytest.raises(ValueError, match="zone: 'B!' is no zone name, such as eu-central-1a"):
        zone(zone="B!")
    monkeypatch.setenv("CACHESVC_ZONE", "1a")
    with pytest.raises(ValueError, match="CACHESVC_ZONE: '1a' is no zone name"):
        zone()
