"""Home cells and queues for the traces that they decide alone, and reads without a task.

Cells and queues are in memory, and on one real server.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from cachesvc.model.entry import Key
from cachesvc.model.requests import PLAIN, Answer, ReadOptions
from cachesvc.paths.read import Reader
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


@pytest.fixture(params=["get", "get_soon"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has plain reads of keys that L1 does not hold go by `get`, and by `get_soon`."""
    get = Reader.get

    async def soon(reader: Reader, key: Key, options: ReadOptions = PLAIN) -> Answer:
        if options is not PLAIN or not reader.is_beyond_l1(key):
            return await get(reader, key, options)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def answered(answer: Answer | Exception) -> None:
            if future.done():
                assert future.cancelled(), "it is called once"
            elif isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

        reader.get_soon(key, answered)
        assert not future.done(), "it is called in a later turn"
        return await future

    if request.param == "get_soon":
        monkeypatch.setattr(Reader, "get", soon)
