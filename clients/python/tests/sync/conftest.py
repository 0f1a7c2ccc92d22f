"""A fake service on a free loopback port, and sync clients of it."""

from collections.abc import Iterator

import pytest
from cachesvc_client.sync import Cache

from clients.python.tests.sync.threaded_service import ThreadedService


@pytest.fixture
def threaded() -> Iterator[ThreadedService]:
    with ThreadedService() as running:
        yield running


@pytest.fixture
def sync_cache(threaded: ThreadedService) -> Iterator[Cache]:
    with Cache.from_url(threaded.url, default_timeout="5s") as opened:
        yield opened
