"""Keys per second of single gets through the SDK.

    python -m loadtests.bench.sdk_load http://127.0.0.1:8080 batched --concurrency 64 --seconds 3

`--concurrency` tasks in one process ask for one key after another with a single `get`. `batched`
is the SDK with its defaults, many gets to a request. `single` is the same SDK and HTTP client
with batching off, one request per get. The output is a JSON object.
"""

import argparse
import asyncio
import json
import time
from itertools import cycle

import uvloop
from cachesvc_client import Cache, Namespace

from loadtests.bench.cores import OwnMeter
from loadtests.bench.keyspace import NAMESPACE, values


async def measure(url: str, *, batching: bool, concurrency: int, seconds: float) -> dict[str, float]:
    """Keys per second, and how busy this process and its core were.

    Raises `SystemExit` at a value that differs from the stored one.
    """
    held = values()
    async with Cache.from_url(url, batching=batching) as cache:
        namespace = cache.namespace(NAMESPACE)
        walk = cycle(held.items())
        for _ in range(concurrency):  # connections are open before the clock starts
            await namespace.get(next(walk)[0])
        meter, started = OwnMeter(), time.perf_counter()
        counts = await asyncio.gather(
            *(_get_until(namespace, walk, started + seconds) for _ in range(concurrency))
        )
        return {"keys_per_second": sum(counts) / (time.perf_counter() - started), **meter.shares()}


async def _get_until(namespace: Namespace[bytes], walk: "cycle[tuple[str, bytes]]", end: float) -> int:
    got = 0
    while time.perf_counter() < end:
        key, value = next(walk)
        if await namespace.get(key) != value:
            raise SystemExit(f"get({key!r}) answered another value than was stored")
        got += 1
    return got


def main() -> None:
    """Measures and prints the JSON object."""
    parser = argparse.ArgumentParser(prog="loadtests.bench.sdk_load", description="Load through the SDK.")
    parser.add_argument("url")
    parser.add_argument("mode", choices=["batched", "single"])
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=3.0)
    args = parser.parse_args()
    load = measure(
        args.url, batching=args.mode == "batched", concurrency=args.concurrency, seconds=args.seconds
    )
    print(json.dumps(uvloop.run(load)))


if __name__ == "__main__":
    main()
