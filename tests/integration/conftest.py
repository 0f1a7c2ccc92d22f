"""Real servers that tests of one module share, and a receiver of telemetry for each test."""

from collections.abc import Iterator

import pytest

from tests.doubles.otlp import OtlpReceiver
from tests.doubles.servers import RealServer, memcached_server, redis_server


@pytest.fixture(scope="module")
def memcached() -> Iterator[RealServer]:
    with memcached_server() as running:
        yield running


@pytest.fixture(scope="module")
def redis() -> Iterator[RealServer]:
    with redis_server() as running:
        yield running


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as running:
        yield running
