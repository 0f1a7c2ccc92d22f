"""A token shows who the client is; threads whose token is refused share a fetch."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cachesvc_client.sync import Cache, CacheError, NearSettings, UnauthenticatedError

from clients.python.tests.sync.threaded_service import ThreadedService

OLD, NEW = "old-token-of-checkout", "new-token-of-checkout"


class Issuer:
    """Issues a token at each call, the next one of these; the last one from then on."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = list(tokens)
        self.calls = 0
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self) -> str:
        self.calls += 1
        self.gate.wait(5)
        return self.tokens.pop(0) if len(self.tokens) > 1 else self.tokens[0]


def test_it_goes_with_every_request(threaded: ThreadedService) -> None:
    threaded.fake.tokens = {OLD}
    with Cache.from_url(threaded.url, token=OLD) as cache:
        pages = cache.namespace("pages", near=NearSettings())
        pages.set("k", b"v")
        assert pages.get("k") == b"v"
        ends = time.monotonic() + 5
        while "/v1/fences" not in {path for path, _ in threaded.fake.shown} and time.monotonic() < ends:
            time.sleep(0.01)
    assert {path for path, _ in threaded.fake.shown} >= {"/v1/topology", "/v1/fences", "/v1/pages:put"}
    assert {authorization for _, authorization in threaded.fake.shown} == {f"Bearer {OLD}"}


def test_a_refused_token_is_fetched_once_for_all_threads(threaded: ThreadedService) -> None:
    threaded.fake.tokens = {NEW}
    issuer = Issuer(OLD, NEW)
    threaded.fake.hold("k", b"v")
    with Cache.from_url(threaded.url, token=issuer, batching=False, discover=False) as cache:
        pages = cache.namespace("pages")
        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(pages.get, ["k"] * 20)) == [b"v"] * 20
    assert issuer.calls == 2


def test_a_second_refusal_is_an_error(threaded: ThreadedService) -> None:
    threaded.fake.tokens = set()
    issuer = Issuer(OLD, NEW, OLD)
    with Cache.from_url(threaded.url, token=issuer, discover=False) as cache:
        for _ in range(3):
            with pytest.raises(UnauthenticatedError, match="unknown-identity") as raised:
                cache.namespace("pages").get("k")
            assert raised.value.status == 401
    assert issuer.calls == 2


def test_a_file_is_read_again(threaded: ThreadedService, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{OLD}\n")
    threaded.fake.tokens = {OLD}
    with Cache.from_url(threaded.url, token=file, discover=False) as cache:
        pages = cache.namespace("pages")
        pages.get("k")
        file.write_text(NEW)
        threaded.fake.tokens = {NEW}
        pages.get("k")
        file.write_text(OLD)
        threaded.fake.tokens = {OLD, NEW}
        cache._bearer.known._due = 0.0  # a second later
        pages.get("k")
        assert threaded.fake.shown[-1][1] == f"Bearer {OLD}"
        file.unlink()
        cache._bearer.known._due = 0.0
        pages.get("k")
        assert threaded.fake.shown[-1][1] == f"Bearer {OLD}"


def test_a_thread_waits_for_a_fetch_no_longer_than_its_call_may(threaded: ThreadedService) -> None:
    issuer = Issuer(OLD)
    issuer.gate.clear()
    with (
        Cache.from_url(threaded.url, token=issuer, discover=False, batching=False) as cache,
        ThreadPoolExecutor(1) as threads,
    ):
        first = threads.submit(cache.namespace("pages").get, "k")
        while not issuer.calls:
            time.sleep(0.001)
        with pytest.raises(CacheError, match="deadline"):
            cache.namespace("pages", timeout="20ms").get("k")
        issuer.gate.set()
        first.result(5)
    assert issuer.calls == 1


def test_an_async_function_is_a_mistake_that_is_told(threaded: ThreadedService) -> None:
    async def token() -> str:
        return OLD

    with (
        Cache.from_url(threaded.url, token=token, discover=False) as cache,
        pytest.raises(UnauthenticatedError, match="TypeError"),
    ):
        cache.namespace("pages").get("k")
