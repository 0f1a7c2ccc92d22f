"""One key, explained by two real regions: every copy is told, whoever does not answer is named, and nothing changes."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import aiohttp
import msgspec
import pytest

from cachesvc.explain.answer import Copy, Explanation, Seen
from loadtests.fleet import Fleet
from tests.doubles.waiting import until

pytestmark = pytest.mark.slow

DOCUMENT = Path(__file__).parents[2] / "config" / "two-regions.yaml"
SETTLE_SECONDS = 10.0
TIMES = 200
NOWHERE = Copy(held=False)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(
        DOCUMENT,
        tmp_path_factory.mktemp("fleet") / "run",
        ports="free",
        with_origin=True,
        environ={"CACHESVC_SERVER_MAX_INSPECTIONS": "100000"},
    ) as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def stopped(fleet: Fleet) -> Iterator[str]:
    """An instance of the other region, which neither answers nor refuses."""
    fleet.instances["us-b"].kill(signal.SIGSTOP)
    yield "us-b"
    fleet.instances["us-b"].kill(signal.SIGCONT)


class Caller:
    def __init__(self, fleet: Fleet, http: aiohttp.ClientSession) -> None:
        self.fleet = fleet
        self.http = http

    async def put(self, instance: str, key: str, value: bytes, tags: str = '"t"') -> str:
        url = f"{self.fleet.url(instance)}/v1/pages/{key}"
        async with self.http.put(url, data=value, headers={"Cache-Groups": tags}) as answer:
            assert answer.status == 204, await answer.text()
            return answer.headers["Cachesvc-Token"]

    async def get(self, instance: str, key: str) -> bytes:
        async with self.http.get(f"{self.fleet.url(instance)}/v1/pages/{key}") as answer:
            return await answer.read()

    async def explain(self, instance: str, key: str, **headers: str) -> Explanation:
        url = f"{self.fleet.url(instance)}/v1/pages/{key}:explain"
        async with self.http.get(
            url, headers={name.replace("_", "-"): value for name, value in headers.items()}
        ) as answer:
            assert answer.status == 200, await answer.text()
            return msgspec.json.decode(await answer.read(), type=Explanation)

    async def explained_by_all(self, instance: str, key: str) -> Explanation:
        """On a busy machine a neighbour may take longer than it is given: asked again."""
        async with asyncio.timeout(SETTLE_SECONDS):
            while True:
                found = await self.explain(instance, key)
                if not any(seen.unavailable for seen in found.elsewhere):
                    return found

    async def counted(self, *words: str) -> list[str]:
        """The metrics of every instance that say these words."""
        found = []
        for instance in self.fleet.instances:
            async with self.http.get(f"{self.fleet.url(instance)}/metrics") as answer:
                lines = (await answer.text()).splitlines()
            found += [f"{instance} {line}" for line in lines if line.startswith(words)]
        return found


@pytest.fixture
def caller(fleet: Fleet, http: aiohttp.ClientSession) -> Caller:
    return Caller(fleet, http)


def at(found: Explanation, instance: str) -> Seen:
    return next(seen for seen in found.elsewhere if seen.instance == instance)


def held(seen: Explanation | Seen) -> Sequence[str]:
    return [tier for tier, copy in seen.tiers.items() if copy.held]


async def test_every_copy_in_both_regions_is_told(caller: Caller) -> None:
    await caller.put("eu-a", "both", b"1")
    assert await caller.get("us-a", "both") == b"1"

    async def everywhere() -> bool:
        return held(at(await caller.explain("eu-a", "both"), "us-b")) == ["l2", "l3"]

    await until("the copies are where they should be", everywhere)
    found = await caller.explained_by_all("eu-a", "both")
    assert held(found) == ["l1", "l2", "l3"]
    assert {seen.name: list(held(seen)) for seen in found.elsewhere} == {
        "eu/eu-b": ["l2", "l3"],
        "us/us-a": ["l1", "l2", "l3"],
        "us/us-b": ["l2", "l3"],
    }
    copies = [
        copy
        for tiers in (found.tiers, *(seen.tiers for seen in found.elsewhere))
        for copy in tiers.values()
        if copy.held
    ]
    assert len({(copy.etag, copy.as_of, copy.tags, copy.standing) for copy in copies}) == 1
    assert found.home_cell is not None
    assert next(iter(found.home_cell.scores)) == found.home_cell.name
    assert found.memcached_server in caller.fleet.topology.regions["eu"].pool


async def test_a_fence_is_told_with_the_moment_of_its_merge_in_each_instance(caller: Caller) -> None:
    await caller.put("eu-a", "fenced", b"1", tags='"told"')
    change = {"namespace": "pages", "tags": ["told"], "wait": "global"}
    async with caller.http.post(f"{caller.fleet.url('us-a')}/v1/invalidations", json=change) as answer:
        assert (await answer.json())["reached"]
    found = await caller.explained_by_all("eu-a", "fenced")
    merges = [
        fences.merges for fences in (found.fences, *(seen.fences for seen in found.elsewhere)) if fences
    ]
    assert sorted(merge.came for each in merges for merge in each if merge.target == "tag told") == [
        "here",
        "us",
        "us",
        "us",
    ]
    assert found.tiers["l3"].standing == "refused"
    assert found.now is not None
    assert found.now.a_read_would == "miss"


async def test_whose_the_lease_is(caller: Caller) -> None:
    url = f"{caller.fleet.url('us-a')}/v1/pages/leased"
    async with caller.http.get(url, headers={"Prefer": "lease"}) as answer:
        assert "Cachesvc-Lease" in answer.headers
    found = await caller.explain("eu-b", "leased")
    assert found.home is not None
    assert found.home.lease is not None
    assert found.home.lease.holder == "us/us-a"


async def test_a_token_is_honoured_by_every_instance_that_is_asked(caller: Caller) -> None:
    await caller.put("eu-a", "token", b"1")
    token = await caller.put("eu-a", "other", b"1")
    plain, bound = (
        await caller.explain("eu-a", "token"),
        await caller.explain("eu-a", "token", Cachesvc_Token=token),
    )
    assert plain.tiers["l1"].standing == bound.tiers["l1"].standing == "fresh", "the token is of another key"
    own = await caller.put("us-a", "token", b"2")
    assert (await caller.explain("us-a", "token", Cachesvc_Token=own)).tiers["l1"].standing == "fresh"

    async def refused() -> bool:
        there = at(await caller.explain("us-a", "token", Cachesvc_Token=own), "eu-a")
        return "the token of this read" in there.tiers.get("l1", NOWHERE).refused_by

    await until("it is refused", refused)


async def test_an_instance_that_is_stopped_is_named_and_the_others_are_told(
    caller: Caller, stopped: str
) -> None:
    await caller.put("eu-a", "stopped", b"1")
    found = await caller.explain("eu-a", "stopped")
    assert at(found, stopped) == Seen("us", "us-b", unavailable="no answer within 50 ms")
    assert found.verdict.endswith("No answer from us/us-b (no answer within 50 ms).")
    assert held(found) == ["l1", "l2", "l3"]


async def test_a_region_without_its_home_cell_is_explained_all_the_same(caller: Caller) -> None:
    await caller.put("eu-a", "homeless", b"1")
    home = (await caller.explain("eu-a", "homeless")).home_cell
    assert home is not None
    cell = caller.fleet.cells[home.name]
    cell.kill(signal.SIGSTOP)
    try:
        found = await caller.explain("eu-a", "homeless")
    finally:
        cell.kill(signal.SIGCONT)
    assert found.tiers["l3"].unavailable == "home: no answer within 40 ms"
    assert found.tiers["l1"].standing == "fresh"


async def test_asking_many_times_changes_nothing(caller: Caller) -> None:
    await caller.put("eu-a", "quiet", b"1")
    words = (
        "cachesvc_lookups_total",
        "cachesvc_flights",
        "cachesvc_leases",
        "cachesvc_l1_",
        "cachesvc_loads",
    )
    before = await caller.counted(*words)
    for _ in range(TIMES):
        await caller.explain("eu-a", "quiet")
    assert await caller.counted(*words) == before
    assert len(before) > 20


async def test_the_command_finds_an_instance_that_answers(fleet: Fleet, caller: Caller) -> None:
    await caller.put("eu-b", "asked", b"1")
    fleet.instances["eu-a"].kill(signal.SIGSTOP)
    try:
        command = [
            sys.executable,
            "-m",
            "cachesvc",
            "explain",
            "pages",
            "asked",
            "--topology",
            str(fleet.topology_path),
        ]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)
    finally:
        fleet.instances["eu-a"].kill(signal.SIGCONT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("A read at eu/eu-b would answer from l1")
    assert "eu/eu-a  not known" in done.stdout
