"""The instance that is asked follows from the configured URLs and the topology."""

import random

import msgspec
import pytest
from cachesvc_client.instances.endpoints import Endpoint, urls_of
from cachesvc_client.instances.region import AFTER_FAILURE_SECONDS, REFRESH_SECONDS, Region, instances_of
from xxhash import xxh3_64_intdigest

KEYS = [xxh3_64_intdigest(b"pages/key-%d" % nth) for nth in range(300)]


def document(here: str = "eu", **regions: dict[str, str]) -> bytes:
    named = {name: {"queue": "redis://q", "instances": instances} for name, instances in regions.items()}
    return msgspec.json.encode(
        {"version": 1, "here": {"region": here, "instance": "x"}, "regions": named, "cells": {}}
    )


EU = {"eu-a": "http://10.0.0.1:8080", "eu-b": "http://10.0.0.2:8080", "eu-c": "http://10.0.0.3:8080"}


def region(urls: str = "http://lb:8080,http://lb2:8080") -> Region:
    return Region(urls_of(urls), random.Random(1))


def learned(known: Region, instances: dict[str, str], now: float = 0.0) -> Region:
    """The region after a document with these instances, and an answer to each probe of one."""
    known.learn(document(eu=instances))
    for endpoint in known.probes(now):
        endpoint.probed(0.001)
    return known


def bases(endpoints: list[Endpoint]) -> list[str]:
    return [str(endpoint.base) for endpoint in endpoints]


def test_before_the_topology_is_known_the_configured_are_asked_in_order() -> None:
    known = region()
    assert {str(known.home(key, 0.0).base) for key in KEYS} == {"http://lb:8080"}
    known.candidates(0.0)[0].failed(0.0)
    assert {str(known.home(key, 0.1).base) for key in KEYS} == {"http://lb2:8080"}
    assert {str(known.home(key, 10.0).base) for key in KEYS} == {"http://lb:8080"}


def test_only_the_instances_of_the_own_region_are_used() -> None:
    assert instances_of(document(eu=EU, us={"us-a": "http://10.1.0.1:8080"})) == EU
    assert instances_of(document(here="ap", eu=EU)) == {}
    assert instances_of(b'{"regions":{"eu":{"instances":{"a":"http://a"}}}}') == {}, (
        "a service that does not say who it is"
    )


def test_every_key_has_its_instance_and_the_next_one_while_that_is_out_of_reach() -> None:
    known = learned(region(), EU)
    homes = {key: known.home(key, 0.0) for key in KEYS}
    assert set(bases(list(homes.values()))) == set(EU.values())
    broken = homes[KEYS[0]]
    broken.failed(0.0)
    for key, home in homes.items():
        assert (known.home(key, 0.1) is home) == (home is not broken)
        assert known.home(key, 0.1) is not broken
    assert all(known.home(key, 10.0) is home for key, home in homes.items())


def test_a_failed_request_goes_to_the_instances_and_last_to_what_was_configured() -> None:
    known = learned(region(), EU)
    home = known.home(KEYS[0], 0.0)
    order = bases(known.candidates(0.0, home))
    assert order[0] == str(home.base)
    assert set(order[1:3]) == set(EU.values()) - {str(home.base)}
    assert order[3:] == ["http://lb:8080", "http://lb2:8080"]


def test_an_instance_that_is_configured_too_is_there_once_and_keeps_its_failures() -> None:
    known = region("http://10.0.0.1:8080/")
    known.candidates(0.0)[0].failed(0.0)
    learned(known, EU)
    assert len(known) == 3
    assert all(str(known.home(key, 0.1).base) != "http://10.0.0.1:8080/" for key in KEYS)


def test_with_everyone_out_of_reach_the_own_one_is_tried() -> None:
    known = learned(region(), EU)
    own = known.home(KEYS[0], 0.0)
    for endpoint in known.candidates(0.0):
        endpoint.failed(0.0)
    assert known.home(KEYS[0], 0.1) is own


def test_if_no_instance_can_be_reached_a_configured_url_that_is_well_is_asked() -> None:
    known = learned(region(), EU)
    for endpoint in known.candidates(0.0)[:3]:
        endpoint.failed(0.0)
    assert {str(known.home(key, 0.1).base) for key in KEYS} == {"http://lb:8080"}


