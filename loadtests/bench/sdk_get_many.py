"""Keys per second of `get_many(100)`, called again and again.

    python -m loadtests.bench.sdk_get_many http://127.0.0.1:8080 sdk --seconds 3

`sdk` is the SDK with its defaults. `raw` is an aiohttp client that posts the same batches of keys
as msgpack and decodes what `:get` answers; it retries nothing, honours no token and knows no
other instance. Both are one process with `TASKS` tasks and a connection for each, though the SDK
needs only two. Each compares every value with the stored one. The output is a JSON object.
"""

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import cycle

import aiohttp
import msgspec
import uvloop
from cachesvc_client import Cache

from loadtests.bench.cores import OwnMeter
from loadtests.bench.keyspace import BATCH, MSGPACK, NAMESPACE, batches, values

TASKS = 4
"""Callers at a time: enough to keep one core busy, here or at the service."""

GetMany = Callable[[int], Awaitable[Mapping[str, bytes]]]
"""Reads the batch with this number."""


class Got(msgspec.Struct):
    """The part of one key's answer that a client needs if it only wants the value."""

    outcome: str
    value: bytes = b""


class Answer(msgspec.Struct):
    """The answer to `:get`."""

    results: list[Got]


@asynccontextmanager
async def through_sdk(url: str) -> AsyncIterator[GetMany]:
    """Reads through the SDK."""
    walk = batches(list(values()))
    async with Cache.from_url(url) as cache:
        namespace = cache.namespace(NAMESPACE)
        yield lambda number: namespace.get_many(walk[number])


@asynccontextmanager
async def through_aiohttp(url: str) -> AsyncIterator[GetMany]:
    """Reads through a bare aiohttp client."""
    walk = batches(list(values()))
    headers = {"Content-Type": MSGPACK, "Accept": MSGPACK}
    encode, decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Answer).decode

    async with aiohttp.ClientSession(
        url, connector=aiohttp.TCPConnector(limit=TASKS), headers=headers
    ) as session:

        async def get_many(number: int) -> Mapping[str, bytes]:
            async with session.post(f"/v1/{NAMESPACE}:get", data=encode({"keys": walk[number]})) as response:
                results = decode(await response.read()).results
            return {
                key: got.value for key, got in zip(walk[number], results, strict=True) if got.outcome == "hit"
            }

        yield get_many


CLIENTS = {"sdk": through_sdk, "raw": through_aiohttp}


async def measure(url: str, client: str, *, seconds: float) -> dict[str, float]:
    """Keys per second, and how busy this process and its core were.

    Raises `SystemExit` at a value that differs from the stored one.
    """
    held = values()
    wanted = [{key: held[key] for key in batch} for batch in batches(list(held))]
    async with CLIENTS[client](url) as get_many:
        walk = cycle(range(len(wanted)))
        for _ in range(TASKS):  # connections are open before the clock starts
            await get_many(next(walk))
        meter, started = OwnMeter(), time.perf_counter()
        counts = await asyncio.gather(
            *(_get_until(get_many, walk, wanted, started + seconds) for _ in range(TASKS))
        )
        return {"keys_per_second": sum(counts) / (time.perf_counter() - started), **meter.shares()}


async def _get_until(
    get_many: GetMany, walk: "cycle[int]", wanted: list[dict[str, bytes]], end: float
) -> int:
    got = 0
    while time.perf_counter() < end:
        number = next(walk)
        if await get_many(number) != wanted[number]:
            raise SystemExit(f"get_many answered other values than were stored, in batch {number}")
        got += BATCH
    return got


def main() -> None:
    """Measures and prints the JSON object."""
    parser = argparse.ArgumentParser(
        prog="loadtests.bench.sdk_get_many", description="get_many(100) again and again."
    )
    parser.add_argument("url")
    parser.add_argument("client", choices=list(CLIENTS))
    parser.add_argument("--seconds", type=float, default=3.0)
    args = parser.parse_args()
    print(json.dumps(uvloop.run(measure(args.url, args.client, seconds=args.seconds))))


if __name__ == "__main__":
    main()
