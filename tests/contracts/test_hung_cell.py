"""A cell that hangs costs its own keys a wait per probe, and other cells' keys nothing.

The server is a real one, stopped with SIGSTOP: it takes connections and answers nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from cachesvc.app.instance import App
from cachesvc.config.service import L1, L3, Breakers, Coherence, Server, Service
from cachesvc.config.topology import Cell, Namespace, Region, Topology
from cachesvc.model.change import Target
from cachesvc.model.clock import SystemClock
from cachesvc.model.entry import Key
from cachesvc.model.errors import TierError, TierTimeoutError, TierUnavailableError
from cachesvc.model.requests import Draft
from cachesvc.model.units import Duration
from cachesvc.tiers.breaker import NOT_TRIED, Breaker, BreakerState
from cachesvc.tiers.l3.contract import Read, Reply
from cachesvc.tiers.l3.redis_cell import READS_IN_FLIGHT, RedisCell
from tests.doubles.servers import RealServer, redis_server
from tests.doubles.waiting import until

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


async def test_reads_and_writes_of_other_cells_keys_do_not_wait_for_a_hung_cell() -> None:
    """The hung cell's time limit is longer than the test, so what waits for it does not end."""
    with redis_server() as queue, redis_server() as hung, redis_server() as well:
        cells = {"hung": Cell("eu", hung.redis_url), "well": Cell("eu", well.redis_url)}
        topology = Topology(
            version=1,
            regions={"eu": Region(queue.redis_url)},
            cells=cells,
            namespaces={"docs": Namespace("tests", ttl=Duration.parse("10m"), jitter=0)},
        )
        service = Service(
            region="eu",
            instance="eu-a",
            server=Server(port=0, request_timeout=Duration.parse("30s")),
            l1=L1(max_entries=1),
            l3=L3(timeout=Duration.parse("20s")),
            coherence=Coherence(sketch_slots=1 << 12),
        )
        app = await asyncio.to_thread(App, service, topology)  # it reads files
        await app.start()
        try:
            await until("it is ready", lambda: app.readiness()[0])
            keys = [Key.of("docs", f"key-{number}") for number in range(100)]
            own = [key for key in keys if app.paths.homes.of(key).name == "hung"]
            others = [key for key in keys if app.paths.homes.of(key).name == "well"]
            read, put = app.paths.reader.get, app.paths.writer.put
            hung.pause()
            waiting: list[asyncio.Task[Any]] = [asyncio.create_task(read(key)) for key in own]
            waiting += [asyncio.create_task(put(key, Draft(b"new"))) for key in own[:20]]
            cell = app.remote.cells["well"]
            assert isinstance(cell, RedisCell)
            asked = cell.statistics().exchanges
            for key in others:
                await read(key)
                await put(key, Draft(b"new"))
            assert cell.statistics().exchanges >= asked + 2 * len(others)
            assert len(waiting) > 3 * READS_IN_FLIGHT
            assert not any(task.done() for task in waiting)
        finally:
            hung.resume()
            await app.stop()