def silent(known: Region, key: int, at: float) -> Endpoint:
    """Leaves two requests to the home of the key unanswered."""
    home = known.home(key, at)
    for _ in range(2):
        home.left_unanswered(at, 1.0)
    return home


def test_a_silent_instance_rests_and_then_one_request_at_a_time_tries_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    known = learned(region(), EU)
    hung = silent(known, KEYS[0], 0.0)
    own = [key for key in KEYS if known.home(key, 10.0) is hung] or KEYS[:1]
    now, probes = 0.1, []
    while now < 60.0:
        for endpoint in known.probes(now):
            endpoint.probed(0.001)
        asked = [known.home(key, now) for key in KEYS]
        assert asked.count(hung) <= 1
        if hung in asked:
            probes.append(round(now, 1))
            hung.left_unanswered(now + 0.05, 1.0)
        now += 0.1
    assert len(probes) <= 8, "longer rests each time"
    assert known.home(own[0], 100.0) is not hung, "a probe comes first"
    (probed,) = known.probes(100.0)
    probed.probed(0.001)
    assert known.home(own[0], 100.0) is hung
    hung.worked(0.001)
    assert all(known.home(key, 100.0).is_well(100.0) for key in KEYS)
    assert sum(known.home(key, 100.0) is hung for key in KEYS) > 50
    assert [record.getMessage() for record in caplog.records] == [
        f"cache instance {hung.base} is out of reach (no answers): others are asked instead",
        f"cache instance {hung.base} answers again",
    ]


def test_an_instance_that_failed_twice_is_tried_by_one_request_at_a_time() -> None:
    known = learned(region(), EU)
    gone = known.home(KEYS[0], 0.0)
    gone.failed(0.0)
    assert [known.home(key, 1.0) for key in KEYS].count(gone) > 50
    gone.failed(1.0)
    assert gone not in [known.home(key, 5.0) for key in KEYS]
    assert known.probes(5.0) == [gone]
    gone.probed(0.001)
    assert [known.home(key, 5.0) for key in KEYS].count(gone) == 1
    gone.worked(0.001)
    assert [known.home(key, 5.0) for key in KEYS].count(gone) > 50


def test_what_says_nothing_of_the_instance_is_no_silence() -> None:
    known = learned(region(), EU)
    home = known.home(KEYS[0], 0.0)
    for _ in range(10):
        home.left_unanswered(0.0, 0.01)  # the caller had no time
    home.left_unanswered(0.0, 1.0)
    home.worked(0.001)
    home.left_unanswered(0.0, 1.0)
    assert known.home(KEYS[0], 0.0) is home
    home.left_unanswered(0.0, 1.0)
    for _ in range(20):
        home.left_unanswered(0.1, 1.0)  # they were under way when the rest began
    assert (known.probes(0.4), known.probes(0.6)) == ([], [home])
    home.probed(0.001)
    assert known.home(KEYS[0], 0.6) is home


def test_silent_instances_come_last_for_requests_without_a_key_and_for_the_document() -> None:
    known = learned(region(), EU)
    hung = silent(known, KEYS[0], 0.0)
    assert known.candidates(50.0)[-1] is hung
    assert known.sources(50.0)[-1] is hung


def test_a_silent_url_among_the_configured_is_tried_by_one_at_a_time() -> None:
    known = region()
    hung = silent(known, KEYS[0], 0.0)
    assert known.probes(5.0) == [hung]
    hung.probed(0.001)
    homes = [known.home(key, 5.0) for key in KEYS]
    assert homes.count(hung) == 1
    assert {str(home.base) for home in homes if home is not hung} == {"http://lb2:8080"}


def test_no_request_goes_to_an_address_of_the_document_before_its_probe_was_answered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    known = region()
    known.learn(document(eu=EU))
    assert {str(known.home(key, 0.0).base) for key in KEYS} == {"http://lb:8080"}
    assert bases(known.candidates(0.0))[0] == "http://lb:8080"
    a, b, c = known.probes(0.0)
    assert (bases([a, b, c]), known.probes(0.05), known.probes(0.5)) == (list(EU.values()), [], [])
    a.probed(0.001)
    assert {str(known.home(key, 0.5).base) for key in KEYS} == {EU["eu-a"]}
    b.failed(0.5, "refused")
    assert (b.is_barred(1.2), known.probes(1.2)) == (True, [b, c]), "c gave no answer in a probe's time"
    b.failed(1.2, "refused")
    assert caplog.text.count("http://10.0.0.2:8080 is out of reach (refused)") == 1
    assert all(str(known.home(key, 9.0).base) == EU["eu-a"] for key in KEYS)


