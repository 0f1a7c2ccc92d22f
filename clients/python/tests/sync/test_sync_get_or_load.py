"""`get_or_load`: one load per key here, one lease per key anywhere, and an answer even without the cache."""

import threading

import pytest
from cachesvc_client import ABSENT, Absent, CacheError, LoadContext
from cachesvc_client.sync import Cache, Namespace

from clients.python.tests.sync.callers import PATIENCE, Caller, calls, results, until
from clients.python.tests.sync.threaded_service import ThreadedService


class Torn(BaseException):
    """As `gevent.Timeout`: not an error of the loader, but the end of its caller."""


class Source:
    """A loader that records, and waits at its gate."""

    def __init__(self) -> None:
        self.value = b"loaded"
        self.loaded: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.errors: list[BaseException] = []
        """Raised by the next loads, one each."""

    def __call__(self, key: str) -> bytes:
        self.loaded.append(key)
        value = self.value
        error = self.errors.pop(0) if self.errors else None
        self.entered.release()
        assert self.gate.wait(PATIENCE)
        if error is not None:
            raise error
        return value

    def await_entry(self) -> None:
        assert self.entered.acquire(timeout=PATIENCE)


@pytest.fixture
def pages(sync_cache: Cache) -> Namespace[bytes]:
    return sync_cache.namespace("pages")


@pytest.fixture
def source() -> Source:
    return Source()


def test_a_miss_is_loaded_and_filled_with_the_lease(
    threaded: ThreadedService, pages: Namespace[bytes], source: Source
) -> None:
    assert pages.get_or_load("a", source, ttl="5m", stale="1m", tags=["t"]) == b"loaded"
    (put,) = threaded.fake.calls(":put")
    (item,) = put.body["items"]
    assert item.pop("lease").startswith("lease-")
    assert item == {
        "key": "a",
        "value": b"loaded",
        "ttl": 300.0,
        "stale_while_revalidate": 60.0,
        "tags": ["t"],
    }
    assert pages.get_or_load("a", source) == b"loaded"
    assert source.loaded == ["a"]


def test_many_threads_share_one_load(pages: Namespace[bytes], source: Source) -> None:
    source.gate.clear()
    callers = calls(*[lambda: pages.get_or_load("a", source)] * 50)
    source.await_entry()
    source.gate.set()
    assert results(callers) == [b"loaded"] * 50
    assert source.loaded == ["a"]


def test_a_waiter_may_leave_and_the_load_goes_on(
    threaded: ThreadedService, pages: Namespace[bytes], source: Source
) -> None:
    source.gate.clear()
    loading = Caller(lambda: pages.get_or_load("a", source))
    source.await_entry()
    with pytest.raises(CacheError) as caught:
        pages.get_or_load("a", source, timeout="20ms")
    assert caught.value.type == "deadline"
    source.gate.set()
    assert loading.result() == b"loaded"
    assert source.loaded == ["a"]
    assert threaded.fake.held["a"].value == b"loaded"


def test_when_the_loading_caller_is_torn_out_of_its_call_a_waiter_begins_anew(
    threaded: ThreadedService, pages: Namespace[bytes], source: Source
) -> None:
    source.errors = [Torn()]
    source.gate.clear()
    torn = Caller(lambda: pages.get_or_load("a", source))
    source.await_entry()
    waiters = calls(*[lambda: pages.get_or_load("a", source)] * 3)
    del threaded.fake.leases["a"]  # it expires
    source.gate.set()
    assert isinstance(torn.outcome(), Torn)
    assert results(waiters) == [b"loaded"] * 3
    assert source.loaded == ["a", "a"]


def test_what_the_loader_raises_reaches_every_caller_and_is_not_kept(
    pages: Namespace[bytes], source: Source
) -> None:
    source.errors = [KeyError("no row")]
    source.gate.clear()
    first = Caller(lambda: pages.get_or_load("a", source))
    source.await_entry()
    waiters = calls(*[lambda: pages.get_or_load("a", source)] * 2)
    flight = pages._look_aside.flights.get("a")
    assert flight is not None
    until(lambda: len(flight.landed._cond._waiters) == 2)  # type: ignore[attr-defined]  # both wait for the flight by now
    source.gate.set()
    assert [type(caller.outcome()) for caller in (first, *waiters)] == [KeyError] * 3
    assert source.loaded == ["a"]


def test_an_absent_value_is_stored_as_known_absent(
    threaded: ThreadedService, pages: Namespace[bytes]
) -> None:
    asked: list[str] = []

    def nothing(ctx: LoadContext) -> Absent:
        asked.append(ctx.key)
        return ctx.absent()

    assert pages.get_or_load("a", nothing, default=b"none") == b"none"
    assert pages.get_or_load("a", nothing) is None
    assert asked == ["a"]
    assert threaded.fake.held["a"].absent


