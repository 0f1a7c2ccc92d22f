"""Each protection against servers that fail shows in a figure: without it, it is larger.

A figure is a count that must be small. The servers are real ones that are stopped or killed; what
depends on nothing but time is counted with a turned clock.
"""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress

import pytest

from cachesvc.app.backends import Backends
from cachesvc.app.supervisor import Supervisor
from cachesvc.app.tasks import Tasks
from cachesvc.changes.redis.changes import RedisChanges
from cachesvc.changes.relay.follower import RelayedFollower
from cachesvc.changes.relay.relay import Relay
from cachesvc.config.service import L2, L3, Breakers, Coherence, Service
from cachesvc.config.topology import Cell, MemcachedServer, Namespace, Region, Topology
from cachesvc.explain.answer import Question
from cachesvc.explain.peers import HttpPeers
from cachesvc.explain.waits import Waits
from cachesvc.model.change import Change
from cachesvc.model.clock import SECONDS, SystemClock
from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import OriginError, TierError
from cachesvc.model.units import Duration
from cachesvc.tiers import sentinels
from cachesvc.tiers.breaker import Breaker, BreakerPool
from cachesvc.tiers.l3.contract import Read
from cachesvc.tiers.l3.placement import Placement
from cachesvc.tiers.l3.redis_cell import RedisCell
from cachesvc.tiers.origin.guarded import GuardedLoader
from cachesvc.tiers.tls import Certificates
from tests.contracts.test_far_servers import far
from tests.doubles.loaders import ScriptedLoader
from tests.doubles.memory_queue import MemoryFenceStream, MemoryQueue
from tests.doubles.mutants_backends import BACKENDS, unprotected
from tests.doubles.relays import RelayDoor
from tests.doubles.servers import RealServer, memcached_server, redis_server
from tests.doubles.waiting import until

SOON = Duration.parse("20ms")
CALLS = 30
FOLLOWED_CALLS = 100
"""Calls, each 10 ms after the one before, while sentinels are looked at every 50 ms."""
CLOCK = SystemClock()


class Servers:
    """Real servers: a cell, another one that is the queue, a memcached server and a gutter."""

    def __init__(
        self, cell: RealServer, other: RealServer, memcached: RealServer, gutter: RealServer
    ) -> None:
        self.cell = cell
        self.other = other
        self.memcached = memcached
        self.gutter = gutter

    @asynccontextmanager
    async def backends(self, *, gutter: bool = False) -> AsyncIterator[Backends]:
        """An instance's servers, with time limits of 20 ms."""
        region = Region(
            self.other.redis_url,
            pool={"m0": MemcachedServer(self.memcached.address)},
            gutter={"g0": MemcachedServer(self.gutter.address)} if gutter else {},
        )
        topology = Topology(
            version=1,
            regions={"eu": region},
            cells={"c0": Cell("eu", self.cell.redis_url)},
            namespaces={"docs": Namespace("tests")},
        )
        service = Service(
            region="eu",
            instance="eu-a",
            l2=L2(timeout=SOON),
            l3=L3(timeout=SOON, connect_timeout=SOON),
            coherence=Coherence(sketch_slots=1 << 12),
        )
        tasks = Tasks()
        made = await asyncio.to_thread(  # it reads files
            lambda: Backends(service, topology, Placement(topology), CLOCK, Certificates(service), tasks)
        )
        for part in made.parts():
            await part.start()
        try:
            yield made
        finally:
            for part in reversed(made.parts()):
                await part.stop()
            await tasks.stop()


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with (
        redis_server(tcp=True) as cell,
        redis_server(tcp=True) as other,
        memcached_server() as memcached,
        memcached_server() as gutter,
    ):
        yield Servers(cell, other, memcached, gutter)


