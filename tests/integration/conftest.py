"""Real servers that tests of one module share, and a receiver of telemetry for each test."""

import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from loadtests.fleet_topology import free_ports
from tests.doubles.otlp import OtlpReceiver
from tests.doubles.servers import RealServer, memcached_server, redis_server
from tests.integration.test_serve import read_banner, served, wait_settled


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


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The URL of a service on embedded servers."""
    (port,) = free_ports(1)
    with TemporaryDirectory(prefix="csvc-", dir="/tmp") as root:
        process = served(Path(root), port)
        try:
            read_banner(process)
            wait_settled(f"http://127.0.0.1:{port}")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)
