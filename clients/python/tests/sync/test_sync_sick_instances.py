"""A sick instance costs a few calls a share of their time, as in the async flavour."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from cachesvc_client import CacheError, Hit, Unavailable
from cachesvc_client.instances import endpoints
from cachesvc_client.sync import Cache

from clients.python.tests.hostile import Hostile, answer
from clients.python.tests.sync.callers import PATIENCE, Caller, in_child, until_proven
from clients.python.tests.sync.threaded_service import ThreadedService

BUSY = b'{"type": "https://cachesvc.dev/problems/overloaded", "status": 503, "retryable": true}'


@pytest.fixture
def hostile() -> Iterator[Hostile]:
    with Hostile() as running:
        yield running


@contextmanager
def opened(threaded: ThreadedService, hostile: Hostile, *, proven: bool = True) -> Iterator[Cache]:
    instances = {"a": threaded.url, "b": hostile.url}
    threaded.fake.topology = {"regions": {"eu": {"instances": instances}}, "here": {"region": "eu"}}
    with Cache.from_url(threaded.url, default_timeout=1) as cache:
        if proven:
            until_proven(cache)
        yield cache


def keys_of(cache: Cache, url: str) -> Iterator[str]:
    """Keys whose home is the instance at `url`."""
    region: Any = cache._region
    requests = cache.namespace("pages")._calls._requests
    for nth in range(10_000):
        digest = requests.digest(f"k{nth}")
        if str(region._instances[region._rings.of(digest).first(digest)].base) == url:
            yield f"k{nth}"


def test_a_hung_instance_costs_two_calls_a_share_of_their_time_and_no_call_its_answer(
    threaded: ThreadedService, hostile: Hostile, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(threaded, hostile) as cache:
        pages = cache.namespace("pages")
        outcomes = [pages.lookup(f"k{nth}") for nth in range(60)]
        assert not [outcome for outcome in outcomes if isinstance(outcome, Unavailable)]
        assert (len(hostile.asked), cache.statistics().failovers) == (2, 2)
    assert [record.getMessage() for record in caplog.records] == [
        f"cache instance {hostile.url} is out of reach (no answers): others are asked instead"
    ]


def test_one_that_answers_again_is_found_by_a_probe_and_one_request(
    threaded: ThreadedService,
    hostile: Hostile,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(endpoints, "REST_SECONDS", 0.01)
    monkeypatch.setattr(endpoints, "PROBE_SECONDS", 0.01)
    with opened(threaded, hostile) as cache:
        pages = cache.namespace("pages")
        for nth in range(20):
            pages.lookup(f"k{nth}")
        hostile.answers = lambda path: answer("503 Service Unavailable", BUSY)
        while "answers again" not in caplog.text:
            pages.lookup(next(keys_of(cache, hostile.url)))
    assert len(caplog.records) == 2


def test_an_advertised_address_that_answers_nothing_gets_no_call_of_anybody(
    threaded: ThreadedService, hostile: Hostile
) -> None:
    hostile.answers = lambda path: None
    with opened(threaded, hostile, proven=False) as cache:
        pages = cache.namespace("pages")
        assert not [nth for nth in range(37) if isinstance(pages.lookup(f"k{nth}"), Unavailable)]
        assert (hostile.asked, cache.statistics().failovers) == ([], 0)


def test_what_may_be_moved_is_moved_and_a_write_without_a_lease_is_not(
    threaded: ThreadedService, hostile: Hostile
) -> None:
    with opened(threaded, hostile) as cache:
        pages, key = cache.namespace("pages"), next(keys_of(cache, hostile.url))
        pages.delete(key)
        assert len(threaded.fake.fences) == 1
        with pytest.raises(CacheError, match="deadline"):
            pages.set(key, b"1")
        assert (len(hostile.asked), threaded.fake.calls(":put")) == (2, [])
        hostile.answers = lambda path: answer("503 Service Unavailable", BUSY)


def test_a_slow_origin_is_no_silence(threaded: ThreadedService, hostile: Hostile) -> None:
    with opened(threaded, hostile) as cache:
        key = next(keys_of(cache, threaded.url))
        threaded.fake.hold(key, b"1")
        threaded.begin_load(key)
        caller = Caller(lambda: cache.namespace("pages").lookup(key))
        while sum(call.body["keys"] == [key] for call in threaded.fake.calls(":get")) < 2:
            threaded.await_arrivals()
        threaded.end_load(key)
        assert isinstance(caller.result(), Hit)
        assert (hostile.asked, cache.statistics().failovers) == ([], 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_knows_what_its_parent_knew_and_its_locks_are_free(
    threaded: ThreadedService, hostile: Hostile
) -> None:
    with opened(threaded, hostile) as cache:
        pages = cache.namespace("pages")
        keys = [f"k{nth}" for nth in range(20)]
        for key in keys:
            pages.lookup(key)
        asked = len(hostile.asked)
        taken, let_go = threading.Event(), threading.Event()

        def hold() -> None:
            with endpoints._lock:
                taken.set()
                let_go.wait(PATIENCE)

        holder = Caller(hold)
        assert taken.wait(PATIENCE)
        try:
            said = in_child(lambda: b"%d" % sum(isinstance(pages.lookup(key), Unavailable) for key in keys))
        finally:
            let_go.set()
        holder.result()
        assert (said, len(hostile.asked)) == (b"0", asked)
