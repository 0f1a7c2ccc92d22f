"""The sync SDK against the real service: threads of two clients that know nothing of each other."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

import pytest
from cachesvc_client import ABSENT, Absent, Hit, Miss, NearSettings
from cachesvc_client.sync import Cache

from clients.python.tests.sync.callers import in_child, in_greenlets, until


class Pages:
    """A loader that counts."""

    def __init__(self) -> None:
        self.loads = 0
        self.text = b"first"
        self._lock = Lock()

    def load(self, key: str) -> bytes:
        with self._lock:
            self.loads += 1
        time.sleep(0.05)  # a slow source: the others have to wait
        return self.text


def test_one_of_many_threads_in_two_clients_loads(url: str) -> None:
    pages = Pages()
    with Cache.from_url(url, default_timeout="5s") as one, Cache.from_url(url, default_timeout="5s") as two:
        namespaces = [one.namespace("pages"), two.namespace("pages")]
        with ThreadPoolExecutor(40) as threads:
            asking = [
                threads.submit(namespaces[i % 2].get_or_load, "sync-shared", pages.load, ttl="5m")
                for i in range(40)
            ]
            assert {future.result() for future in asking} == {b"first"}
    assert pages.loads == 1


def test_an_invalidation_after_a_commit_is_seen_by_its_client_at_once(url: str) -> None:
    pages = Pages()
    with Cache.from_url(url, default_timeout="5s") as cache:
        namespace = cache.namespace("pages")
        assert namespace.get_or_load("{ws-8}:block:42", pages.load, tags=["user:10"]) == b"first"
        found = namespace.lookup("{ws-8}:block:42")
        assert isinstance(found, Hit)
        assert found.value == b"first"
        pages.text = b"second"
        with cache.on_commit() as tx:
            tx.invalidate(namespace, tags=["user:10"])
        assert namespace.lookup("{ws-8}:block:42") == Miss()
        assert namespace.get_or_load("{ws-8}:block:42", pages.load, tags=["user:10"]) == b"second"


@pytest.mark.parametrize(
    "purge", [{"tags": ["news"]}, {"all": True, "confirm": "pages"}, {"tags": ["news"], "soft": True}]
)
@pytest.mark.parametrize("near", [None, NearSettings()])
def test_what_is_set_just_after_an_invalidation_is_read_by_its_client_and_by_others(
    url: str, purge: dict[str, Any], near: NearSettings | None
) -> None:
    with (
        Cache.from_url(url, default_timeout="5s") as writer,
        Cache.from_url(url, default_timeout="5s") as reader,
    ):
        mine, others = writer.namespace("pages", near=near), reader.namespace("pages", near=near)
        mine.set("sync-after", b"old", tags=["news"])
        mine.invalidate(**purge)
        mine.set("sync-after", b"one", tags=["news"])
        assert mine.get("sync-after") == b"one"
        mine.invalidate(**purge)
        mine.set_many({"sync-after": b"many", "sync-beside": b"many"}, tags=["news"])
        assert mine.get("sync-after") == b"many"
        assert others.get("sync-beside") == b"many"


def test_many_and_single_gets_agree_and_absence_is_remembered(url: str) -> None:
    def nothing(_key: str) -> Absent:
        return ABSENT

    with Cache.from_url(url, default_timeout="5s") as cache:
        namespace = cache.namespace("pages")
        keys = [f"sync{i}" for i in range(100)]
        namespace.set_many({key: key.encode() for key in keys})
        with ThreadPoolExecutor(20) as threads:
            singles = list(threads.map(namespace.get, keys))
        assert singles == [key.encode() for key in keys]
        assert dict(zip(keys, singles, strict=True)) == namespace.get_many(keys)
        assert cache.statistics().requests < 100, "threads shared requests"
        assert namespace.get_or_load("sync-nobody", nothing, default=b"none") == b"none"
        assert namespace.get("sync-nobody", b"none") == b"none"
        assert namespace.touch("sync1", ttl="5m")


def test_a_near_copy_is_read_without_a_request_until_another_client_invalidates_it(url: str) -> None:
    with (
        Cache.from_url(url, default_timeout="5s") as writer,
        Cache.from_url(url, default_timeout="5s") as reader,
    ):
        writer.namespace("pages").set("sync-near", b"1")
        pages = reader.namespace("pages", near=NearSettings())
        until(lambda: isinstance(found := pages.lookup("sync-near"), Hit) and found.tier == "near")
        before = reader.statistics().requests
        assert [pages.get("sync-near") for _ in range(100)] == [b"1"] * 100
        assert pages.get_many(["sync-near"]) == {"sync-near": b"1"}
        assert reader.statistics().requests == before
        writer.namespace("pages").set("sync-near", b"2")
        until(lambda: pages.get("sync-near") == b"2")


def test_a_child_process_has_a_near_cache_and_a_feed_of_its_own(url: str) -> None:
    with Cache.from_url(url, default_timeout="5s") as cache:
        pages = cache.namespace("pages", near=NearSettings())
        pages.set("sync-fork", b"1")
        until(lambda: isinstance(found := pages.lookup("sync-fork"), Hit) and found.tier == "near")

        def child() -> bytes:
            assert not isinstance(found := pages.lookup("sync-fork"), Hit) or found.tier != "near"
            until(lambda: isinstance(found := pages.lookup("sync-fork"), Hit) and found.tier == "near")
            return b"near"

        assert in_child(child) == b"near"
        assert pages.get("sync-fork") == b"1"


def test_greenlets_share_a_client_with_a_near_cache(url: str) -> None:
    said = in_greenlets(url, "gets", "loads", "near")
    assert [said[name]["right"] for name in ("gets", "loads", "near")] == [200, 200, 200]
    assert (said["loads"]["loads"], said["near"]["requests"]) == (1, 0)
