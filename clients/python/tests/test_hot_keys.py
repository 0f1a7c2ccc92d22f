"""Hot keys: their reads take turns over several instances, all else stays at home."""

import random
from collections import Counter

import msgspec
import pytest
from cachesvc_client.instances.endpoints import Endpoint, urls_of
from cachesvc_client.instances.hot_keys import KNOWN_SECONDS, MOST, HotKeys
from cachesvc_client.instances.region import Region
from cachesvc_client.protocol.wire import Got, GotMany
from cachesvc_client.requests.http import Reply
from cachesvc_client.requests.namespace_requests import NamespaceRequests
from cachesvc_client.requests.own_writes import OwnWrites

from clients.python.tests.test_region import EU, KEYS, learned

FOUR = {**EU, "eu-d": "http://10.0.0.4:8080"}
EU_URLS = "http://10.0.0.1:8080"
HOT = KEYS[0]


def region(instances: dict[str, str] = FOUR) -> Region:
    return learned(Region(urls_of(EU_URLS), random.Random(1)), instances)


def readers(known: Region, now: float, reads: int = 300, key: int = HOT) -> Counter[Endpoint]:
    return Counter(known.reader(key, now) for _ in range(reads))


def test_a_hot_key_takes_turns_over_its_own_instance_and_the_next_ones_on_the_ring() -> None:
    known = region()
    home = known.home(HOT, 0.0)
    assert readers(known, 0.0) == {home: 300}
    known.heed_spread(HOT, 3, 1.0)
    spread = readers(known, 2.0)
    assert sorted(spread.values()) == [100, 100, 100]
    assert home in spread
    assert known.home(HOT, 2.0) is home, "fills and waits meet there as before"
    assert all(readers(known, 2.0, 9, key) == {known.home(key, 2.0): 9} for key in KEYS[1:20])


def test_the_service_may_name_more_instances_than_there_are() -> None:
    known = region(EU)
    known.heed_spread(HOT, 100, 0.0)
    assert sorted(readers(known, 1.0).values()) == [100, 100, 100]


def test_it_comes_home_when_nobody_says_so_any_more() -> None:
    known = region()
    home = known.home(HOT, 0.0)
    known.heed_spread(HOT, 4, 0.0)
    known.heed_spread(HOT, 4, 10.0)
    assert len(readers(known, 9.0 + KNOWN_SECONDS)) == 4
    assert readers(known, 10.0 + KNOWN_SECONDS) == {home: 300}


def test_the_largest_number_that_was_heard_counts_until_its_time_ends() -> None:
    known = region()
    known.heed_spread(HOT, 4, 0.0)
    known.heed_spread(HOT, 2, 20.0)
    assert len(readers(known, 21.0)) == 4
    known.heed_spread(HOT, 2, KNOWN_SECONDS + 1)
    assert len(readers(known, KNOWN_SECONDS + 2)) == 2


def test_an_instance_that_is_not_well_is_passed_over() -> None:
    known = region()
    home = known.home(HOT, 0.0)
    known.heed_spread(HOT, 4, 0.0)
    broken = next(one for one in readers(known, 1.0) if one is not home)
    broken.failed(1.0)
    spread = readers(known, 1.1, 400)
    assert broken not in spread
    assert spread[home] == 200


def test_so_many_hot_keys_are_remembered_and_those_whose_time_ended_make_room() -> None:
    hot = HotKeys(random.Random(1))
    for key in range(MOST + 10):
        hot.heed(key, 2, 0.0)
    assert len(hot) == MOST
    assert hot.instances(MOST + 1, 1.0) == 0
    hot.heed(MOST + 1, 2, KNOWN_SECONDS + 1)
    assert len(hot) == 1
    assert hot.instances(MOST + 1, KNOWN_SECONDS + 2) == 2


def test_other_instances_and_another_service_end_it() -> None:
    known = region()
    known.heed_spread(HOT, 4, 0.0)
    known.use({"eu-a": FOUR["eu-a"], "eu-b": FOUR["eu-b"]})
    assert len(readers(known, 1.0)) == 2
    known.begin_anew(urls_of(EU_URLS), shared=False)
    learned(known, FOUR)
    assert len(readers(known, 1.0)) == 1


# what an answer says ------------------------------------------------------------------------------


def requests_of(known: Region) -> NamespaceRequests:
    return NamespaceRequests("pages", OwnWrites(lambda: 0.0), region=known)


def reply(
    known: Region, *results: Got, at: Endpoint | None = None, headers: dict[str, str] | None = None
) -> Reply:
    body = msgspec.msgpack.encode(GotMany(list(results)))
    return Reply(200, headers or {}, body, at)


def test_a_batch_tells_of_each_key_and_a_single_answer_in_a_header() -> None:
    known = region()
    requests = requests_of(known)
    requests.got(reply(known, Got("hit", spread=4), Got("hit")), ["key-0", "key-1"], 1.0)
    assert [len(readers(known, 2.0, key=key)) for key in KEYS[:2]] == [4, 1]
    requests.got_alone(reply(known, headers={"Cachesvc-Spread": "3"}), "key-2", 1.0)
    assert len(readers(known, 2.0, key=KEYS[2])) == 3


@pytest.mark.parametrize("said", ["", "1", "0", "-3", "many", "٣", "99999999999999999999"])
def test_a_header_that_is_no_number_of_instances_has_no_effect(said: str) -> None:
    known = region()
    requests_of(known).got_alone(reply(known, headers={"Cachesvc-Spread": said}), "key-0", 1.0)
    assert len(readers(known, 2.0)) == 1


def test_of_a_spread_key_only_its_own_instance_says_that_it_is_due_early() -> None:
    known = region()
    requests = requests_of(known)
    home = known.home(HOT, 0.0)
    known.heed_spread(HOT, 4, 0.0)
    elsewhere = next(one for one in readers(known, 1.0) if one is not home)

    def is_early(key: str, at: Endpoint) -> bool:
        (got,) = requests.got(reply(known, Got("hit", early=True), at=at), [key], 1.0)
        assert isinstance(got, Got)
        return got.early

    assert is_early("key-0", home)
    assert not is_early("key-0", elsewhere)
    assert is_early("key-1", elsewhere), "a key that is not spread"