def test_a_loader_says_how_long_its_value_lives_and_is_told_its_time(
    threaded: ThreadedService, pages: Namespace[bytes]
) -> None:
    def load(ctx: LoadContext) -> bytes:
        assert 29 < ctx.time_left <= 30
        ctx.set_options(ttl="7s", tags=["late"])
        return b"1"

    pages.get_or_load("a", load, ttl="5m", stale="1m")
    (put,) = threaded.fake.calls(":put")
    assert {name: put.body["items"][0][name] for name in ("ttl", "stale_while_revalidate", "tags")} == {
        "ttl": 7.0,
        "stale_while_revalidate": 60.0,
        "tags": ["late"],
    }


def test_a_fenced_fill_is_answered_and_not_kept(
    threaded: ThreadedService, sync_cache: Cache, pages: Namespace[bytes], source: Source
) -> None:
    source.gate.clear()
    caller = Caller(lambda: pages.get_or_load("a", source))
    source.await_entry()
    threaded.fake.fence("a")
    source.gate.set()
    assert caller.result() == b"loaded"
    assert "a" not in threaded.fake.held
    assert sync_cache.statistics().fenced_fills == 1


def test_the_caller_with_the_lease_refreshes_a_stale_value_and_nobody_else_waits(
    threaded: ThreadedService, pages: Namespace[bytes], source: Source
) -> None:
    threaded.fake.hold("a", b"old", stale=True)
    source.gate.clear()
    refreshing = Caller(lambda: pages.get_or_load("a", source))
    source.await_entry()
    assert [pages.get_or_load("a", source) for _ in range(3)] == [b"old"] * 3
    source.gate.set()
    assert refreshing.result() == b"loaded"
    assert source.loaded == ["a"]
    assert not threaded.fake.held["a"].stale


def test_a_refresh_that_fails_is_answered_with_the_stale_value(
    threaded: ThreadedService, pages: Namespace[bytes], source: Source
) -> None:
    threaded.fake.hold("a", b"old", stale=True)
    source.errors = [KeyError("no row")]
    assert pages.get_or_load("a", source) == b"old"


def test_who_finds_the_lease_held_waits_for_the_fill(
    threaded: ThreadedService, pages: Namespace[bytes], source: Source
) -> None:
    threaded.fake.leases["a"] = "somebody's"
    caller = Caller(lambda: pages.get_or_load("a", source))
    threaded.await_arrivals(2)  # the read that found it held, and the one that waits
    threaded.fake.hold("a", b"theirs")
    assert caller.result() == b"theirs"
    assert source.loaded == []
    first, waiting, *_ = threaded.fake.calls(":get")
    assert (first.body.get("wait", 0) == 0, waiting.body["wait"] > 0, waiting.body["lease"]) == (
        True,
        True,
        True,
    )


def test_a_waiter_takes_over_from_a_holder_that_gives_up(
    threaded: ThreadedService, pages: Namespace[bytes], source: Source
) -> None:
    threaded.fake.leases["a"] = "somebody's"
    caller = Caller(lambda: pages.get_or_load("a", source))
    threaded.await_arrivals(2)
    del threaded.fake.leases["a"]
    assert caller.result() == b"loaded"
    assert threaded.fake.held["a"].value == b"loaded"


def test_who_waited_too_long_loads_and_does_not_fill(threaded: ThreadedService, source: Source) -> None:
    threaded.fake.leases["a"] = "somebody's"
    with Cache.from_url(threaded.url, lease_wait=0) as cache:
        assert cache.namespace("pages").get_or_load("a", source) == b"loaded"
        assert cache.statistics().loads_without_cache == 1
    assert threaded.fake.calls(":put") == []


def test_a_caller_without_patience_leaves_the_wait_for_the_lease_to_the_others(
    threaded: ThreadedService, pages: Namespace[bytes], source: Source
) -> None:
    threaded.fake.leases["a"] = "somebody's"
    with pytest.raises(CacheError) as caught:
        pages.get_or_load("a", source, timeout="20ms")
    assert caught.value.type == "deadline"
    assert source.loaded == []


def test_an_outage_is_loaded_through_once_per_key(
    threaded: ThreadedService, pages: Namespace[bytes], source: Source
) -> None:
    threaded.fake.problem = (
        503,
        {"type": "https://cachesvc.dev/problems/home-unavailable", "retryable": True},
        {},
    )
    source.gate.clear()
    callers = calls(*[lambda: pages.get_or_load("a", source)] * 10)
    source.await_entry()
    flight = pages._look_aside.flights.get("a")
    assert flight is not None
    until(lambda: len(flight.landed._cond._waiters) == 9)  # type: ignore[attr-defined]  # all others wait for the flight by now
    source.gate.set()
    assert results(callers) == [b"loaded"] * 10
    assert source.loaded == ["a"]
    assert threaded.fake.calls(":put") == []


def test_an_outage_lets_only_so_many_loads_run_at_a_time(threaded: ThreadedService, source: Source) -> None:
    source.gate.clear()
    with Cache.from_url(threaded.url, max_loads_without_cache=2) as cache:
        threaded.stop()
        pages = cache.namespace("pages")
        callers = [Caller(lambda key=key: pages.get_or_load(key, source)) for key in "abcde"]  # type: ignore[misc]  # binds the key
        until(lambda: cache.statistics().loads_without_cache == 5)
        assert len(source.loaded) == 2
        source.gate.set()
        assert results(callers) == [b"loaded"] * 5


