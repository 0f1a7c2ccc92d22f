"""A lease is given back by every load that ends without a fill; no caller waits."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from cachesvc_client.protocol.wire import PutItem
from cachesvc_client.sync import Cache, Namespace
from cachesvc_client.sync.batching import Batcher
from cachesvc_client.sync.releases import MOST_WAITING, Releases

from clients.python.tests.sync.callers import PATIENCE, Caller, until
from clients.python.tests.sync.threaded_service import ThreadedService

TOO_LARGE = {"type": "https://cachesvc.dev/problems/value-too-large", "status": 413, "retryable": False}


class Torn(BaseException):
    """As `gevent.Timeout`: not an error of the loader, but the end of its caller."""


@pytest.fixture
def pages(sync_cache: Cache) -> Namespace[bytes]:
    return sync_cache.namespace("pages")


def loads(key: str) -> bytes:
    return b"loaded"


def raises(key: str) -> bytes:
    raise KeyError(key)


def is_torn(key: str) -> bytes:
    raise Torn


def brings_no_bytes(key: str) -> Any:
    return object()


def released(threaded: ThreadedService, count: int = 1) -> list[tuple[str, str]]:
    until(lambda: len(threaded.fake.released) >= count)
    assert not threaded.fake.leases
    return [(key, reason) for key, _, reason in threaded.fake.released]


@pytest.mark.parametrize(
    ("loader", "error", "reason"),
    [(raises, KeyError, "failed"), (is_torn, Torn, "failed"), (brings_no_bytes, TypeError, "unkept")],
)
def test_a_load_that_brings_nothing_to_keep_gives_its_lease_back(
    threaded: ThreadedService,
    pages: Namespace[bytes],
    loader: Callable[[str], Any],
    error: type[BaseException],
    reason: str,
) -> None:
    with pytest.raises(error):
        pages.get_or_load("a", loader)
    assert released(threaded) == [("a", reason)]
    assert pages.get_or_load("a", loads) == b"loaded"


def test_a_fill_that_is_refused_gives_its_lease_back_and_its_value_is_answered(
    threaded: ThreadedService, pages: Namespace[bytes]
) -> None:
    def loader(key: str) -> bytes:
        threaded.fake.key_problems["a"] = TOO_LARGE
        return b"large"

    assert pages.get_or_load("a", loader) == b"large"
    until(lambda: len(threaded.fake.calls(":put")) == 2)
    (item,) = threaded.fake.calls(":put")[1].body["items"]
    assert (item["key"], item["release"]) == ("a", "unkept")


def test_a_refresh_that_fails_gives_its_lease_back(
    threaded: ThreadedService, pages: Namespace[bytes]
) -> None:
    threaded.fake.hold("a", b"old", stale=True)
    assert pages.get_or_load("a", raises) == b"old"
    assert released(threaded) == [("a", "failed")]


def test_a_value_of_a_later_version_is_loaded_past_and_its_lease_given_back(
    threaded: ThreadedService, sync_cache: Cache
) -> None:
    threaded.fake.hold("a", b"{}", stale=True, content_type="application/json; v=9")
    pages = sync_cache.namespace("pages", type=dict, version=1)
    assert pages.get_or_load("a", lambda key: {"v": 1}) == {"v": 1}
    assert released(threaded) == [("a", "failed")]


def test_nobody_waits_for_a_release(threaded: ThreadedService, pages: Namespace[bytes]) -> None:
    def loader(key: str) -> bytes:
        threaded.shut_gate()
        raise KeyError(key)

    caller = Caller(lambda: pages.get_or_load("a", loader))
    assert isinstance(caller.outcome(), KeyError)
    assert threaded.fake.released == []
    threaded.open_gate()
    assert released(threaded) == [("a", "failed")]


def test_leaving_the_block_waits_until_the_releases_are_sent(threaded: ThreadedService) -> None:
    with Cache.from_url(threaded.url) as cache, pytest.raises(KeyError):
        cache.namespace("pages").get_or_load("a", raises)
    assert [(key, reason) for key, _, reason in threaded.fake.released] == [("a", "failed")]


def test_an_answer_whose_callers_have_all_gone_gives_its_lease_back() -> None:
    """The leader of the batch is answered; the caller of the other item has run out of time."""
    go, unclaimed = threading.Event(), []

    def send(items: list[str], deadline: float) -> list[str]:
        if "b" in items:
            assert go.wait(PATIENCE)
        return [f"lease of {item}" for item in items]

    batcher: Batcher[str, str] = Batcher(send, lambda item, answer: unclaimed.append((item, answer)))
    first = Caller(lambda: batcher.join("b", PATIENCE))
    until(lambda: batcher._in_flight == 1)
    leader = Caller(lambda: batcher.join("c", 0.2))
    until(lambda: bool(batcher._open))
    batch = next(iter(batcher._open.values()))
    with batcher._lock:
        batch.waiting["d"] = 1  # joins, and leaves below
    batcher._leave(batch, "d")
    with batcher._lock:
        batch.waiting["d"] = 1
    go.set()
    assert first.result() == "lease of b"
    assert leader.result() == "lease of c"
    batcher._leave(batch, "d")
    assert unclaimed == [("d", "lease of d")]


def test_nobody_waits_for_the_fill_of_a_key_that_cannot_be_kept(
    threaded: ThreadedService, sync_cache: Cache, pages: Namespace[bytes]
) -> None:
    threaded.fake.leases["a"] = "lease-1"
    threaded.fake.unkept.add("a")
    assert pages.get_or_load("a", loads) == b"loaded"
    assert [call.body.get("wait", 0.0) for call in threaded.fake.calls(":get")] == [0.0]
    assert sync_cache.statistics().unkept_loads == 1
    assert threaded.fake.calls(":put") == []


def test_releases_that_wait_are_bounded_and_a_failure_ends_nothing() -> None:
    releases, sent, go = Releases(), [], threading.Event()

    def send_all(items: Sequence[PutItem]) -> None:
        assert go.wait(PATIENCE)
        sent.append(len(items))
        raise RuntimeError

    for _ in range(MOST_WAITING + 2):
        releases.send(PutItem("a", lease="l", release="failed"), send_all)
    go.set()
    releases.ended(PATIENCE)
    assert sum(sent) in (MOST_WAITING, MOST_WAITING + 1, MOST_WAITING + 2)
    releases.send(PutItem("b", lease="l", release="failed"), send_all)
    releases.ended(PATIENCE)
    assert sent[-1] == 1
