"""The queues that the contract of `Changes` and `FenceStream` is checked on."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.contracts.queue_benches import QueueBench, memory_bench, redis_bench
from tests.doubles.servers import RealServer, redis_server, valkey_server

KINDS = {"memory": None, "redis": redis_server, "valkey": valkey_server}


@pytest.fixture(scope="module", params=KINDS)
def queue_server(request: pytest.FixtureRequest) -> Iterator[RealServer | None]:
    start = KINDS[request.param]
    if start is None:
        yield None
        return
    with start() as running:
        yield running


@pytest.fixture
async def queue(queue_server: RealServer | None) -> AsyncIterator[QueueBench]:
    async with memory_bench() if queue_server is None else redis_bench(queue_server) as found:
        yield found