def test_all_clients_of_the_process_share_what_is_known_of_an_address() -> None:
    one, other = learned(region(), EU), region()
    other.learn(document(eu=EU))
    assert other.probes(0.0) == []
    hung = silent(one, KEYS[0], 0.0)
    assert hung not in [other.home(key, 0.1) for key in KEYS]
    own = Region(urls_of("http://lb:8080"), random.Random(1), shared=False)
    assert own.candidates(0.0)[0] is not one.candidates(0.0)[-1]


def test_a_request_for_a_silent_home_goes_to_the_next_one_and_only_those_that_are_well_get_a_share() -> None:
    known = learned(region(), EU)
    hung = silent(known, KEYS[0], 0.0)
    attempts, well = known.attempts(0.1, hung)
    assert (attempts[-2], well, len(attempts)) == (hung, 4, 6)
    for endpoint in attempts[:4]:
        endpoint.failed(0.1)
    attempts, well = known.attempts(0.2, hung)
    assert (attempts[0], well) == (hung, 0), "if all are out, the own one is asked"


def test_a_far_instance_gets_a_share_in_which_it_can_answer() -> None:
    (near, far) = region("http://near,http://far").candidates(0.0)
    assert far.shares(1.0) == 2, "nobody knows yet"
    near.worked(0.002)
    far.worked(0.3)
    far.worked(0.2)
    assert (near.shares(1.0) > 10, far.shares(1.0), far.shares(5.0)) == (True, 1, 6)


def test_an_outage_is_two_lines_and_a_closed_connection_none(caplog: pytest.LogCaptureFixture) -> None:
    (endpoint,) = region("http://a").candidates(0.0)
    endpoint.failed(0.0)
    endpoint.worked(0.001)
    assert caplog.records == []
    for now in range(5):
        endpoint.failed(now, "refused")
    for _ in range(5):
        endpoint.worked(0.001)
    assert [record.getMessage().partition(" http://a ")[2] for record in caplog.records] == [
        "is out of reach (refused): others are asked instead",
        "answers again",
    ]


def test_a_topology_without_instances_leaves_the_configured() -> None:
    known = learned(region(), EU)
    known.learn(document(eu={}))
    assert bases(known.candidates(0.0)) == ["http://lb:8080", "http://lb2:8080"]
    assert known.feed_urls() == ["http://lb:8080", "http://lb2:8080"]


@pytest.mark.parametrize(
    "bad", [b"", b"[]", b'{"regions":{"eu":{"instances":{"a":"nowhere"}}},"here":{"region":"eu"}}']
)
def test_what_is_no_topology_changes_nothing(bad: bytes) -> None:
    known = learned(region(), EU)
    with pytest.raises(ValueError):  # noqa: PT011  msgspec's or ours
        known.learn(bad)
    assert set(known.feed_urls()) > set(EU.values())


def test_the_document_is_due_at_once_then_now_and_then_and_soon_after_a_failure() -> None:
    known = region()
    assert known.is_due(0.0)
    known.asked(100.0)
    assert not known.is_due(100.0 + REFRESH_SECONDS * 0.89)
    assert known.is_due(100.0 + REFRESH_SECONDS)
    known.failed()
    assert not known.is_due(100.0 + AFTER_FAILURE_SECONDS / 2)
    assert known.is_due(100.0 + AFTER_FAILURE_SECONDS)


def test_the_configured_are_asked_for_the_document_first_so_that_a_fallback_leads_back() -> None:
    known = region("http://eu:8080,http://us:8080")
    eu, us = known.candidates(0.0)
    known.learn(document(here="us", us={"us-a": "http://10.1.0.1:8080"}))
    assert known.sources(0.0)[:2] == [eu, us]
    eu.failed(0.0)
    assert known.sources(0.1)[0] is us
