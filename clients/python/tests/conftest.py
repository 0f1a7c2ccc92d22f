"""A fake service on a free loopback port, and clients of it."""

from collections.abc import AsyncIterator

import pytest
from cachesvc_client import Cache

from clients.python.tests.fake_service import FakeService


@pytest.fixture
async def service() -> AsyncIterator[FakeService]:
    async with FakeService() as running:
        yield running


@pytest.fixture
async def cache(service: FakeService) -> AsyncIterator[Cache]:
    async with Cache.from_url(service.url, default_timeout="5s") as opened:
        yield opened
