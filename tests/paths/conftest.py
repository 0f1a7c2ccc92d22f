"""Home cells for the traces that a cell alone decides."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.contracts.cell_benches import CellBench, memory_bench, redis_bench
from tests.doubles.servers import RealServer, redis_server


@pytest.fixture(scope="session")
def cell_server() -> Iterator[RealServer]:
    with redis_server() as running:
        yield running


@pytest.fixture(params=["memory", "redis"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[CellBench]:
    opened = memory_bench() if request.param == "memory" else redis_bench(request.getfixturevalue("cell_server"))
    async with opened as found:
        yield found
