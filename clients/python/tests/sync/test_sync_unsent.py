"""Invalidations that a transaction could not send are sent again, on a thread."""

import os

import pytest
from cachesvc_client.requests import unsent
from cachesvc_client.sync import Cache, NotSentError

from clients.python.tests.sync.callers import in_child, until
from clients.python.tests.sync.threaded_service import ThreadedService
from clients.python.tests.test_unsent import DOWN


def changed(cache: Cache, key: str) -> NotSentError:
    with pytest.raises(NotSentError) as caught, cache.on_commit() as tx:
        tx.invalidate(cache.namespace("pages"), [key])
    return caught.value


def test_it_is_sent_when_the_cache_is_back(
    threaded: ThreadedService, sync_cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unsent, "FIRST_PAUSE", 0.01)
    threaded.fake.problems_of["pages"] = DOWN
    assert changed(sync_cache, "a").is_sent_again
    assert sync_cache.statistics().unsent == 1
    threaded.fake.problems_of.clear()
    until(lambda: not sync_cache.statistics().unsent)
    assert threaded.fake.saw[-1].body["keys"] == ["a"]
    until(lambda: sync_cache._resending._thread is None)
    threaded.fake.problems_of["pages"] = DOWN
    assert changed(sync_cache, "b").is_sent_again, "and once more"
    threaded.fake.problems_of.clear()
    until(lambda: not sync_cache.statistics().unsent)


def test_closing_tries_once_more(threaded: ThreadedService, caplog: pytest.LogCaptureFixture) -> None:
    threaded.fake.problems_of["pages"] = DOWN
    cache = Cache.from_url(threaded.url)
    with cache:
        changed(cache, "a")
    assert "the cache closes, and 1 invalidations could not be sent" in caplog.text
    threaded.fake.problems_of.clear()
    with cache:
        pass
    assert cache.statistics().unsent == 0
    assert threaded.fake.saw[-1].body["keys"] == ["a"]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_the_parent_sends_it_and_not_the_child(threaded: ThreadedService, sync_cache: Cache) -> None:
    threaded.fake.problems_of["pages"] = DOWN
    changed(sync_cache, "a")
    assert in_child(lambda: str(sync_cache.statistics().unsent).encode()) == b"0"
    assert sync_cache.statistics().unsent == 1
    threaded.fake.problems_of.clear()
