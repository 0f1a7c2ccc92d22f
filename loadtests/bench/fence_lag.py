"""How long a change takes until every instance has merged it.

    python -m loadtests.bench.fence_lag        prints one JSON object

Two regions of two instances run with real servers. Changes are appended to one region's `changes`
as a producer does, in an open loop: on schedule, however far the service is behind. An instance
has merged a change when its `GET /v1/fences` says so. Sending and reading that event are counted,
too, so the figures are upper bounds. After that, two callers make about ninety invalidate calls
per second while nothing else happens.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from struct import Struct

import aiohttp
import uvloop
from redis.asyncio import Redis

from cachesvc.changes.events.cloudevents import encode
from cachesvc.model.change import Change
from cachesvc.model.digest import digest, key_id
from loadtests.bench.figures import percentile
from loadtests.fleet import Fleet

DOCUMENT = Path(__file__).parents[2] / "config" / "two-regions.yaml"
NAMESPACE = "bench"
PACE_SECONDS = 0.005
"""The pause between two pipelines of changes.

A producer that sent every change by itself would be measured instead of the service.
"""
SETTLE_SECONDS = 3.0
CALLERS = 2
CALL_PAUSE_SECONDS = 0.02
_PAIRS = Struct(">QQ")


class Merges:
    """For each instance, the time at which it said that it had merged a fence."""

    def __init__(self, instances: Sequence[str]) -> None:
        self.at: dict[str, dict[int, float]] = {name: {} for name in instances}

    async def follow(self, http: aiohttp.ClientSession, name: str, url: str) -> None:
        """Reads the instance's `/v1/fences` until cancelled, and notes the time of each fence."""
        seen = self.at[name]
        async with http.get(f"{url}/v1/fences") as stream:
            async for line in stream.content:
                if line.startswith(b'data: {"fences"'):
                    now = time.perf_counter()
                    packed = json.loads(line[6:])["fences"].encode()
                    for target, _ in _PAIRS.iter_unpack(
                        urlsafe_b64decode(packed + b"=" * (-len(packed) % 4))
                    ):
                        seen.setdefault(target, now)


@asynccontextmanager
async def following(fleet: Fleet) -> AsyncIterator[Merges]:
    """Follows every instance while the block runs."""
    urls = {name: url for region in fleet.topology.regions.values() for name, url in region.instances.items()}
    merges = Merges(list(urls))
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=timeout, read_bufsize=1 << 22) as http:
        tasks = [asyncio.create_task(merges.follow(http, name, url)) for name, url in urls.items()]
        await asyncio.sleep(SETTLE_SECONDS)
        yield merges
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def lag(fleet: Fleet, *, rate: float, keys: int, seconds: float) -> dict[str, float]:
    """Milliseconds from the append of a change to the last instance's merge.

    `rate` is in keys per second, with `keys` keys in each change.
    """
    queue = Redis.from_url(next(iter(fleet.topology.regions.values())).queue)
    async with following(fleet) as merges:
        sent = await _produce(queue, _changes(keys), rate / keys, seconds)
        await asyncio.sleep(SETTLE_SECONDS)
    await queue.aclose()
    lost = sum(target not in seen for seen in merges.at.values() for target in sent)
    lags = sorted(
        (max(seen[target] for seen in merges.at.values()) - at) * 1000
        for target, at in sent.items()
        if all(target in seen for seen in merges.at.values())
    )
    if lost:
        raise SystemExit(
            f"{lost} fences of {len(sent)} changes were not seen by some instance {SETTLE_SECONDS} s later"
        )
    return {"p50_ms": percentile(lags, 0.5), "p99_ms": percentile(lags, 0.99), "keys": len(sent)}


async def _produce(queue: Redis, changes: Iterator[Change], rate: float, seconds: float) -> dict[int, float]:
    """Appends changes for `seconds`; returns the time of each key's append."""
    sent: dict[int, float] = {}
    began = time.perf_counter()
    done = 0
    while (elapsed := time.perf_counter() - began) < seconds:
        pipe = queue.pipeline(transaction=False)
        for _ in range(round(elapsed * rate) - done):
            change = next(changes)
            pipe.xadd("changes", {"event": encode(change, id_=str(done), source="/bench")})
            at = time.perf_counter()
            sent.update((digest(key_id(NAMESPACE, key)), at) for key in change.keys)
            done += 1
        await pipe.execute()
        await asyncio.sleep(PACE_SECONDS)
    return sent


def _changes(keys: int) -> Iterator[Change]:
    stem, number = f"{random.getrandbits(32):x}", 0
    while True:
        yield Change(NAMESPACE, keys=tuple(f"{stem}:{number + i}" for i in range(keys)))
        number += keys


async def calls(fleet: Fleet, *, seconds: float) -> dict[str, float]:
    """Milliseconds that a `POST /v1/invalidations` takes."""
    url = f"{fleet.url(next(iter(fleet.instances)))}/v1/invalidations"
    timings: list[float] = []

    async def caller(http: aiohttp.ClientSession, name: int) -> None:
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            async with http.post(
                url, json={"namespace": NAMESPACE, "keys": [f"{name}:{len(timings)}"]}
            ) as answer:
                if answer.status != 200:
                    raise SystemExit(f"{answer.status}: {await answer.text()}")
                await answer.read()
            timings.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(CALL_PAUSE_SECONDS)

    async with aiohttp.ClientSession() as http:
        await asyncio.gather(*(caller(http, name) for name in range(CALLERS)))
    timings.sort()
    return {"p50_ms": percentile(timings, 0.5), "p99_ms": percentile(timings, 0.99), "calls": len(timings)}


async def _measure(fleet: Fleet, seconds: float) -> dict[str, dict[str, float]]:
    return {
        "single": await lag(fleet, rate=2_000, keys=1, seconds=seconds),
        "batches": await lag(fleet, rate=10_000, keys=50, seconds=seconds),
        "invalidate": await calls(fleet, seconds=seconds),
    }


def main() -> int:
    """Measures and prints; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench.fence_lag")
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="cachesvc-lag-") as folder,
        Fleet(DOCUMENT, Path(folder) / "run") as fleet,
    ):
        print(json.dumps(uvloop.run(_measure(fleet, arguments.seconds))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
