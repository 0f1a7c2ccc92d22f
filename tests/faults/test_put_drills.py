"""Puts just after invalidations, with clocks that are apart, and while a cell is killed.

Each writer has a key and a tag of its own, and knows which value is current.
"""

import asyncio
import random
from dataclasses import dataclass, field

import aiohttp
import pytest

from tests.faults.arena import LOOK_ASIDE, MAX_LAG_SECONDS, MUTANT, Arena

pytestmark = pytest.mark.faults

WRITERS = 8
SECONDS = 4.0
CELL = "cell-eu-1"


@dataclass
class Writer:
    """A caller that invalidates, puts and reads its key through any instance of the fleet."""

    http: aiohttp.ClientSession
    urls: list[str]
    name: str
    rng: random.Random = field(default_factory=random.Random)
    version: int = 0
    stored: int = 0
    refused: int = 0
    missed: int = 0
    """Values that were answered as stored, and were not there for the next read."""
    older: list[tuple[int, int]] = field(default_factory=list)
    """Pairs of the value that was read and the one that was current."""

    async def run(self) -> None:
        while True:
            self.version += 1
            await self.invalidate()
            if (put := await self.put()) is not None:
                by, token = put
                self.missed += await self.read(by, {}) is None
                self.missed += await self.read(self.rng.choice(self.urls), {"Cachesvc-Token": token}) is None
            self.version += 1
            if (done := await self.invalidate()) is not None:
                await self.read(done, {})

    async def invalidate(self) -> str | None:
        """Announces the write, by key or by tag; the instance that has done so."""
        by = self.rng.choice(self.urls)
        targets = self.rng.choice(({"keys": [self.name]}, {"tags": [self.name]}))
        body = {"namespace": LOOK_ASIDE, **targets}
        while True:
            async with self.http.post(f"{by}/v1/invalidations", json=body) as answer:
                if answer.status == 200:
                    return by if (await answer.json())["applied"] else None
            await asyncio.sleep(0.1)

    async def put(self) -> tuple[str, str] | None:
        by, headers = self.rng.choice(self.urls), {"Cache-Groups": f'"{self.name}"'}
        async with self.http.put(self.path(by), data=str(self.version), headers=headers) as answer:
            if answer.status == 204:
                self.stored += 1
                return by, answer.headers["Cachesvc-Token"]
            self.refused += 1
            return None

    async def read(self, by: str, headers: dict[str, str]) -> int | None:
        async with self.http.get(self.path(by), headers=headers) as answer:
            if answer.status != 200:
                return None
            found = int(await answer.read())
        if found < self.version:
            self.older.append((found, self.version))
        return found

    def path(self, by: str) -> str:
        return f"{by}/v1/{LOOK_ASIDE}/{self.name}"


async def test_what_was_put_just_after_an_invalidation_is_read_and_nothing_older(field: Arena) -> None:
    await field.relaunch(
        {
            "eu-a": [MUTANT, "--clock-offset=40ms"],
            "eu-b": [MUTANT, "--clock-offset=-40ms"],
            "us-a": [MUTANT, "--clock-offset=40ms", "--clock-turns-every", "1s"],
        }
    )
    await field.healthy()
    urls = [field.fleet.url(name) for name in field.fleet.instances]
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        writers = [Writer(http, urls, f"put-{number}") for number in range(WRITERS)]
        running = [asyncio.create_task(writer.run()) for writer in writers]
        try:
            await asyncio.sleep(SECONDS)
            calm = [(writer.stored, writer.refused, writer.missed) for writer in writers]
            field.kill(CELL)
            await asyncio.sleep(MAX_LAG_SECONDS)
            await field.start(CELL)
            await asyncio.sleep(SECONDS)
        finally:
            for task in running:
                task.cancel()
            ended = await asyncio.gather(*running, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended
    assert [writer.older for writer in writers] == [[]] * WRITERS
    assert all(stored > 3 and (refused, missed) == (0, 0) for stored, refused, missed in calm), calm
    assert all(writer.stored > before for writer, (before, _, _) in zip(writers, calm, strict=True))
