"""A rolling restart behind HAProxy: plain clients and an SDK see no failed call."""

import http.client
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml
from cachesvc_client.sync import Cache

from loadtests.fleet import Fleet
from loadtests.fleet_topology import one_region
from tests.doubles.proxies import HAPROXY, balancer
from tests.integration.test_serve import call, wait_ready

CHECK_SECONDS = 0.1
DRAIN_SECONDS = 1.0
"""Enough for two failed checks, after which HAProxy leaves an instance, on a busy machine."""
PATH = "/v1/pages/k"


class Callers:
    """Threads that ask one after the other, and count how that ends."""

    def __init__(self, url: str, sdk: str = "") -> None:
        self._address = url.removeprefix("http://")
        self._sdk = sdk
        self._is_over = threading.Event()
        self.plain: Counter[str] = Counter()
        """How requests ended over `url`: the status, or the error. Each is sent once."""
        self.by_sdk: Counter[str] = Counter()
        self.failovers = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        work = [self._get, self._get, self._put, *([self._ask_sdk] if self._sdk else [])]
        threads = [threading.Thread(target=one) for one in work]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            for thread in threads:
                thread.join()

    def _get(self) -> None:
        self._send("GET")

    def _put(self) -> None:
        self._send("PUT", b"v")

    def _send(self, method: str, body: bytes | None = None) -> None:
        link = http.client.HTTPConnection(self._address, timeout=20)
        while not self._is_over.wait(0.01):
            try:
                link.request(method, PATH, body)
                answer = link.getresponse()
                answer.read()
                self.plain[str(answer.status)] += 1
            except (OSError, http.client.HTTPException) as error:
                self.plain[type(error).__name__] += 1
                link.close()
        link.close()

    def _ask_sdk(self) -> None:
        with Cache.from_url(self._sdk, default_timeout="10s") as cache:
            pages, number = cache.namespace("pages"), 0
            while not self._is_over.wait(0.01):
                key, number = f"k{number % 50}", number + 1
                try:
                    if number % 10:
                        pages.get(key)
                    else:
                        pages.set(key, b"v")
                    self.by_sdk["ok"] += 1
                except Exception as error:  # noqa: BLE001  whatever it is, a call has failed
                    self.by_sdk[repr(error)] += 1
            self.failovers = cache.statistics().failovers


@pytest.mark.skipif(HAPROXY is None, reason="no haproxy on PATH")
def test_a_rolling_restart_with_a_drain_fails_nobody_and_one_without_fails_many() -> None:
    with TemporaryDirectory(prefix="csvc-", dir="/tmp") as root:
        document, service = Path(root, "topology.yaml"), Path(root, "service.yaml")
        document.write_text(yaml.safe_dump(one_region(["a", "b"])))
        settings = {"CACHESVC_CONFIG": str(service), "CACHESVC_COHERENCE_SKETCH_SLOTS": "65536"}

        def set_drain(seconds: float) -> None:
            service.write_text(f"server: {{drain: {seconds}s}}\n")

        set_drain(DRAIN_SECONDS)
        with Fleet(document, Path(root, "fleet"), environ=settings) as fleet:
            servers = {name: fleet.url(name).removeprefix("http://") for name in ("a", "b")}
            with balancer(servers, CHECK_SECONDS) as url:

                def restart(name: str) -> None:
                    """Ends when HAProxy sends requests to it again."""
                    fleet.instances[name].restart()
                    time.sleep(5 * CHECK_SECONDS)

                wait_ready(url)
                call(f"{url}{PATH}", "PUT", b"v")
                callers = Callers(url, f"{fleet.url('a')},{fleet.url('b')}")
                with callers.running():
                    time.sleep(0.2)
                    restart("a")
                    set_drain(0)
                    restart("b")
                assert callers.plain.keys() == {"200", "204"}, callers.plain
                assert callers.by_sdk.keys() == {"ok"}, callers.by_sdk
                assert min(callers.plain.total(), callers.by_sdk.total()) > 100
                assert callers.failovers == 0

                callers = Callers(url)
                with callers.running():
                    time.sleep(0.2)
                    fleet.instances["b"].stop()
                assert callers.plain.keys() > {"200", "204"}, callers.plain
