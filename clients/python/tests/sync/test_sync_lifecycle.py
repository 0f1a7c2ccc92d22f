"""A client is opened by a call or by blocks, on whichever thread, and closing never takes long."""

import os
import subprocess
import sys
import threading
import time

import pytest
from cachesvc_client import NearSettings
from cachesvc_client.sync import Cache, CacheError

from clients.python.tests.sync.callers import Caller, calls, in_child, results, until
from clients.python.tests.sync.threaded_service import ThreadedService


@pytest.fixture(autouse=True)
def _held(threaded: ThreadedService) -> None:
    threaded.fake.hold("a", b"1")


def test_the_first_call_opens_and_close_closes(threaded: ThreadedService) -> None:
    cache = Cache.from_url(threaded.url)
    pages = cache.namespace("pages")
    assert repr(cache).endswith("[closed]>")
    assert pages.get("a") == b"1"
    assert repr(cache).endswith("[open]>")
    cache.close()
    with pytest.raises(CacheError, match=r"closed: .*`with`, or `open\(\)`, opens it again"):
        pages.get("a")
    assert cache.open() is cache
    assert pages.get("a") == b"1"
    cache.close()
    cache.close()


def test_the_last_block_of_all_threads_closes(threaded: ThreadedService) -> None:
    cache = Cache.from_url(threaded.url)
    pages = cache.namespace("pages")
    inside, leaves = threading.Event(), threading.Event()

    def other() -> bytes | None:
        with cache:
            inside.set()
            assert leaves.wait(10)
            return pages.get("a")

    with cache:
        caller = Caller(other)
        assert inside.wait(10)
        with cache:
            assert pages.get("a") == b"1"
    assert pages.get("a") == b"1"
    leaves.set()
    assert caller.result() == b"1"
    until(lambda: repr(cache).endswith("[closed]>"))


def test_a_block_does_not_close_what_a_call_has_opened(threaded: ThreadedService) -> None:
    pages = (cache := Cache.from_url(threaded.url)).namespace("pages")
    assert pages.get("a") == b"1"
    with cache:
        pass
    assert pages.get("a") == b"1"
    cache.close()


def test_first_calls_of_many_threads_open_it_once(threaded: ThreadedService) -> None:
    cache = Cache.from_url(threaded.url)
    pages = cache.namespace("pages")
    together = threading.Barrier(16)

    def asks() -> bytes | None:
        together.wait(10)
        return pages.get("a")

    assert results(calls(*[asks] * 16)) == [b"1"] * 16
    cache.close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("used_before", [False, True])
def test_workers_of_a_module_that_was_loaded_before_the_fork(
    threaded: ThreadedService, used_before: bool
) -> None:
    """As by `gunicorn --preload`: the module makes the cache, and may have used it."""
    cache = Cache.from_url(threaded.url, default_timeout="5s")
    pages = cache.namespace("pages")
    if used_before:
        assert pages.get("a") == b"1"

    def serves() -> bytes | None:
        return b"".join(answer or b"" for answer in results(calls(*[lambda: pages.get("a")] * 8)))

    assert [in_child(serves) for _ in range(3)] == [b"1" * 8] * 3
    assert pages.get("a") == b"1"
    assert cache.statistics().failovers == 0
    cache.close()


def test_closing_under_calls_ends_them_with_answers_or_errors(threaded: ThreadedService) -> None:
    cache = Cache.from_url(threaded.url, default_timeout="5s")
    pages = cache.namespace("pages")

    def asks() -> str:
        while True:
            try:
                assert pages.get("a") == b"1"
            except CacheError as error:
                return error.type

    callers = calls(*[asks] * 8)
    until(lambda: cache.statistics().requests > 20)
    cache.close()
    assert set(results(callers)) == {"closed"}


def test_closing_does_not_wait_for_a_feed_that_says_nothing() -> None:
    """The instance accepts connections, and never answers."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        cache = Cache.from_url(f"http://127.0.0.1:{silent.getsockname()[1]}")
        namespace = cache.namespace("pages", near=NearSettings())
        cache.open()
        began = time.monotonic()
        cache.close()
        assert time.monotonic() - began < 1.5
        del namespace


PROGRAM = """
import sys
from cachesvc_client.sync import Cache, NearSettings
cache = Cache.from_url(sys.argv[1], discover=False)
pages = cache.namespace("pages")
near = cache.namespace("pages", near=NearSettings())
assert pages.get("a") == b"1"
def fails(key):
    raise KeyError(key)
try:
    pages.get_or_load("b", fails)  # a release is left to a thread
except KeyError:
    pass
"""


def test_a_program_that_never_closes_ends_at_once(threaded: ThreadedService) -> None:
    command = [sys.executable, "-X", "dev", "-c", PROGRAM, threaded.url]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    words = [line for line in ended.stderr.splitlines() if "the feed of fences is down" not in line]
    assert (ended.returncode, ended.stdout, words) == (0, "", [])
