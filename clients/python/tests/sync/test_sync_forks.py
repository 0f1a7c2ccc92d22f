"""A client that was used before a fork works on both sides of it."""

import gc
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from cachesvc_client.sync import Cache, forks

from clients.python.tests.sync.callers import PATIENCE, Caller, in_child
from clients.python.tests.sync.threaded_service import ThreadedService

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
    # Python 3.12 on warns that other threads may hold locks: just that is tried here.
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


@contextmanager
def held(lock: threading.Lock) -> Iterator[None]:
    """By another thread, as at the moment of a fork it may be."""
    taken, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            taken.set()
            let_go.wait(PATIENCE)

    holder = Caller(hold)
    assert taken.wait(PATIENCE)
    yield
    let_go.set()
    holder.result()


def test_both_sides_use_connections_of_their_own(threaded: ThreadedService, sync_cache: Cache) -> None:
    pages = sync_cache.namespace("pages")
    threaded.fake.hold("a", b"1")
    assert pages.get("a") == b"1"

    def reads() -> bytes | None:
        return b"".join(pages.get("a") or b"" for _ in range(20))

    here = Caller(reads)
    assert in_child(reads) == b"1" * 20
    assert here.result() == b"1" * 20
    assert sync_cache.statistics().failovers == 0


def test_the_child_honours_what_was_written_before_the_fork(
    threaded: ThreadedService, sync_cache: Cache
) -> None:
    pages = sync_cache.namespace("pages")
    threaded.fake.hold("a", b"old")
    pages.invalidate(["a"])
    assert in_child(lambda: pages.get("a")) == b"None"


def test_a_lock_that_another_thread_held_does_not_stay_held_in_the_child(
    threaded: ThreadedService, sync_cache: Cache
) -> None:
    pages = sync_cache.namespace("pages")
    pages.get_or_load("a", lambda _key: b"1")
    pages.get("a")
    gc.collect()  # the clients of other tests
    locks = [
        value
        for part in forks._forked
        for value in vars(part).values()
        if isinstance(value, type(threading.Lock()))
    ]
    assert len(locks) >= 8
    for lock in locks:
        with held(lock):
            assert in_child(lambda: pages.get_or_load("b", lambda _key: b"2")) == b"2"
            assert in_child(lambda: pages.get("b")) == b"2"
        pages.delete("b")


def test_a_load_that_another_thread_runs_is_not_waited_for_in_the_child(
    threaded: ThreadedService, sync_cache: Cache
) -> None:
    entered, gate = threading.Event(), threading.Event()

    def load(_key: str) -> bytes:
        entered.set()
        assert gate.wait(PATIENCE)
        return b"parent"

    pages = sync_cache.namespace("pages")
    loading = Caller(lambda: pages.get_or_load("a", load))
    assert entered.wait(PATIENCE)
    threaded.fake.leases.clear()  # it expires
    assert in_child(lambda: pages.get_or_load("a", lambda _key: b"child")) == b"child"
    gate.set()
    assert loading.result() == b"parent"
