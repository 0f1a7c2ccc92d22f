"""Two zones of one region, an instance and a real memcached server in each, and the SDK."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack

import aiohttp
import pytest
from cachesvc_client import Cache, Hit, sync

from cachesvc.app.instance import App
from cachesvc.config.service import L2, Server, Service
from cachesvc.config.topology import Cell, MemcachedServer, Namespace, Region, Topology
from cachesvc.model.entry import Entry, Key
from cachesvc.model.units import Duration
from loadtests.fleet_topology import free_ports
from tests.doubles.servers import RealServer, memcached_server
from tests.doubles.waiting import until

ZONES = ("a", "b")


@pytest.fixture(scope="module")
def servers() -> Iterator[Mapping[str, RealServer]]:
    """A memcached server in each zone."""
    with memcached_server() as a, memcached_server() as b:
        yield {"a": a, "b": b}


class Zoned:
    """An instance in each zone, with the SDK's view of them."""

    def __init__(self, topology: Topology) -> None:
        self.region = topology.regions["here"]
        self._topology = topology
        self.apps = {zone: self.made(zone) for zone in ZONES}

    def made(self, zone: str) -> App:
        """The instance of a zone, not started yet."""
        slow = L2(connect_timeout=Duration.parse("1s"), timeout=Duration.parse("1s"))  # the machine is busy
        port = int(self.url(zone).rpartition(":")[2])
        return App(Service("here", f"in-{zone}", Server(port=port), l2=slow), self._topology)

    async def stop(self, zone: str) -> None:
        await self.apps[zone].stop()

    def has_near(self, zone: str, key: str) -> bool:
        """True if the instance of a zone has the key in L1."""
        return self.apps[zone].paths.l1.peek(Key.of("pages", key)) is not None

    def url(self, zone: str) -> str:
        return self.region.instances[f"in-{zone}"]

    async def copy(self, zone: str, key: str) -> object:
        """The value of the copy in the ring of a zone."""
        found = await self.apps[zone].remote.pool.look(Key.of("pages", key))
        return found.value if isinstance(found, Entry) else found

    async def is_settled(self) -> bool:
        """True if every instance keeps what is put: a new deployment fences its namespaces once."""
        for zone in ZONES:
            async with Cache.from_url(self.url(zone), discover=False) as cache:
                await cache.namespace("pages").set("settled", b"v")
            if not self.has_near(zone, "settled"):
                return False
        return True

    async def metric(self, zone: str, line: str) -> float:
        """The number of one line of the metrics of the zone's instance."""
        async with aiohttp.ClientSession() as http, http.get(f"{self.url(zone)}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return float(next(one for one in lines if one.startswith(f"{line} ")).rpartition(" ")[2])


@pytest.fixture
async def zoned(
    servers: Mapping[str, RealServer], redis: RealServer, request: pytest.FixtureRequest
) -> AsyncIterator[Zoned]:
    ports = free_ports(2)
    instances = {f"in-{zone}": f"http://127.0.0.1:{port}" for zone, port in zip(ZONES, ports, strict=True)}
    region = Region(
        queue=redis.redis_url,
        pool={f"m-{zone}": MemcachedServer(servers[zone].address, zone=zone) for zone in ZONES},
        instances=instances,
        zones={f"in-{zone}": zone for zone in ZONES},
        rings=getattr(request, "param", "zone"),
    )
    topology = Topology(
        version=1,
        regions={"here": region},
        cells={"c1": Cell("here", redis.redis_url.replace("db=0", "db=1"))},
        namespaces={"pages": Namespace(owner="tests", early_refresh=0.0)},
    )
    running = await asyncio.to_thread(Zoned, topology)
    async with AsyncExitStack() as stack:
        for zone in ZONES:
            await running.apps[zone].start()
            stack.push_async_callback(running.stop, zone)
        async with asyncio.timeout(15):
            while not all(app.readiness()[0] for app in running.apps.values()):  # noqa: ASYNC110  inside
                await asyncio.sleep(0.05)
        await until("what is loaded is kept", running.is_settled)
        yield running


async def until_held(zoned: Zoned, zone: str, key: str, value: bytes) -> None:
    """Waits for a copy, which goes to L2 behind the answer."""

    async def is_held() -> bool:
        return await zoned.copy(zone, key) == value

    await until(f"{key} in the ring of zone {zone}", is_held, seconds=5.0)


async def test_a_read_fills_the_ring_of_its_zone_and_a_change_refuses_the_copies_of_both(
    zoned: Zoned,
) -> None:
    loads = 0

    async def load(_: str) -> bytes:
        nonlocal loads
        loads += 1
        return b"%d" % loads

    async with (
        Cache.from_url(zoned.url("a"), discover=False) as a,
        Cache.from_url(zoned.url("b"), discover=False) as b,
    ):
        in_a, in_b = a.namespace("pages"), b.namespace("pages")
        assert await in_a.get_or_load("one", load) == b"1"
        await until_held(zoned, "a", "one", b"1")
        assert await zoned.copy("b", "one") is None
        assert await in_b.get_or_load("one", load) == b"1", "from L3"
        await until_held(zoned, "b", "one", b"1")
        await in_a.invalidate(["one"], wait="region")
        assert await zoned.copy("b", "one") == b"1", "a delete reaches one ring only"
        zoned.apps["b"].paths.l1.delete(Key.of("pages", "one"))
        assert await in_b.get_or_load("one", load) == b"2"
    assert await zoned.metric("a", 'cachesvc_l2_cross_zone_bytes_total{direction="sent"}') == 0
    assert await zoned.metric("b", 'cachesvc_zone{zone="b"}') == 1


@pytest.mark.parametrize("zoned", ["region"], indirect=True)
async def test_bytes_to_another_zone_are_counted_where_one_ring_has_all_servers(zoned: Zoned) -> None:
    async with Cache.from_url(zoned.url("a"), discover=False) as cache:
        await cache.namespace("pages").set_many({f"k{nth}": b"v" * 1000 for nth in range(20)})
    directions = [f'cachesvc_l2_cross_zone_bytes_total{{direction="{way}"}}' for way in ("sent", "received")]

    async def are_counted() -> bool:
        return all([await zoned.metric("a", line) for line in directions])

    await until("bytes of both directions", are_counted, seconds=5.0)


async def test_without_the_servers_of_a_zone_its_keys_go_to_l3_and_to_no_other_zone(
    zoned: Zoned, servers: Mapping[str, RealServer]
) -> None:
    async with Cache.from_url(zoned.url("a"), discover=False) as cache:
        pages = cache.namespace("pages")
        servers["a"].kill()
        try:
            await pages.set("lost", b"1")
            zoned.apps["a"].paths.l1.delete(Key.of("pages", "lost"))
            hit = await pages.lookup("lost")
        finally:
            servers["a"].restart()
    assert isinstance(hit, Hit)
    assert (hit.value, hit.tier) == (b"1", "l3")
    assert await zoned.copy("b", "lost") is None


@pytest.mark.parametrize("flavour", ["async", "sync"])
async def test_the_sdk_goes_to_another_zone_while_its_own_is_away_and_comes_back(
    zoned: Zoned, flavour: str
) -> None:
    cache = AnyCache(flavour, zoned.url("b"), zone="a")
    nth = itertools.count()

    async def asked() -> str:
        """The zone whose instance is asked for one more key."""
        key = f"{flavour}-{next(nth)}"
        await cache.load(key)
        return "".join(zone for zone in ZONES if zoned.has_near(zone, key))

    async def is_own_asked() -> bool:
        return await asked() == "a"

    try:
        await until("the own zone is found", is_own_asked, seconds=10)
        assert {await asked() for _ in range(20)} == {"a"}
        await zoned.stop("a")
        assert {await asked() for _ in range(20)} == {"b"}, "no read fails"
        zoned.apps["a"] = await asyncio.to_thread(zoned.made, "a")
        await zoned.apps["a"].start()
        await until("the own zone is back", is_own_asked, seconds=20)
        assert {await asked() for _ in range(20)} == {"a"}
    finally:
        await cache.close()


class AnyCache:
    """A client of either flavour, that loads look-aside."""

    def __init__(self, flavour: str, url: str, zone: str) -> None:
        self._async = Cache.from_url(url, zone=zone) if flavour == "async" else None
        self._sync = sync.Cache.from_url(url, zone=zone) if flavour == "sync" else None

    async def load(self, key: str) -> None:
        if self._async is not None:
            assert await self._async.namespace("pages").get_or_load(key, _load) == b"1"
        if self._sync is not None:
            pages = self._sync.namespace("pages")
            assert await asyncio.to_thread(pages.get_or_load, key, lambda _: b"1") == b"1"

    async def close(self) -> None:
        if self._async is not None:
            await self._async.aclose()
        if self._sync is not None:
            await asyncio.to_thread(self._sync.close)


async def _load(_: str) -> bytes:
    return b"1"
