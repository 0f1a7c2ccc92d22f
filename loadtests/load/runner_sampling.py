"""Samples the origin's counts and every instance's metrics each second.

Each sample is a line of `servers.jsonl`. Sampling has a thread of its own, because the thread
that breaks things waits for servers, and this must not leave gaps in the record.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import urllib3

from loadtests.bench.cores import cpu_seconds
from loadtests.fleet import Fleet
from loadtests.load.judge_rows import OriginRow, ServerRow

EVERY_SECONDS = 1.0
WAIT_SECONDS = 0.8
"""A server that does not answer within this time is missing in the row."""


class Sampling:
    """A context manager: samples while it is open."""

    def __init__(self, origin_url: str, fleet: Fleet, path: Path) -> None:
        self._origin_url = origin_url
        self._processes = fleet.instances
        self._instances = {name: fleet.url(name) for name in fleet.instances}
        """Name → base URL."""
        self._path = path
        self._over = threading.Event()
        self._http = urllib3.PoolManager(timeout=WAIT_SECONDS, retries=False, maxsize=2)
        self._thread = threading.Thread(target=self._sample, name="sampling", daemon=True)

    def __enter__(self) -> "Sampling":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._http.clear()

    def _sample(self) -> None:
        with self._path.open("ab", buffering=0) as out, ThreadPoolExecutor(len(self._instances) + 1) as pool:
            due = time.monotonic()
            while not self._over.wait(max(0.0, due - time.monotonic())):
                due += EVERY_SECONDS
                out.write(msgspec.json.encode(self._row(pool)) + b"\n")

    def _row(self, pool: ThreadPoolExecutor) -> ServerRow:
        at = time.time()
        origin = pool.submit(self._ask, f"{self._origin_url}/_stats")
        instances = pool.map(lambda url: metrics_of(self._ask(f"{url}/metrics")), self._instances.values())
        stats = origin.result()
        told = msgspec.json.decode(stats, type=OriginRow) if stats else None
        return ServerRow(at, told, dict(zip(self._instances, instances, strict=True)), dict(self._used()))

    def _used(self) -> Iterator[tuple[str, float]]:
        for name, process in self._processes.items():
            with contextlib.suppress(FileNotFoundError):  # it does not run now
                yield name, cpu_seconds(process.pid)

    def _ask(self, url: str) -> bytes:
        """The body of the answer; empty if there is no answer with status 200."""
        try:
            answer = self._http.request("GET", url)
        except urllib3.exceptions.HTTPError:
            return b""
        return answer.data if answer.status == 200 else b""


def metrics_of(exposition: bytes) -> dict[str, float]:
    """The metrics without labels, by name without the prefix `cachesvc_`."""
    lines = (
        line.split()
        for line in exposition.decode().splitlines()
        if line.startswith("cachesvc_") and "{" not in line
    )
    return {name.removeprefix("cachesvc_"): float(value) for name, value, *_ in lines}
