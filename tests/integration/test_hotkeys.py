"""Hot keys and large values of a real instance: from reads over HTTP to `/v1/hotkeys` and `/metrics`."""

import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cachesvc.commands.top.exposition import Exposition
from cachesvc.model.entry import Key
from loadtests.fleet import Fleet

DOCUMENT = Path(__file__).parents[2] / "config" / "two-regions.yaml"
TOKEN = "for-the-eyes-of-the-tests"
READS = 40_000


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    environ = {"CACHESVC_TELEMETRY_DEBUG_TOKEN": TOKEN}
    with Fleet(DOCUMENT, tmp_path_factory.mktemp("fleet") / "run", environ=environ) as running:
        yield running.url("eu-a")


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def read_much(http: aiohttp.ClientSession, url: str) -> None:
    """Reads a present key, a missing key and many others, in the shares 3 : 2 : 5.

    The missing key never exists; the others are drawn from a thousand.
    """
    dice = random.Random(7)
    (await http.put(f"{url}/v1/pages/user:anna", data=bytes(5000))).release()
    (await http.put(f"{url}/v1/pages/user:small", data=b"s")).release()
    for _ in range(READS // 500):
        others = [f"k{dice.randrange(1000)}" for _ in range(250)]
        async with http.post(
            f"{url}/v1/pages:get", json={"keys": ["user:anna"] * 150 + ["user:gone"] * 100 + others}
        ) as answer:
            assert answer.status == 200


async def hot_keys(http: aiohttp.ClientSession, url: str, **headers: str) -> Any:
    async with http.get(f"{url}/v1/hotkeys?namespace=pages", headers=headers) as answer:
        assert answer.status == 200
        return await answer.json()


async def test_keys_that_are_read_most_are_found_hit_or_miss(url: str, http: aiohttp.ClientSession) -> None:
    await read_much(http, url)
    plain = await hot_keys(http, url)
    assert "anna" not in str(plain)
    assert plain["reads_sampled"] == pytest.approx(READS / 64, rel=0.2)
    first, second = plain["hot"][:2]
    assert first["digest"] == f"{Key.of('pages', 'user:anna').digest:016x}"
    assert first["share"] <= 0.4
    assert first["share"] + first["error"] >= 0.2
    assert second["digest"] == f"{Key.of('pages', 'user:gone').digest:016x}"
    shown = await hot_keys(http, url, **{"Cachesvc-Debug": TOKEN})
    assert [hot["key"] for hot in shown["hot"][:2]] == ["user:anna", "user:gone"]
    assert (shown["largest"][0]["key"], shown["largest"][0]["bytes"]) == ("user:anna", 5000)


async def test_their_share_and_size_are_metrics(url: str, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{url}/metrics") as answer:
        metrics = Exposition.parse(await answer.text())
    share = metrics.value("hot_key_share", namespace="pages")
    assert share == pytest.approx(0.3, abs=0.1)
    assert metrics.value("largest_value_bytes", namespace="pages") == 5000
    assert metrics.value("hot_key_share", namespace="bench") is None, "nobody read there"
