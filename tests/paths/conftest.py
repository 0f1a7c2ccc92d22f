"""Home cells and queues for the traces that they decide alone: in memory, and on one real server."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.contracts import cell_benches, queue_benches
from tests.contracts.cell_benches import CellBench
from tests.contracts.queue_benches import QueueBench
from tests.doubles.servers import RealServer, redis_server


@pytest.fixture(scope="session")
def server() -> Iterator[RealServer]:
    with redis_server() as running:
        yield running


@pytest.fixture(params=["memory", "redis"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[CellBench]:
    is_real = request.param == "redis"
    opened = (
        cell_benches.redis_bench(request.getfixturevalue("server"))
        if is_real
        else cell_benches.memory_bench()
    )
    async with opened as found:
        yield found


@pytest.fixture(params=["memory", "redis"])
async def queue(request: pytest.FixtureRequest) -> AsyncIterator[QueueBench]:
    is_real = request.param == "redis"
    opened = (
        queue_benches.redis_bench(request.getfixturevalue("server"))
        if is_real
        else queue_benches.memory_bench()
    )
    async with opened as found:
        yield found
