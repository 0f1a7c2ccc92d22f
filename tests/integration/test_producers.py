"""Changes that producers put on a region's queue reach every instance of every region.

Everything runs over real sockets, with nothing stood in.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from redis.asyncio import Redis

from cachesvc.cli import main
from loadtests.fleet import Fleet
from tests.doubles.waiting import until

DOCUMENT = Path(__file__).parents[2] / "config" / "two-regions.yaml"
INSTANCES = ("eu-a", "eu-b", "us-a", "us-b")
BLOCKS = {
    "owner": "web",
    "sources": [
        {
            "source": "public.blocks",
            "key": "{ws-{workspace_id}}:block:{id}",
            "tags": ["{ws-{workspace_id}}:page-{page_id?}"],
        }
    ],
}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(DOCUMENT, tmp_path_factory.mktemp("fleet") / "run", namespaces={"blocks": BLOCKS}) as running:
        yield running


class Cache:
    def __init__(self, fleet: Fleet, http: aiohttp.ClientSession) -> None:
        self._fleet = fleet
        self._http = http

    async def store(self, key: str, *, tag: str = "") -> None:
        headers = {"Cache-Groups": f'"{tag}"'} if tag else {}
        async with self._http.put(self._url("eu-a", key), data=b"old", headers=headers) as answer:
            assert answer.status in (200, 201, 204), await answer.text()
        await until(f"every instance has {key}", lambda: self.is_held_by_all(key))

    async def is_held_by_all(self, key: str) -> bool:
        return await self._statuses(key) == {200}

    async def is_gone(self, key: str) -> bool:
        return await self._statuses(key) == {404}

    async def receipt_is_done(self, id_: str) -> bool:
        async with self._http.get(f"{self._fleet.url('us-b')}/v1/invalidations/{id_}") as answer:
            return answer.status == 200 and (await answer.json())["state"] == "done"

    async def _statuses(self, key: str) -> set[int]:
        return {await self._status(instance, key) for instance in INSTANCES}

    async def _status(self, instance: str, key: str) -> int:
        async with self._http.get(self._url(instance, key)) as answer:
            return answer.status

    def _url(self, instance: str, key: str) -> str:
        return f"{self._fleet.url(instance)}/v1/blocks/{key}"


@pytest.fixture
async def cache(fleet: Fleet) -> AsyncIterator[Cache]:
    async with aiohttp.ClientSession() as http:
        yield Cache(fleet, http)


@pytest.fixture
async def queue(fleet: Fleet) -> AsyncIterator[Redis]:
    """The queue of region `us`, where a producer may announce what is cached in `eu`."""
    async with Redis.from_url(fleet.topology.regions["us"].queue, protocol=3) as redis:
        yield redis


async def test_what_a_person_publishes_is_gone_everywhere_and_has_a_receipt(
    fleet: Fleet, cache: Cache, capsys: pytest.CaptureFixture[str]
) -> None:
    await cache.store("{ws-1}:block:1")
    arguments = [
        "publish",
        "blocks",
        "--key",
        "{ws-1}:block:1",
        "--topology",
        str(fleet.topology_path),
        "--region",
        "us",
    ]
    assert await asyncio.to_thread(main, arguments, {}) == 0
    await until("the key is gone", lambda: cache.is_gone("{ws-1}:block:1"))
    receipt = capsys.readouterr().out.strip()
    await until(f"receipt {receipt} is done", lambda: cache.receipt_is_done(receipt))


async def test_a_row_that_moves_takes_its_old_and_its_new_key_and_their_tags_with_it(
    cache: Cache, queue: Redis
) -> None:
    old, new, page = "{ws-2}:block:7", "{ws-3}:block:7", "{ws-2}:page:5"
    await cache.store(old)
    await cache.store(new)
    await cache.store(page, tag="{ws-2}:page-5")
    row = {"id": 7, "workspace_id": 2, "page_id": 5, "title": "moves"}
    change = {
        "op": "u",
        "before": row,
        "after": {**row, "workspace_id": 3},
        "source": {
            "connector": "postgresql",
            "name": "shop",
            "db": "shop",
            "schema": "public",
            "table": "blocks",
        },
        "ts_ms": 1_700_000_000_000,
    }
    await queue.xadd("changes", {"key": json.dumps({"id": 7}), "value": json.dumps(change)})
    await queue.xadd("changes", {"key": json.dumps({"id": 7}), "value": "default"})
    for key in (old, new, page):
        await until(f"{key} is gone", partial(cache.is_gone, key))


async def test_a_dead_letter_says_why_and_holds_up_nothing(cache: Cache, queue: Redis) -> None:
    await cache.store("{ws-4}:block:1")
    event = {"specversion": "1.0", "id": "1", "source": "/s", "type": "dev.cachesvc.change.v1"}
    await queue.xadd(
        "changes", {"event": json.dumps({**event, "data": {"namespace": "blocks", "kyes": ["a"]}})}
    )
    await queue.xadd(
        "changes",
        {"event": json.dumps({**event, "data": {"namespace": "blocks", "keys": ["{ws-4}:block:1"]}})},
    )
    await until("the next event is done", lambda: cache.is_gone("{ws-4}:block:1"))

    async def is_buried() -> bool:
        letters: Any = await queue.xrange("changes:dead")
        return [fields[b"reason"] for _, fields in letters] == [
            b"Object contains unknown field `kyes` - at `$.data`"
        ]

    await until("the bad one is a dead letter", is_buried)
