"""A Prometheus beside the load: reads `/metrics` from a thread, more often than one would."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import urlopen

from loadtests.bench.figures import BenchError

PAUSE_SECONDS = 3.0


@contextmanager
def scraped(base_url: str) -> Iterator[None]:
    """`/metrics` is read every three seconds while this runs, the first time at once. Raises `BenchError` if it could not be."""
    over = threading.Event()
    failures: list[OSError] = []

    def scrape() -> None:
        try:
            while True:
                with urlopen(f"{base_url}/metrics", timeout=10) as answer:
                    answer.read()
                if over.wait(PAUSE_SECONDS):
                    return
        except OSError as failure:
            failures.append(failure)

    thread = threading.Thread(target=scrape, name="scraper")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if failures:
        raise BenchError(f"/metrics could not be read: {failures[0]}")
