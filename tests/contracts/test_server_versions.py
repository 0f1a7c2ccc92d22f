"""Servers that are too old, or answer as no server does, are refused with the reason."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from cachesvc.changes.redis import server as queue_server
from cachesvc.changes.redis.changes import RedisChanges
from cachesvc.changes.redis.server import RedisServer
from cachesvc.config.service import L3
from cachesvc.model.change import Change
from cachesvc.model.clock import SystemClock
from cachesvc.model.errors import TierError, TierUnavailableError
from cachesvc.model.units import Duration
from cachesvc.tiers.l3.contract import Read
from cachesvc.tiers.l3.redis_cell import RedisCell
from tests.contracts.cell_benches import KEY, SETTINGS, SKEW_US
from tests.doubles.servers import RealServer, redis_server, valkey_server


@asynccontextmanager
async def hostile(info: str) -> AsyncIterator[str]:
    """A server that greets as Redis does and answers `INFO` with this; its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            words = []
            for _ in range(int(line[1:])):
                size = int((await reader.readline())[1:])
                words.append((await reader.readexactly(size + 2))[:-2])
            answers = {
                b"HELLO": b"%1\r\n$5\r\nproto\r\n:3\r\n",
                b"EVALSHA": b"*2\r\n:1\r\n$0\r\n\r\n",
                b"INFO": b"$%d\r\n%b\r\n" % (len(info), info.encode()),
            }
            writer.write(answers.get(words[0].upper(), b"+OK\r\n"))
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}/0"
    listening.close()


@pytest.mark.parametrize(
    ("info", "why"),
    [
        (
            "redis_version:6.2.14\r\nrun_id:r1\r\n",
            "version 6.2.14 is too old: a cell needs Redis 7.0, or Valkey 7.2, or later",
        ),
        (
            "redis_version:soon\r\nrun_id:r1\r\n",
            "version soon is too old: a cell needs Redis 7.0, or Valkey 7.2, or later",
        ),
        ("redis_version:7.4.0\r\n", "its INFO has no run_id, so it is not known which server it is"),
        ("", "its INFO has no run_id, so it is not known which server it is"),
        ("redis_version:7.4.0\r\nrun_id:r1\r\nrole:slave\r\n", "its role is slave: a cell is a master"),
        ("redis_version:7.4.0\r\nrun_id:r1\r\n", "its role is unknown: a cell is a master"),
    ],
)
async def test_a_cell_that_cannot_be_one_is_refused_with_the_reason(info: str, why: str) -> None:
    async with hostile(info) as url:
        cell = RedisCell("c1", url, SETTINGS, SKEW_US, SystemClock())
        (answer,) = await cell.read_many([Read(KEY)])
        assert isinstance(answer, TierUnavailableError)
        assert answer.why == why
        await cell.stop()


async def test_a_memory_report_without_its_fields_is_no_answer() -> None:
    async with hostile("redis_version:7.4.0\r\nrun_id:r1\r\nrole:master\r\n") as url:
        cell = RedisCell("c1", url, L3(), SKEW_US, SystemClock())
        with pytest.raises(TierError, match="its INFO lacks 'used_memory'"):
            await cell.memory()
        await cell.stop()


@pytest.fixture(scope="module", params=[redis_server, valkey_server])
def queue(request: pytest.FixtureRequest) -> Iterator[RealServer]:
    with request.param() as running:
        yield running


async def test_a_queue_that_is_too_old_refuses_every_promise_with_the_reason(
    queue: RealServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check asks a version that no server has yet."""
    later = queue_server._LUA["append"].replace(b"0x00070000", b"0x7f000000")
    monkeypatch.setitem(queue_server._LUA, "append", later)
    changes = RedisChanges(queue.redis_url, "eu")
    with pytest.raises(TierError, match="TOOOLD a queue needs Redis 7"):
        await changes.append(Change("docs", keys=("a",)))
    await changes.stop()


async def test_an_answer_that_the_driver_cannot_read_is_a_failure_of_the_queue(queue: RealServer) -> None:
    async def misshapen() -> None:
        raise IndexError("of a parser")

    server = RedisServer(queue.redis_url, "the queue", Duration.parse("1s"))
    with pytest.raises(TierUnavailableError, match="the queue: an answer of an unknown shape: IndexError"):
        await server.guarded(misshapen())
    await server.stop()
