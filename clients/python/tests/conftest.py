"""A fake service on a free loopback port, and clients of it."""

from collections.abc import AsyncIterator

import pytest
from cachesvc_client import Cache
from cachesvc_client.instances import endpoints

from clients.python.tests.fake_service import FakeService


@pytest.fixture(autouse=True)
def _nothing_is_known_of_instances() -> None:
    """A free port may have been that of an instance which another test left sick."""
    endpoints._shared.clear()


@pytest.fixture
async def service() -> AsyncIterator[FakeService]:
    async with FakeService() as running:
        yield running


@pytest.fixture
async def cache(service: FakeService) -> AsyncIterator[Cache]:
    async with Cache.from_url(service.url, default_timeout="5s") as opened:
        yield opened
