"""A cell that hangs costs its own keys one bounded wait per probe, and no wait per read.

The server is a real one, stopped with SIGSTOP: it takes connections and answers nothing.
"""

from collections.abc import AsyncIterator, Iterator

import pytest

from cachesvc.config.service import L3, Breakers
from cachesvc.model.change import Target
from cachesvc.model.clock import SystemClock
from cachesvc.model.entry import Key
from cachesvc.model.errors import TierError, TierTimeoutError, TierUnavailableError
from cachesvc.model.units import Duration
from cachesvc.tiers.breaker import NOT_TRIED, Breaker, BreakerState
from cachesvc.tiers.l3.contract import Read, Reply
from cachesvc.tiers.l3.redis_cell import READS_IN_FLIGHT, RedisCell
from tests.doubles.servers import RealServer, redis_server

BRISK = L3(connect_timeout=Duration.parse("50ms"), timeout=Duration.parse("50ms"))
KEY = Key.of("docs", "a")
READ = Read(KEY, lease=True, refresh=True)


class Seconds:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def server() -> Iterator[RealServer]:
    with redis_server(tcp=True) as running:
        yield running


@pytest.fixture
def clock() -> Seconds:
    return Seconds()


@pytest.fixture
async def cell(server: RealServer, clock: Seconds) -> AsyncIterator[RedisCell]:
    cell = RedisCell(
        "c1", server.redis_url, BRISK, 20_000, SystemClock(), breaker=Breaker(Breakers(), now=clock)
    )
    await cell.start()
    while isinstance(await read(cell), TierError):
        clock.now += 2  # a busy machine
    cell.breaker.seen()
    yield cell
    server.resume()
    await cell.stop()


async def read(cell: RedisCell) -> Reply | TierError:
    (reply,) = await cell.read_many([READ])
    return reply


async def hang(cell: RedisCell, server: RealServer) -> list[Reply | TierError]:
    """The replies from the stop of the server until the cell is left alone."""
    server.pause()
    replies = []
    while cell.breaker.state is not BreakerState.OPEN:
        replies.append(await read(cell))
    return replies


async def test_after_the_first_time_outs_nothing_waits_for_a_hung_cell(
    cell: RedisCell, server: RealServer
) -> None:
    waited = await hang(cell, server)
    assert all(isinstance(reply, TierTimeoutError) for reply in waited)
    assert len(waited) <= READS_IN_FLIGHT + 1, "on each open connection, and to make another one"
    asked = cell.statistics().exchanges
    for _ in range(500):
        reply = await read(cell)
        assert isinstance(reply, TierUnavailableError)
        assert NOT_TRIED in str(reply)
    (fenced,) = await cell.fence_many([Target.key("docs", "a")], soft=False)
    assert isinstance(fenced, TierUnavailableError)
    assert cell.statistics().exchanges == asked


async def test_a_hung_cell_is_asked_once_a_second_however_many_read(
    cell: RedisCell, server: RealServer, clock: Seconds
) -> None:
    await hang(cell, server)
    for _ in range(4):  # the pauses grow to one second
        clock.now += 2
        await read(cell)
    asked = cell.statistics().exchanges
    for _ in range(500):
        clock.now += 0.01
        await read(cell)
    assert 2 <= cell.statistics().exchanges - asked <= 5


async def test_a_cell_that_goes_on_is_used_again(cell: RedisCell, server: RealServer, clock: Seconds) -> None:
    await hang(cell, server)
    server.resume()
    tried = 0
    while cell.breaker.is_open:
        clock.now += 2
        tried += 1
        await read(cell)
    assert isinstance(await read(cell), Reply)
    assert tried < 30


async def test_the_look_at_an_idle_cell_ends_that_it_is_left_alone(
    cell: RedisCell, server: RealServer
) -> None:
    await hang(cell, server)
    server.resume()
    while cell.breaker.is_open:
        try:
            await cell.report()
        except TierError:
            continue
    assert isinstance(await read(cell), Reply)