class Seconds:
    """A clock that a test turns."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def keys(count: int) -> list[Key]:
    return [Key.of("docs", f"key-{number}") for number in range(count)]


def entry() -> Entry:
    now = CLOCK.now_us()
    return Entry(b"value", now, now + 600 * SECONDS)


async def reads_that_wait_for_memcached(servers: Servers) -> float:
    async with servers.backends() as backends:
        (waits,) = (one.durations["gets"] for one in backends.memcached.measured.values())
        await until("it answers", lambda: _is_hit_or_miss(backends))
        before = waits.cumulative()[-1]
        servers.memcached.pause()
        try:
            for key in keys(CALLS):
                await backends.memcached.l2.get_many([key])
        finally:
            servers.memcached.resume()
        return waits.cumulative()[-1] - before


async def _is_hit_or_miss(backends: Backends) -> bool:
    (found,) = await backends.memcached.l2.get_many(keys(1))
    return not isinstance(found, TierError)


async def reads_that_wait_for_a_cell(servers: Servers) -> float:
    async with servers.backends() as backends:
        cell = backends.cells["c0"]
        await _answers(cell)
        before = cell.statistics().exchanges
        servers.cell.pause()
        try:
            for key in keys(CALLS):
                await cell.read_many([Read(key)])
        finally:
            servers.cell.resume()
        return cell.statistics().exchanges - before


async def _answers(cell: RedisCell) -> None:
    async def reads() -> bool:
        (reply,) = await cell.read_many([Read(keys(1)[0])])
        return not isinstance(reply, TierError)

    await until("the cell answers", reads)


async def changes_that_wait_for_a_queue(servers: Servers) -> float:
    changes = RedisChanges(servers.other.redis_url, "eu", timeout=SOON, breaker=Breaker(Breakers()))
    waited = 0
    servers.other.pause()
    try:
        for _ in range(CALLS):
            began = time.perf_counter()
            with suppress(TierError):
                await changes.append(Change("docs", keys=("a",)))
            waited += time.perf_counter() - began >= SOON.seconds
    finally:
        servers.other.resume()
        await changes.stop()
    return waited


async def loads_that_wait_for_an_origin(_: Servers) -> float:
    origin = ScriptedLoader(OriginError("no answer in time"))
    guarded = GuardedLoader(origin, Breaker(Breakers(), now=Seconds()), "docs")
    for key in keys(CALLS):
        with suppress(OriginError):
            await guarded.load(key, known=None, timeout_seconds=1)
    return len(origin.calls)


async def questions_that_wait_for_another_instance(_: Servers) -> float:
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as silent:
        url = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
        breakers = BreakerPool(Breakers(), now=Seconds())
        asking = HttpPeers({("eu", "eu-b"): url}, breakers=breakers)
        asking._waits = Waits(SOON.seconds, SOON.seconds)
        await asking.start()
        said = [(await asking.ask(keys(1)[0], Question()))[0].unavailable for _call in range(CALLS)]
        await asking.stop()
        return sum(why.startswith("no answer") for why in said)


async def tries_of_a_relay_that_is_away(_: Servers) -> float:
    stream = MemoryFenceStream(MemoryQueue(CLOCK), "here", skew_us=100_000, retention_us=1 << 50)
    door = RelayDoor(lambda: Relay("here", 1 << 20))
    door.is_away = True
    follower = RelayedFollower(stream, [door.way], None, CLOCK, skew_us=100_000, heartbeat_seconds=0.5)
    await follower.open()
    for _call in range(CALLS):
        await follower.read(wait_seconds=0)
    return follower.left


async def tries_at_a_closed_port(servers: Servers) -> float:
    servers.cell.kill()
    try:
        async with servers.backends() as backends:
            cell = backends.cells["c0"]
            for key in keys(CALLS):
                await cell.read_many([Read(key)])
            return cell.statistics().exchanges
    finally:
        await asyncio.to_thread(servers.cell.restart)


async def answers_of_a_slow_server(_: Servers) -> float:
    pool = BreakerPool(Breakers(), late_from_seconds=0.05, now=Seconds())
    slow, *others = [pool.add(f"m{number}") for number in range(4)]
    for breaker in others:
        breaker.answered(0.001)
    waited = 0
    for _call in range(CALLS):
        if slow.admits():
            waited += 1
            slow.answered(0.09)
    return waited


async def probes_in_a_minute(_: Servers) -> float:
    clock = Seconds()
    breaker = Breaker(Breakers(), now=clock, rng=random.Random(1))
    breaker.failed(at_once=True)
    probes = 0
    while clock.now < 60:
        clock.now += 0.01
        if breaker.admits():
            probes += 1
            breaker.failed()
    return probes


async def probes_in_the_same_10_ms(_: Servers) -> float:
    clock = Seconds()
    breakers = [Breaker(Breakers(), now=clock, rng=random.Random(seed)) for seed in range(24)]
    for breaker in breakers:
        breaker.failed(at_once=True)
    most = 0
    while clock.now < 1:
        clock.now += 0.01
        most = max(most, sum([breaker.admits() for breaker in breakers]))
    return most


async def calls_behind_the_first_answer(_: Servers) -> float:
    clock = Seconds()
    breaker = Breaker(Breakers(), now=clock)
    breaker.failed(at_once=True)
    clock.now += 1
    assert breaker.admits()
    breaker.succeeded()
    return sum(breaker.admits() for _call in range(CALLS))


async def servers_left_alone_at_once(_: Servers) -> float:
    pool = BreakerPool(Breakers(out_at_most=0.5), now=Seconds())
    breakers = [pool.add(f"m{number}") for number in range(8)]
    for breaker in breakers:
        breaker.failed(at_once=True)
    return sum(breaker.is_open for breaker in breakers)


async def misses_in_l2_of_a_killed_server(servers: Servers) -> float:
    async with servers.backends(gutter=True) as backends:
        await until("it answers", lambda: _is_hit_or_miss(backends))
        servers.memcached.kill()
        try:
            while not backends.memcached.breakers["memcached"]["m0"].is_open:
                await backends.memcached.l2.get_many(keys(1))
            await backends.memcached.l2.set_many([(key, entry()) for key in keys(CALLS)])
            found = await backends.memcached.l2.get_many(keys(CALLS))
        finally:
            await asyncio.to_thread(servers.memcached.restart)
        return sum(not isinstance(one, Entry) for one in found)


async def failed_reads_of_a_far_cell(servers: Servers) -> float:
    async with far(servers.cell, 150) as (port, _):
        cell = RedisCell("c0", f"redis://127.0.0.1:{port}/0", L3(), 20_000, CLOCK)
        await cell.start()
        failed = 0
        for key in keys(5):
            (reply,) = await cell.read_many([Read(key)])
            failed += isinstance(reply, TierError)
        await cell.stop()
        return failed


async def changes_that_a_replaced_master_takes(servers: Servers) -> float:
    """The sentinels name another master, and the old one goes on taking what it is sent."""
    master, epoch = servers.cell, 1

    async def sentinel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):  # the look was given up
            await reader.readuntil(b"MASTER\r\n$1\r\nm\r\n")
        place = b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%d\r\n" % (len(str(master.port)), master.port)
        writer.write(place + b"*2\r\n$12\r\nconfig-epoch\r\n$1\r\n%d\r\n" % epoch)
        writer.close()

    async with await asyncio.start_server(sentinel, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        changes = RedisChanges(f"redis+sentinel://127.0.0.1:{port}/m/0", "eu")
        await changes.append(Change("docs", keys=("a",)))
        assert changes.master == f"127.0.0.1:{servers.cell.port}"
        master, epoch = servers.other, 2
        taken = 0
        for _ in range(FOLLOWED_CALLS):
            await asyncio.sleep(0.01)
            with suppress(TierError):
                await changes.append(Change("docs", keys=("a",)))
                taken += changes.master == f"127.0.0.1:{servers.cell.port}"
        await changes.stop()
    return taken


async def minutes_that_a_hung_worker_is_left(_: Servers) -> float:
    now, killed = 1000.0, []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(time, "monotonic", lambda: now)
        patched.setattr(os, "kill", lambda pid, _signal: killed.append(pid))
        supervisor = Supervisor(
            ["a-0", "a-1"], lambda *_: 0, serving=lambda: None, stop_seconds=1, hung_seconds=10
        )
        for child in supervisor._children:
            child.pid = 100 + child.number
            child.told(now)
        while now < 1000 + 60 * CALLS and not killed:
            now += 1
            supervisor._children[1].told(now)
            supervisor._kill_hung()
    return (now - 1000) / 60


Figure = Callable[[Servers], Awaitable[float]]
FIGURES: dict[str, tuple[Figure, float]] = {
    "breaker of memcached servers": (reads_that_wait_for_memcached, 10),
    "breaker of cells": (reads_that_wait_for_a_cell, 10),
    "breaker of queues": (changes_that_wait_for_a_queue, 10),
    "breaker of origins": (loads_that_wait_for_an_origin, 5),
    "breaker of other instances": (questions_that_wait_for_another_instance, 5),
    "breaker of relays": (tries_of_a_relay_that_is_away, 3),
    "refused connections": (tries_at_a_closed_port, 3),
    "late answers": (answers_of_a_slow_server, 5),
    "growing pauses": (probes_in_a_minute, 63),
    "jitter": (probes_in_the_same_10_ms, 8),
    "shares": (calls_behind_the_first_answer, CALLS / 4),
    "part of a pool": (servers_left_alone_at_once, 4),
    "gutter": (misses_in_l2_of_a_killed_server, 0),
    "round trips": (failed_reads_of_a_far_cell, 1),
    "following sentinels": (changes_that_a_replaced_master_takes, 60),
    "watch over workers": (minutes_that_a_hung_worker_is_left, 0.2),
}
"""The measure of each protection, and the most that it is with the protection."""


def test_each_protection_has_a_figure() -> None:
    assert FIGURES.keys() == BACKENDS.keys()


@pytest.mark.parametrize("name", FIGURES)
async def test_the_figure_of_a_protection(
    name: str, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sentinels, "FOLLOW_SECONDS", 0.05)
    measure, at_most = FIGURES[name]
    with_it = await measure(servers)
    with unprotected(name):
        without_it = await measure(servers)
    print(f"{name}: {measure.__name__.replace('_', ' ')}: {with_it:g}, without it {without_it:g}")
    assert with_it <= at_most < without_it
