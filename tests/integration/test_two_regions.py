"""The whole service over real sockets: two regions, four instances, real memcached and Redis, a real origin.

Each test uses keys of its own; servers that a test breaks are whole again when it ends.
"""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from loadtests.fleet import Fleet
from tests.doubles.waiting import until

pytestmark = pytest.mark.slow

DOCUMENT = Path(__file__).parents[2] / "config" / "two-regions.yaml"
INSTANCES = ("eu-a", "eu-b", "us-a", "us-b")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(DOCUMENT, tmp_path_factory.mktemp("fleet") / "run", ports="free", with_origin=True) as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


class Caller:
    def __init__(self, fleet: Fleet, http: aiohttp.ClientSession) -> None:
        self.fleet = fleet
        self.http = http

    async def get(self, instance: str, key: str, ns: str = "docs", **headers: str) -> tuple[int, bytes, str]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.get(f"{self.fleet.url(instance)}/v1/{ns}/{key}", headers=named) as answer:
            return answer.status, await answer.read(), answer.headers.get("Cache-Status", "")

    async def values(self, key: str) -> set[bytes]:
        """Returns the values that the four instances answer now."""
        return {(await self.get(instance, key))[1] for instance in INSTANCES}

    async def put(
        self, instance: str, key: str, value: bytes, ns: str = "pages", **headers: str
    ) -> aiohttp.ClientResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.put(
            f"{self.fleet.url(instance)}/v1/{ns}/{key}", data=value, headers=named
        ) as answer:
            await answer.read()
            return answer

    async def invalidate(self, instance: str, **change: object) -> dict[str, object]:
        body = {"namespace": "docs", **change}
        async with self.http.post(f"{self.fleet.url(instance)}/v1/invalidations", json=body) as answer:
            assert answer.status == 200, await answer.text()
            receipt: dict[str, object] = await answer.json()
            return receipt

    async def explain(self, instance: str, key: str, ns: str) -> dict[str, object]:
        async with self.http.get(f"{self.fleet.url(instance)}/v1/{ns}/{key}:explain") as answer:
            assert answer.status == 200
            explained: dict[str, object] = await answer.json()
            return explained

    async def is_held(self, instance: str, key: str, ns: str, tier: str) -> bool:
        tiers = (await self.explain(instance, key, ns))["tiers"]
        assert isinstance(tiers, dict)
        return bool(tiers[tier]["held"])

    async def control(self, **behaviour: object) -> None:
        async with self.http.post(self.origin("/_control"), json=behaviour) as answer:
            assert answer.status == 200, await answer.text()

    async def loads(self) -> int:
        async with self.http.get(self.origin("/_stats")) as answer:
            return int((await answer.json())["loads"])

    def origin(self, path: str) -> str:
        namespace = self.fleet.topology.namespaces["docs"]
        assert namespace.origin is not None
        return namespace.origin.url.removesuffix("/docs/{key}") + path


@pytest.fixture
async def caller(fleet: Fleet, http: aiohttp.ClientSession) -> Caller:
    """A caller of a fleet that keeps what it loads.

    New streams begin with fences on every namespace; these fences are past.
    """
    caller = Caller(fleet, http)

    async def is_kept() -> bool:
        status = (await caller.get("eu-a", "kept"))[2]
        return "stored" in status or "hit" in status

    await until("a fill is kept", is_kept)
    return caller


async def test_ten_thousand_concurrent_reads_of_a_cold_key_over_four_instances_reach_the_origin_once(
    caller: Caller,
) -> None:
    await caller.control(reset=True, latency="300ms")
    answers = await asyncio.gather(*(caller.get(INSTANCES[i % 4], "herd") for i in range(10_000)))
    await caller.control(latency="0ms")
    assert {status for status, _, _ in answers} == {200}
    assert len({body for _, body, _ in answers}) == 1
    assert await caller.loads() == 1


async def test_each_tier_answers_in_its_turn(caller: Caller) -> None:
    assert "cachesvc-l3; fwd=uri-miss; stored" in (await caller.get("eu-a", "turn"))[2]
    assert "cachesvc-l1; hit" in (await caller.get("eu-a", "turn"))[2]
    await until("the copy has reached eu's memcached", partial(caller.is_held, "eu-a", "turn", "docs", "l2"))
    assert "cachesvc-l2; hit" in (await caller.get("eu-b", "turn"))[2], "the region's pool"
    assert "cachesvc-l3; hit" in (await caller.get("us-a", "turn"))[2], (
        "the other region has the home cell in common"
    )
    await until("the copy has reached us's memcached", partial(caller.is_held, "us-a", "turn", "docs", "l2"))
    assert "cachesvc-l2; hit" in (await caller.get("us-b", "turn"))[2]


async def test_an_invalidation_reaches_every_instance_of_every_region(caller: Caller) -> None:
    before = await caller.values("everywhere")
    assert len(before) == 1
    await caller.control(version=2)
    receipt = await caller.invalidate("us-b", keys=["everywhere"])
    assert receipt["applied"] is True
    assert (await caller.get("us-b", "everywhere"))[1] not in before, "where it was called: at once"

    async def all_new() -> bool:
        return not before & await caller.values("everywhere")

    await until("all instances answer the new value", all_new)
    await caller.control(version=1)


