"""Servers that are too old, or answer as no server does, are refused with the reason."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import BinaryIO

import pytest

from cachesvc.changes.redis import server as queue_server
from cachesvc.changes.redis.changes import RedisChanges
from cachesvc.changes.redis.server import RedisServer
from cachesvc.config.service import L2, L3
from cachesvc.model.change import Change
from cachesvc.model.clock import SystemClock
from cachesvc.model.errors import TierError, TierUnavailableError
from cachesvc.model.units import Duration
from cachesvc.tiers.l2.memcached import MemcachedTier, fullness_of
from cachesvc.tiers.l2.statistics import Fullness
from cachesvc.tiers.l3.contract import Read
from cachesvc.tiers.l3.redis_cell import RedisCell
from cachesvc.tiers.server_settings import needs_of_cell, needs_of_memcached, needs_of_queue
from tests.contracts.cell_benches import KEY, SETTINGS, SKEW_US
from tests.doubles.servers import RealServer, redis_server, valkey_server
from tests.doubles.talkative_server import talkative


@asynccontextmanager
async def hostile(info: str, *, refused_second: str = "") -> AsyncIterator[str]:
    """A server that greets as Redis does and answers `INFO` with this; its URL.

    It refuses the command `refused_second` of a report, and CONFIG always.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            words = []
            for _ in range(int(line[1:])):
                size = int((await reader.readline())[1:])
                words.append((await reader.readexactly(size + 2))[:-2])
            answers = {
                b"HELLO": b"%1\r\n$5\r\nproto\r\n:3\r\n",
                b"EVAL": b"*3\r\n:1\r\n$0\r\n\r\n$%d\r\n%b\r\n" % (len(info), info.encode()),
                b"INFO": b"$%d\r\n%b\r\n" % (len(info), info.encode()),
                b"TIME": b"*2\r\n$10\r\n1700000000\r\n$1\r\n0\r\n",
                b"CONFIG": b"-NOPERM this user has no permissions to run the 'config|get' command\r\n",
            }
            refuses = words[0] == refused_second.encode() and words[1:] in ([], [b"default"])
            writer.write(b"-ERR no\r\n" if refuses else answers.get(words[0].upper(), b"+OK\r\n"))
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
        ("redis_version:7.4.0\r\n", "its INFO has no run_id, so it is not known which server it is"),
        ("", "its INFO has no run_id, so it is not known which server it is"),
        ("redis_version:7.4.0\r\nrun_id:r1\r\nrole:slave\r\n", "its role is slave: a cell is a master"),
    ],
)
async def test_a_cell_that_cannot_be_one_is_refused_with_the_reason(info: str, why: str) -> None:
    async with hostile(info) as url:
        cell = RedisCell("c1", url, SETTINGS, SKEW_US, SystemClock())
        (answer,) = await cell.read_many([Read(KEY)])
        assert isinstance(answer, TierUnavailableError)
        assert answer.why == why
        await cell.stop()


@pytest.mark.parametrize(
    "version", ["", "redis_version:soon\r\n", "redis_version:\r\n", "redis_version:v8\r\n"]
)
async def test_a_cell_whose_version_is_unknown_is_attached_to_and_the_version_is_said_to_be_unknown(
    version: str,
) -> None:
    async with hostile(f"{version}run_id:r1\r\nrole:master\r\n") as url:
        cell = RedisCell("c1", url, L3(), SKEW_US, SystemClock())
        report = await cell.report()
        known = {need.name: need.check(report).is_met for need in needs_of_cell(SKEW_US)}
        assert (known["version"], cell.statistics().connects) == (None, 1)
        await cell.stop()


async def test_a_report_without_its_fields_knows_the_clock_alone() -> None:
    async with hostile("redis_version:7.4.0\r\nrun_id:r1\r\nrole:master\r\n") as url:
        cell = RedisCell("c1", url, L3(), SKEW_US, SystemClock())
        report = await cell.report()
        assert (report.memory_used_bytes, report.memory_limit_bytes) == (None, None)
        assert {need.name: need.check(report).is_met for need in needs_of_cell(SKEW_US)} == {
            "eviction": None,
            "failover": None,
            "master": True,
            "single": None,
            "clock": False,
            "version": True,
            "room": None,
        }
        await cell.stop()


@pytest.mark.parametrize("question", ["TIME", "INFO"])
async def test_a_report_that_is_refused_is_no_answer(question: str) -> None:
    async with hostile("redis_version:7.4.0\r\nrun_id:r1\r\nrole:master\r\n", refused_second=question) as url:
        cell = RedisCell("c1", url, L3(), SKEW_US, SystemClock())
        with pytest.raises(TierError, match="report: no"):
            await cell.report()
        await cell.stop()


async def test_a_queue_that_is_too_old_is_named() -> None:
    """Its scripts refuse every change, too (TOOOLD)."""
    async with hostile("redis_version:6.2.14\r\nrun_id:r1\r\n") as url:
        server = RedisServer(url, "the queue", Duration.parse("1s"))
        report = await server.report(SystemClock().now_us)
        (version,) = (
            check
            for check in (need.check(report) for need in needs_of_queue(SKEW_US, on_disk=True))
            if check.need == "version"
        )
        assert version.is_met is False
        assert version.why.startswith("version 6.2.14 is too old: ")
        await server.stop()


@pytest.mark.parametrize(
    ("version", "settings", "wrong"),
    [
        (b"1.5.22", b"STAT item_size_max 1048576\r\nSTAT evictions on\r\nEND\r\n", {"version"}),
        (b"1.6.0", b"STAT item_size_max 1048575\r\nSTAT evictions off\r\nEND\r\n", {"item-size", "room"}),
        (b"1.6.18_4_gabc", b"ERROR\r\n", set()),
        (b"1.10.0", b"SERVER_ERROR not here\r\n", set()),
        (b"unknown", b"END\r\n", set()),
    ],
)
async def test_a_memcached_is_judged_by_what_it_tells(
    version: bytes, settings: bytes, wrong: set[str]
) -> None:
    """A proxy, or a managed server, may have no `stats settings`: that is no failure of the server."""
    sizes = b"STAT curr_items 1\r\nSTAT bytes 2\r\nSTAT limit_maxbytes 3\r\nSTAT evictions 4\r\n"

    def answer(requests: BinaryIO) -> bytes | None:
        line = requests.readline().rstrip()
        if line == b"stats settings":
            return settings
        return b"STAT version %b\r\n%bEND\r\n" % (version, sizes) if line == b"stats" else None

    with talkative(answer) as server:
        tier = MemcachedTier("m1", f"127.0.0.1:{server.port}", L2(), SystemClock())
        await tier.start()
        for _ in range(2):
            report = await tier.report()
            checks = [need.check(report) for need in needs_of_memcached()]
            assert {check.need for check in checks if check.is_met is False} == wrong
            assert fullness_of("m1", dict(report)) == Fullness(1, 2, 3, 4)
        await tier.stop()


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
