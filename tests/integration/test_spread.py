"""A hot key among four instances: real sockets, paths and clients; far tiers in memory."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import accumulate

import pytest
from cachesvc_client import Cache
from cachesvc_client import sync as blocking
from msgspec.structs import replace

from cachesvc.changes.broadcast.broadcast import Broadcast
from cachesvc.model.entry import Key
from cachesvc.telemetry.metrics.metrics import Metrics
from cachesvc.telemetry.popularity import read_sample, spread
from cachesvc.web.server import Web
from loadtests.fleet_topology import free_ports
from tests.doubles.clocks import START_US, LoopClock
from tests.doubles.loaders import loaded
from tests.paths.world import SKEW_US, TOPOLOGY, FarSide, Instance

NAMES = ("i0", "i1", "i2", "i3")
HOT_SHARE = 0.3
TAIL = [f"key-{nth}" for nth in range(2000)]
WEIGHTS = list(accumulate(1 / (nth + 10) for nth in range(len(TAIL))))
HOT = "front page"


class TurnedClock(LoopClock):
    """A clock that a test turns: real seconds do not count."""

    def now_us(self) -> int:
        return START_US + self.skew_us


@dataclass
class Four:
    """Four instances of one region, and what each has answered."""

    far: FarSide
    instances: dict[str, Instance]
    metrics: dict[str, Metrics]
    urls: dict[str, str]

    def requests(self) -> Counter[str]:
        return Counter(
            {
                name: sum(
                    count
                    for (_, operation, _), count in metrics.counts.requests.items()
                    if operation == "get"
                )
                for name, metrics in self.metrics.items()
            }
        )

    def told(self) -> list[int]:
        """The numbers of instances that the instances tell the hot key's readers."""
        digest = Key.of("docs", HOT).digest
        return [
            one.paths.hot_keys.spread.of(digest, self.far.clock.now_us()) for one in self.instances.values()
        ]

    def judge(self) -> None:
        """Has the windows of all instances be over: a second is a long time for a test."""
        self.far.clock.skew_us += 2 * spread.WINDOW_US
        for one in self.instances.values():
            one.paths.hot_keys.statistics()


@asynccontextmanager
async def four_instances() -> AsyncIterator[Four]:
    far = FarSide(TurnedClock())
    far.loader.default = loaded(b"value")
    urls = {name: f"http://127.0.0.1:{port}" for name, port in zip(NAMES, free_ports(4), strict=True)}
    topology = replace(TOPOLOGY, regions={"here": replace(TOPOLOGY.regions["here"], instances=urls)})
    four = Four(far, {}, {}, urls)
    async with AsyncExitStack() as stack:
        for name, url in urls.items():
            one = four.instances[name] = Instance(far, name=name, topology=topology)
            metrics = four.metrics[name] = Metrics()
            web = Web(
                one.service,
                topology,
                one.paths,
                Broadcast(far.clock, SKEW_US, topology.regions),
                lambda: (True, {}),
                metrics,
                clock=far.clock,
            )
            await web.start("127.0.0.1", int(url.rpartition(":")[2]))
            stack.push_async_callback(one.tasks.stop)
            stack.push_async_callback(web.stop)
        yield four


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """One read in two is sampled, and a window is full after a few hundred reads."""
    monkeypatch.setattr(read_sample, "EVERY", 2)
    monkeypatch.setattr(spread, "ENOUGH", 100)


def zipf(share: float, seed: int) -> Iterator[str]:
    """Keys of which one has this share, and the others are popular by rank."""
    rng = random.Random(seed)
    while True:
        yield HOT if rng.random() < share else rng.choices(TAIL, cum_weights=WEIGHTS)[0]


async def read(get: Callable[[str], Awaitable[object]], keys: Iterator[str], reads: int) -> None:
    """Reads so many keys, forty at a time."""

    async def one_after_the_other() -> None:
        for _ in range(reads // 40):
            assert await get(next(keys)) == b"value"

    await asyncio.gather(*(one_after_the_other() for _ in range(40)))


@pytest.mark.usefixtures("often")
async def test_one_key_at_30_percent_leaves_no_instance_much_busier_than_the_others() -> None:
    async with four_instances() as four, Cache.from_url(four.urls["i0"], batching=False) as cache:
        docs = cache.namespace("docs", timeout="5s")
        while len(+four.requests()) < 4:  # until the topology is known
            await read(docs.get, zipf(0.0, 1), 400)
        before = four.requests()
        await read(docs.get, zipf(HOT_SHARE, 2), 1600)
        uneven = four.requests() - before
        assert max(uneven.values()) > 1.3 * uneven.total() / 4, "or there is nothing to spread"
        four.judge()
        assert max(four.told()) == 4
        await read(docs.get, zipf(HOT_SHARE, 3), 400)  # clients hear of it by their reads
        before = four.requests()
        await read(docs.get, zipf(HOT_SHARE, 4), 1600)
        even = four.requests() - before
        assert max(even.values()) <= 1.3 * even.total() / 4
        assert four.far.loader.loads(HOT) == 1, "one load for all copies"

        four.judge()
        assert min(four.told()) > 1, "each of them sees a fourth of the reads, and knows it"

        # As many reads of it as of every other key, and so many keys that it has cooled whatever is sampled.
        keys = [HOT, *TAIL[:999]]
        for _ in range(spread.COOL_WINDOWS):
            for _ in range(10):
                await docs.get_many(keys)
            four.judge()
        assert four.told() == [0, 0, 0, 0]


@pytest.mark.usefixtures("often")
async def test_without_asyncio_and_in_batches_reads_are_spread_as_well() -> None:
    async with four_instances() as four:
        with blocking.Cache.from_url(four.urls["i0"]) as cache:
            docs = cache.namespace("docs", timeout="5s")

            def read_many(reads: int) -> None:
                for _ in range(reads):
                    assert docs.get(HOT) == b"value"

            def reads_of_keys() -> Counter[str]:
                return Counter(
                    {name: sum(metrics.counts.batch_keys.values()) for name, metrics in four.metrics.items()}
                )

            await asyncio.to_thread(read_many, 600)
            assert len(+reads_of_keys()) == 1
            four.judge()
            assert max(four.told()) == 4
            await asyncio.to_thread(read_many, 20)
            before = reads_of_keys()
            await asyncio.to_thread(read_many, 400)
            assert sorted((reads_of_keys() - before).values()) == [100, 100, 100, 100]
