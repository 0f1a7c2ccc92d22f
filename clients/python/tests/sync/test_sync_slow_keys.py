"""A key that is being loaded from a slow origin holds up nobody but those who ask for it: threads that share a batch."""

from functools import partial

import pytest
from cachesvc_client import CacheError, PartialError, Unavailable
from cachesvc_client.protocol.turns import SLOW_TURN, TURNS_SHARE
from cachesvc_client.sync import Cache, Namespace
from cachesvc_client.values.durations import seconds_of

from clients.python.tests.sync.callers import PATIENCE, Caller, calls, results, until
from clients.python.tests.sync.threaded_service import ThreadedService

OTHERS = [f"k{i}" for i in range(19)]


@pytest.fixture(autouse=True)
def slow(threaded: ThreadedService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty keys, of which the one named `slow` is there when the test ends its load.

    Batches wait for a lane, and for nothing else.
    """
    monkeypatch.setattr("cachesvc_client.sync.batching.MAX_DELAY", PATIENCE)
    for key in (*OTHERS, "slow", "busy"):
        threaded.fake.hold(key, key.encode())
    threaded.begin_load("slow")


def begun(
    threaded: ThreadedService, pages: Namespace[bytes]
) -> tuple[Caller[bytes | None], list[Caller[bytes | None]]]:
    """Gets in one batch, that of the slow key and those of the others: the gate makes them wait for the lane."""
    threaded.shut_gate()
    busy = Caller(lambda: pages.get("busy"))
    threaded.await_arrivals(1)
    late, *others = calls(*(partial(pages.get, key) for key in ("slow", *OTHERS)))
    (lane,) = pages._look_ups._intakes.values()  # type: ignore[attr-defined]  # it is a Spread
    until(lambda: [len(batch.waiting) for batch in lane._batches._open.values()] == [20])
    threaded.open_gate()
    assert busy.result() == b"busy"
    return late, others


def told(threaded: ThreadedService) -> list[float]:
    return [
        seconds_of(call.headers["Cachesvc-Timeout"], "Cachesvc-Timeout")
        for call in threaded.fake.calls(":get")
    ]


def test_a_slow_key_does_not_hold_up_the_others_of_its_batch(
    threaded: ThreadedService, sync_cache: Cache
) -> None:
    late, others = begun(threaded, sync_cache.namespace("pages"))
    assert results(others) == [key.encode() for key in OTHERS]
    assert late.thread.is_alive()
    threaded.await_arrivals(2)
    threaded.end_load("slow")
    assert late.result() == b"slow"
    _, first, second, *_ = threaded.fake.calls(":get")
    assert (len(first.body["keys"]), second.body["keys"]) == (20, ["slow"])
    assert sync_cache.statistics().retries == 0


def test_a_slow_key_is_late_for_its_callers_when_their_time_is_over(
    threaded: ThreadedService, sync_cache: Cache
) -> None:
    pages = sync_cache.namespace("pages", timeout="0.3s")
    late, others = begun(threaded, pages)
    assert results(others) == [key.encode() for key in OTHERS]
    outcome = late.outcome()
    assert isinstance(outcome, CacheError)
    assert (outcome.type, outcome.retryable) == ("deadline", True)
    assert isinstance(pages.lookup("slow"), Unavailable)
    assert sync_cache.statistics().retries == 0


def test_a_slow_key_alone_has_all_the_time_in_one_request(
    threaded: ThreadedService, sync_cache: Cache
) -> None:
    late = Caller(lambda: sync_cache.namespace("pages").get("slow"))
    threaded.await_arrivals(1)
    threaded.end_load("slow")
    assert late.result() == b"slow"
    (seconds,) = told(threaded)
    assert seconds > 4


def test_a_key_that_turns_do_not_bring_is_asked_for_alone_for_the_rest_of_its_time(
    threaded: ThreadedService, sync_cache: Cache
) -> None:
    late, others = begun(threaded, sync_cache.namespace("pages", timeout="1s"))
    results(others)
    until(lambda: len(told(threaded)) > 3 and told(threaded)[-1] > SLOW_TURN)
    threaded.end_load("slow")
    assert late.result() == b"slow"
    assert told(threaded)[-1] < 1 - TURNS_SHARE


def test_a_slow_key_alone_that_never_comes_costs_one_request(
    threaded: ThreadedService, sync_cache: Cache
) -> None:
    pages = sync_cache.namespace("pages", timeout="0.2s")
    for ask in (lambda: pages.get("slow"), lambda: pages.get_many(["slow"])):
        before = len(told(threaded))
        with pytest.raises(CacheError, match="deadline"):
            ask()
        assert len(told(threaded)) == before + 1


def test_get_many_has_what_is_there_at_its_deadline(threaded: ThreadedService, sync_cache: Cache) -> None:
    with pytest.raises(PartialError) as caught:
        sync_cache.namespace("pages", timeout="0.2s").get_many([*OTHERS, "slow"])
    assert {key: error.type for key, error in caught.value.failed.items()} == {"slow": "deadline"}
    assert sorted(caught.value.found) == sorted(OTHERS)


def test_get_many_waits_for_a_slow_key(threaded: ThreadedService, sync_cache: Cache) -> None:
    asking = Caller(lambda: sync_cache.namespace("pages").get_many([*OTHERS, "slow"]))
    threaded.await_arrivals(2)
    threaded.end_load("slow")
    assert asking.result() == {key: key.encode() for key in (*OTHERS, "slow")}
    assert [call.body["keys"] for call in threaded.fake.calls(":get")][1] == ["slow"]


def test_get_many_answers_in_the_order_of_its_keys(threaded: ThreadedService, sync_cache: Cache) -> None:
    asking = Caller(lambda: list(sync_cache.namespace("pages").get_many(["slow", *OTHERS])))
    threaded.await_arrivals(2)
    threaded.end_load("slow")
    assert asking.result() == ["slow", *OTHERS]
