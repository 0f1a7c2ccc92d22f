"""A Prometheus beside the load: a thread that reads `/metrics`, more often than usual."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import urlopen

from loadtests.bench.figures import BenchError

PAUSE_SECONDS = 3.0


@contextmanager
def scraped(base_url: str) -> Iterator[None]:
    """Reads `/metrics` while the block runs: at once, and then every three seconds.

    Raises `BenchError` at the end if a read failed.
    """
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