def test_a_refusal_is_raised_and_nothing_is_loaded(
    threaded: ThreadedService, pages: Namespace[bytes], source: Source
) -> None:
    threaded.fake.problem = (404, {"type": "https://cachesvc.dev/problems/no-such-namespace"}, {})
    with pytest.raises(CacheError) as caught:
        pages.get_or_load("a", source)
    assert caught.value.type == "no-such-namespace"
    assert source.loaded == []


def test_a_value_that_could_not_be_stored_is_answered(
    threaded: ThreadedService, sync_cache: Cache, pages: Namespace[bytes], source: Source
) -> None:
    source.gate.clear()
    caller = Caller(lambda: pages.get_or_load("a", source))
    source.await_entry()
    threaded.fake.problem = (503, {"type": "https://cachesvc.dev/problems/home-unavailable"}, {})
    source.gate.set()
    assert caller.result() == b"loaded"
    assert sync_cache.statistics().failed_fills == 1


@pytest.mark.parametrize("write", ["set", "delete", "key", "tag", "all"])
def test_a_reader_after_an_own_write_does_not_join_a_load_from_before(
    sync_cache: Cache, pages: Namespace[bytes], source: Source, write: str
) -> None:
    """Nor if the write goes through another namespace object."""
    source.value = b"before"
    source.gate.clear()
    early = Caller(lambda: pages.get_or_load("a", source, tags=["t"]))
    source.await_entry()
    source.value = b"after"
    writer = sync_cache.namespace("pages")
    if write == "set":
        writer.set("a", b"after")
    elif write == "delete":
        writer.delete("a")
    else:
        writer.invalidate(
            ["a"] * (write == "key"), tags=["t"] * (write == "tag"), all=write == "all", confirm="pages"
        )
    late = Caller(lambda: pages.get_or_load("a", source, timeout=5))
    source.gate.set()
    assert (early.result(), late.result()) == (b"before", b"after")


def test_a_hung_load_is_joined_no_more_once_it_is_overdue(threaded: ThreadedService, source: Source) -> None:
    source.gate.clear()
    with Cache.from_url(threaded.url, default_timeout="20ms", load_timeout="20ms", lease_wait=0) as cache:
        pages = cache.namespace("pages")
        hung = Caller(lambda: pages.get_or_load("a", source))
        source.await_entry()
        with pytest.raises(CacheError, match="took too long"):
            pages.get_or_load("a", source)
        assert pages._look_aside.flights.get("a") is None
        source.gate.set()
        assert hung.result() == b"loaded"


def test_a_value_of_an_earlier_version_is_replaced_once_for_all_callers(
    threaded: ThreadedService, sync_cache: Cache
) -> None:
    threaded.fake.hold("a", b'{"old": "shape"}', content_type="application/json")
    numbers = sync_cache.namespace("pages", type=list[int], version=2)
    loaded: list[str] = []

    def load(key: str) -> list[int]:
        loaded.append(key)
        return [1, 2]

    assert numbers.get("a") is None
    assert results(calls(*[lambda: numbers.get_or_load("a", load)] * 8)) == [[1, 2]] * 8
    assert loaded == ["a"]
    assert threaded.fake.held["a"].content_type == "application/json; v=2"


def test_a_value_of_a_later_version_is_loaded_past_and_stays(
    threaded: ThreadedService, sync_cache: Cache
) -> None:
    threaded.fake.hold("a", b"[3]", content_type="application/json; v=2")
    numbers = sync_cache.namespace("pages", type=list[int], version=1)
    assert numbers.get_or_load("a", lambda _key: [1]) == [1]
    assert threaded.fake.held["a"].value == b"[3]"


def test_two_threads_that_share_an_answer_do_not_both_take_its_lease(
    threaded: ThreadedService, pages: Namespace[bytes], source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate makes them share: both are in the batch that waits for the first one."""
    monkeypatch.setattr("cachesvc_client.sync.batching.MAX_DELAY", PATIENCE)
    threaded.shut_gate()
    busy = Caller(lambda: pages.get_or_load("busy", source))
    threaded.await_arrivals(1)
    (leases,) = pages._look_aside._leases._intakes.values()  # type: ignore[attr-defined]  # it is a Spread
    pair = calls(*[lambda: pages.get_or_load("a", source)] * 2)
    until(lambda: [batch.waiting for batch in leases._open.values()] == [{"a": 2}])
    threaded.open_gate()
    assert results([busy, *pair]) == [b"loaded"] * 3
    assert sorted(source.loaded) == ["a", "busy"]


def test_a_stored_absence_is_no_miss(
    threaded: ThreadedService, pages: Namespace[bytes], source: Source
) -> None:
    threaded.fake.hold("a", b"", absent=True)
    assert pages.get_or_load("a", source, default=b"none") == b"none"
    assert repr(ABSENT) == "ABSENT"
    assert source.loaded == []
