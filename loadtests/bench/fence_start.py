"""How soon a new instance is ready when a million fences are retained.

    python -m loadtests.bench.fence_start      prints one JSON object

The fences are published as the consumers of 10,000 changes per second publish them: each item
names the server that applied its fences. Then a process is started and asked until its `/readyz`
answers 200. The start of Python and the imports are included.
"""

import itertools
import json
import random
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import uvloop
from redis.asyncio import Redis

from cachesvc.changes.redis.changes import RedisChanges
from cachesvc.changes.redis.fences import RedisFenceStream
from cachesvc.config.service import Coherence
from cachesvc.model.clock import SystemClock
from cachesvc.model.fence import Fence
from cachesvc.model.units import Duration
from cachesvc.tiers.l3.issuer import issuer_of
from loadtests.bench.fence_lag import DOCUMENT
from loadtests.fleet import Fleet

FENCES = 1_000_000
BATCH = 500


async def publish(url: str, region: str, cells: Mapping[str, str]) -> None:
    """Publishes the fences on the region's queue; `cells`: the URLs of the home cells by name."""
    homes = itertools.cycle([((name, await issuer(cell)),) for name, cell in cells.items()])
    stream = RedisFenceStream(
        url, region, skew=Duration.parse("100ms"), retention=Coherence().fence_retention
    )
    rng, now = random.Random(0), SystemClock().now_us()
    for _ in range(FENCES // BATCH):
        home = next(homes)
        await stream.publish([Fence(rng.getrandbits(64), now, issuers=home) for _ in range(BATCH)])
    changes = RedisChanges(url, region)
    await stream.heartbeat(now, (await changes.completion()).epoch)
    await changes.stop()
    await stream.stop()


async def issuer(url: str) -> int:
    """Returns the number of the server of a cell."""
    async with Redis.from_url(url) as server:
        said = await server.info()
        database = server.connection_pool.connection_kwargs.get("db", 0)
    return issuer_of(said["run_id"], said["master_replid"], database)


def ready_seconds(fleet: Fleet, name: str) -> float:
    """Starts the instance; the seconds until it is ready."""
    began = time.perf_counter()
    instance = fleet.instances[name]
    instance.spawn()
    while not _is_ready(f"{fleet.url(name)}/readyz"):
        time.sleep(0.02)
    return time.perf_counter() - began


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def measure() -> dict[str, float]:
    """Seconds until ready, with and without retained fences."""
    with tempfile.TemporaryDirectory(prefix="cachesvc-start-") as folder:
        fleet = Fleet(DOCUMENT, Path(folder) / "run")
        with fleet:
            region, document = next(iter(fleet.topology.regions.items()))
            name = next(iter(document.instances))
            fleet.instances[name].stop()
            without = ready_seconds(fleet, name)
            fleet.instances[name].stop()
            cells = {name: cell.url for name, cell in fleet.topology.cells.items()}
            uvloop.run(publish(document.queue, region, cells))
            return {"ready_seconds": ready_seconds(fleet, name), "ready_seconds_without_fences": without}


if __name__ == "__main__":
    print(json.dumps(measure()))