@pytest.mark.parametrize("change", [{"tags": ["docs"]}, {"all": True, "confirm": "docs"}])
async def test_tags_and_whole_namespaces_reach_every_instance(
    caller: Caller, change: dict[str, object]
) -> None:
    key = f"wide-{next(iter(change))}"
    before = await caller.values(key)
    await caller.control(version=3)
    await caller.invalidate("eu-a", **change)

    async def all_new() -> bool:
        return not before & await caller.values(key)

    await until("all instances answer the new value", all_new)
    await caller.control(version=1)


async def test_a_token_reads_its_write_in_the_other_region(caller: Caller) -> None:
    await caller.put("eu-a", "own", b"1")
    assert (await caller.get("us-a", "own", "pages"))[1] == b"1"
    for i in range(20):
        written = await caller.put("eu-a", "own", f"{i}".encode())
        read = await caller.get("us-a", "own", "pages", Cachesvc_Token=written.headers["Cachesvc-Token"])
        assert read[1] == f"{i}".encode()


async def test_a_memcached_that_was_cut_off_and_comes_back_with_old_content_is_never_believed(
    caller: Caller,
) -> None:
    await caller.put("eu-a", "zombie", b"old")
    assert (await caller.get("eu-b", "zombie", "pages"))[1] == b"old"
    explained = await caller.explain("eu-a", "zombie", "pages")
    server = caller.fleet.memcached[str(explained["memcached_server"])]
    server.kill(signal.SIGSTOP)
    try:
        await caller.put("us-a", "zombie", b"new")

        async def eu_has_it() -> bool:
            return (await caller.get("eu-b", "zombie", "pages"))[1] == b"new"

        await until("eu answers the new value though its memcached hangs", eu_has_it)
    finally:
        server.kill(signal.SIGCONT)
    for _ in range(50):
        for instance in ("eu-a", "eu-b"):
            assert (await caller.get(instance, "zombie", "pages"))[1] == b"new"


async def test_with_every_backend_of_a_region_gone_reads_go_on_and_it_heals(caller: Caller) -> None:
    fleet = caller.fleet
    broken = [
        *(fleet.memcached[name] for name in fleet.topology.regions["eu"].pool),
        *fleet.cells.values(),
        fleet.queues["eu"],
    ]
    for server in broken:
        server.kill(signal.SIGKILL)
    try:
        status, _, cache_status = await caller.get("eu-a", "alone")
        assert status == 200
        assert "detail=unavailable" in cache_status
        async with caller.http.get(f"{fleet.url('eu-a')}/livez") as alive:
            assert alive.status == 200
        refused = await caller.put("eu-a", "alone", b"x")
        assert refused.status == 503
        assert refused.headers["Content-Type"].startswith("application/problem+json")
    finally:
        for server in broken:
            server.restart()

    async def whole_again() -> bool:
        return (await caller.put("eu-a", "healed", b"y")).status in (200, 201, 204) and (
            await caller.get("us-a", "healed", "pages")
        )[1] == b"y"

    await until("writes work and cross the regions again", whole_again)


async def test_a_lease_is_granted_once_over_all_instances(caller: Caller) -> None:
    async def lease(instance: str) -> str | None:
        url = f"{caller.fleet.url(instance)}/v1/pages/leased"
        async with caller.http.get(url, headers={"Prefer": "lease"}) as answer:
            assert answer.status == 404
            return answer.headers.get("Cachesvc-Lease")

    async def settled() -> bool:
        """Cells and a queue that were just restarted grant no lease, and vouch for nothing, for a few tenths of a second."""
        for instance in INSTANCES:
            known = (await caller.explain(instance, "home-0", "pages"))["fences"]
            assert isinstance(known, dict)
            if known["staleness_bound_seconds"] > 1 or known["floor"] > time.time_ns() // 1000:
                return False
        written = [(await caller.put("eu-a", f"home-{i}", b"x")).status for i in range(16)]
        read = [
            (await caller.get(instance, f"home-{i}", "pages"))[0] for i in range(16) for instance in INSTANCES
        ]
        return set(written) == {204} and set(read) == {200}

    await until("every cell issues and is believed", settled)
    granted = [
        token for token in await asyncio.gather(*(lease(INSTANCES[i % 4]) for i in range(100))) if token
    ]
    assert len(granted) == 1
    filled = await caller.put("us-b", "leased", b"filled elsewhere", Cachesvc_Lease=granted[0])
    assert filled.status in (200, 201, 204)
    assert (await caller.get("eu-a", "leased", "pages"))[1] == b"filled elsewhere"


async def test_callers_that_hang_up_disturb_nobody(caller: Caller) -> None:
    await caller.control(latency="200ms")
    impatient = [asyncio.create_task(caller.get("eu-a", f"hang-{i % 50}")) for i in range(500)]
    await asyncio.sleep(0.1)
    for read in impatient:
        read.cancel()
    await asyncio.gather(*impatient, return_exceptions=True)
    await caller.control(latency="0ms")
    answers = await asyncio.gather(*(caller.get("eu-a", f"hang-{i}") for i in range(50)))
    assert {status for status, _, _ in answers} == {200}
    assert len({body for _, body, _ in answers}) == 50, (
        "each key got its own bytes: no connection is out of step"
    )
