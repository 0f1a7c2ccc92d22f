"""Counts what a server that is away costs the others, at instances with real servers.

The instances run in this process, so that a drill can read their counts.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from time import perf_counter

import pytest

from cachesvc.app.instance import App
from cachesvc.config.service import L1, Coherence, Server, Service
from cachesvc.config.topology import Cell, MemcachedServer, Namespace, Region, Topology
from cachesvc.model.entry import Key
from cachesvc.model.requests import Answer, Draft, Outcome
from cachesvc.model.units import Duration
from cachesvc.tiers.breaker import BreakerState
from cachesvc.tiers.l3.redis_cell import RedisCell
from tests.doubles.servers import RealServer, memcached_server, redis_server

pytestmark = [pytest.mark.faults, pytest.mark.timeout(60)]

HELD = [Key.of("docs", f"held-{i}") for i in range(240)]
ABSENT = [Key.of("docs", f"absent-{i}") for i in range(120)]
"""Keys without a value: each read of one asks L3, whatever L2 does."""
ROUNDS = 8
PATIENCE_SECONDS = 0.25


class Seen:
    """The answers of a drill's reads."""

    def __init__(self) -> None:
        self.right = self.reads = 0
        self.seconds: list[float] = []

    async def read(self, app: App, keys: Sequence[Key]) -> None:
        began = perf_counter()
        for key, answer in zip(keys, await app.paths.reader.get_many(keys), strict=True):
            self.reads += 1
            self.right += _is_right(key, answer) and perf_counter() - began < PATIENCE_SECONDS
        self.seconds.append(perf_counter() - began)


def _is_right(key: Key, answer: Answer) -> bool:
    if key in ABSENT:
        return answer.outcome is Outcome.MISS
    return answer.entry is not None and answer.entry.value == key.id


def asked_in_l3(app: App) -> int:
    """Keys that the instance has read from cells so far."""
    l3 = app.paths.tally.l3
    return l3.hits + l3.stale + l3.misses + l3.refused + l3.errors


@asynccontextmanager
async def running(
    stack: AsyncExitStack, cells: Sequence[RealServer], regions: dict[str, Region]
) -> AsyncIterator[dict[str, App]]:
    """An instance in each region, with an L1 of a single entry, and `HELD` stored."""
    topology = Topology(
        version=1,
        regions=regions,
        cells={f"c{i}": Cell(next(iter(regions)), cell.redis_url) for i, cell in enumerate(cells)},
        namespaces={"docs": Namespace("drills", ttl=Duration.parse("10m"), jitter=0)},
    )
    apps = {}
    for region in regions:
        service = Service(
            region=region,
            instance=f"{region}-a",
            server=Server(port=0),
            l1=L1(max_entries=1),
            coherence=Coherence(max_clock_skew=Duration(20_000), sketch_slots=1 << 12),
        )
        app = apps[region] = await asyncio.to_thread(App, service, topology)  # it reads files
        await app.start()
        stack.push_async_callback(app.stop)
    while not all(app.readiness()[0] for app in apps.values()):  # noqa: ASYNC110  it has no event
        await asyncio.sleep(0.05)
    first = next(iter(apps.values()))
    await asyncio.gather(*(first.paths.writer.put(key, Draft(key.id)) for key in HELD))
    await asyncio.sleep(0.2)  # the fences of the puts are merged everywhere
    for app in apps.values():
        for _ in range(2):
            await app.paths.reader.get_many(HELD)
    yield apps


@pytest.mark.parametrize("fault", ["killed", "stopped"])
async def test_one_memcached_of_four_is_away_and_a_gutter_keeps_its_keys_from_l3(fault: str) -> None:
    async with AsyncExitStack() as stack:
        *queues, cell = [await asyncio.to_thread(stack.enter_context, redis_server()) for _ in range(3)]
        *servers, gutter = [
            await asyncio.to_thread(stack.enter_context, memcached_server()) for _ in range(5)
        ]
        pool = {f"m{i}": MemcachedServer(server.address) for i, server in enumerate(servers)}
        regions = {
            "with": Region(queues[0].redis_url, pool=pool, gutter={"g0": MemcachedServer(gutter.address)}),
            "without": Region(queues[1].redis_url, pool=pool),
        }
        async with running(stack, [cell], regions) as apps:
            before = {name: asked_in_l3(app) for name, app in apps.items()}
            await asyncio.gather(*(rounds(app, Seen()) for app in apps.values()))
            usual = {name: asked_in_l3(app) - before[name] for name, app in apps.items()}
            if fault == "killed":
                servers[0].kill()
            else:
                servers[0].pause()
                stack.callback(servers[0].resume)
            before = {name: asked_in_l3(app) for name, app in apps.items()}
            seen = {name: Seen() for name in apps}
            await asyncio.gather(*(rounds(app, seen[name]) for name, app in apps.items()))
            times = {name: (asked_in_l3(app) - before[name]) / usual[name] for name, app in apps.items()}
            right = {name: f"{one.right}/{one.reads}" for name, one in seen.items()}
            print(f"{fault}: L3 reads as many times as before: {times}; right within 250 ms: {right}")
            assert times["with"] <= 1.3
            assert times["without"] > 1.3, "the gutter makes the difference"
            assert all(one.right >= 0.999 * one.reads for one in seen.values())


async def rounds(app: App, seen: Seen) -> None:
    for _ in range(ROUNDS):
        for keys in (HELD, ABSENT):
            for at in range(0, len(keys), 12):
                await seen.read(app, keys[at : at + 12])


async def test_a_hung_cell_holds_up_one_read_a_second_of_its_own_keys() -> None:
    async with AsyncExitStack() as stack:
        queue, *cells = [await asyncio.to_thread(stack.enter_context, redis_server()) for _ in range(3)]
        async with running(stack, cells, {"eu": Region(queue.redis_url)}) as apps:
            (app,) = apps.values()
            hung = app.remote.cells["c1"]
            assert isinstance(hung, RedisCell)
            own = [key for key in HELD if app.paths.homes.of(key) is hung]
            others = [key for key in HELD if app.paths.homes.of(key) is not hung]
            cells[1].pause()
            stack.callback(cells[1].resume)
            while hung.breaker.state is not BreakerState.OPEN:
                await app.paths.reader.get_many(own[:1])
            asked, began, batches = hung.statistics().exchanges, perf_counter(), 0
            while perf_counter() - began < 3:
                answers = await app.paths.reader.get_many([*others[:11], own[0]])
                assert all(map(_is_right, others[:11], answers))
                batches += 1
            exchanges = hung.statistics().exchanges - asked
            print(f"{batches} batches in 3 s, {exchanges} exchanges with the hung cell")
            assert exchanges <= 8, "after 100 ms, 200, 400, 800, and then one a second"
            assert batches > 4 * exchanges
