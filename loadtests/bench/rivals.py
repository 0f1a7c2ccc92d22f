"""The processes that the service is compared with.

    python -m loadtests.bench.rivals bare --port 9000 …

The HTTP rivals answer with the headers of a real answer of the service, made once before they
serve, and with 512-byte bodies from a dict or from memcached. They decide nothing, count nothing,
and know one namespace: this is less work than any cache could do.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiomcache
import uvloop
from aiohttp import web
from multidict import CIMultiDict
from pymemcache import Client, PooledClient

from loadtests.bench.cores import OwnMeter
from loadtests.bench.keyspace import BATCH, batches, values

Handler = Callable[[web.Request], Awaitable[web.Response]]
Fetch = Callable[[str], Awaitable[bytes | None]]

HEADERS_THE_SERVER_ADDS = frozenset({"date", "server", "content-length", "connection"})
AIOMCACHE_CONNECTIONS = 16
"""The best number of connections for aiomcache.

Measured under 32 connections of load, medians of three: 2 gave 10.0k requests/s, 4 and 8 10.3k,
16 13.2k, 32 12.9k.
"""
EXECUTOR_CONNECTIONS = 32


def answering(headers: CIMultiDict[str], fetch: Fetch) -> Handler:
    """A handler that answers what `fetch` finds."""

    async def get(request: web.Request) -> web.Response:
        held = await fetch(request.match_info["key"])
        if held is None:
            return web.Response(status=404)
        return web.Response(body=held, headers=headers)

    return get


def bare(headers: CIMultiDict[str], _address: tuple[str, int]) -> Handler:
    """A handler that answers from a dict, without a call in between.

    It shows what aiohttp itself costs.
    """
    held = values()

    async def get(request: web.Request) -> web.Response:
        value = held.get(request.match_info["key"])
        if value is None:
            return web.Response(status=404)
        return web.Response(body=value, headers=headers)

    return get


def over_aiomcache(headers: CIMultiDict[str], address: tuple[str, int]) -> Handler:
    """A handler that answers from memcached, through aiomcache."""
    client = aiomcache.Client(*address, pool_size=AIOMCACHE_CONNECTIONS)

    async def fetch(key: str) -> bytes | None:
        return await client.get(key.encode())

    return answering(headers, fetch)


def over_executor(headers: CIMultiDict[str], address: tuple[str, int]) -> Handler:
    """A handler that answers from memcached, through pymemcache in the loop's executor."""
    client = PooledClient(address, max_pool_size=EXECUTOR_CONNECTIONS, no_delay=True)

    async def fetch(key: str) -> bytes | None:
        value: bytes | None = await asyncio.get_running_loop().run_in_executor(None, client.get, key)
        return value

    return answering(headers, fetch)


HANDLERS: dict[str, Callable[[CIMultiDict[str], tuple[str, int]], Handler]] = {
    "bare": bare,
    "aiomcache": over_aiomcache,
    "executor": over_executor,
}


def serve(name: str, port: int, headers: CIMultiDict[str], address: tuple[str, int]) -> None:
    """Serves one rival until the process ends."""

    async def application() -> web.Application:
        app = web.Application()
        app.router.add_get("/v1/{namespace}/{key}", HANDLERS[name](headers, address))
        return app

    web.run_app(
        application(), host="127.0.0.1", port=port, access_log=None, print=None, loop=uvloop.new_event_loop()
    )


def get_many_loop(address: tuple[str, int], seconds: float) -> dict[str, float]:
    """Keys per second of one thread that calls `get_many` of 100 keys again and again.

    The result also says how busy the thread's process and its core were.
    """
    client = Client(address, no_delay=True)
    walk = batches(list(values()))
    fetched, at = 0, 0
    meter, started = OwnMeter(), time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        got = client.get_many(walk[at])
        if len(got) != BATCH:
            raise SystemExit(f"get_many found {len(got)} of {BATCH} keys")
        fetched += BATCH
        at = (at + 1) % len(walk)
    return {"keys_per_second": fetched / elapsed, **meter.shares()}


def main() -> None:
    """Runs the rival that the command line names."""
    parser = argparse.ArgumentParser(
        prog="loadtests.bench.rivals",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=[*HANDLERS, "get-many"])
    parser.add_argument("--port", type=int, help="where to listen (HTTP rivals)")
    parser.add_argument("--headers", type=Path, help="JSON list of [name, value] to answer with")
    parser.add_argument("--memcached", type=int, default=11211, help="port of memcached on 127.0.0.1")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long get-many runs")
    args = parser.parse_args()
    address = ("127.0.0.1", args.memcached)
    if args.name == "get-many":
        print(json.dumps(get_many_loop(address, args.seconds)))
        return
    pairs = json.loads(args.headers.read_text()) if args.headers else []
    headers = CIMultiDict(
        (name, value) for name, value in pairs if name.lower() not in HEADERS_THE_SERVER_ADDS
    )
    serve(args.name, args.port, headers, address)


if __name__ == "__main__":
    main()
