"""The cost of a near hit.

    python -m loadtests.bench.sdk_near http://127.0.0.1:8080 --pairs 5 --seconds 0.3

One process holds the same 2,000 keys and values four times: in the near caches of the async and
the sync client, in a `cachetools.LRUCache`, and in memory with cashews. It walks over them in
turn, so that a slow phase of the machine slows all of them. A cost is the processor time of the
call alone (none of them waits for anything): the time of the loop around the call is measured in
the same round and subtracted. The output is a JSON list.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from statistics import median

import cachesvc_client
import cachesvc_client.sync
import cashews
import uvloop
from cachesvc_client import Hit, Lookup, NearSettings
from cachetools import LRUCache

from loadtests.bench.keyspace import KEYS, NAMESPACE, values

ROUNDS_AT_LEAST = 3
RIVALS_STRIDE = 10
"""cashews is asked for every tenth key.

So a round is short, and the median is taken over many rounds.
"""
FILL_SECONDS = 10.0
_ROOM = 2 * KEYS

AsyncGet = Callable[[str], Awaitable[bytes | None]]
Get = Callable[[str], bytes | None]


class Walks:
    """The timed loops over all keys. They return seconds of processor time per key."""

    def __init__(self, held: dict[str, bytes], near: AsyncGet, near_sync: Get, rival: AsyncGet) -> None:
        self._keys = list(held)
        self._lru: LRUCache[str, bytes] = LRUCache(_ROOM)
        self._lru.update(held)
        self._near, self._near_sync, self._rival = near, near_sync, rival

    async def round(self) -> dict[str, float]:
        """Nanoseconds of one read in each of the four."""
        await asyncio.sleep(0.001)  # the feeds of both near caches get a turn
        loop, lru, near_sync = self._loop(), self._of_lru(), self._of_near_sync()
        near, rival = (
            await _awaited(self._near, self._keys),
            await _awaited(self._rival, self._keys[::RIVALS_STRIDE]),
        )
        timed = {"lru": lru, "near": near, "near_sync": near_sync, "cashews": rival}
        return {name: (seconds - loop) * 1e9 for name, seconds in timed.items()}

    def _loop(self) -> float:
        began = time.thread_time()
        for _key in self._keys:
            pass
        return self._per_key(began)

    def _of_lru(self) -> float:
        lru, began = self._lru, time.thread_time()
        for key in self._keys:
            lru[key]
        return self._per_key(began)

    def _of_near_sync(self) -> float:
        get, began = self._near_sync, time.thread_time()
        for key in self._keys:
            get(key)
        return self._per_key(began)

    def _per_key(self, began: float) -> float:
        return (time.thread_time() - began) / len(self._keys)


async def _awaited(get: AsyncGet, keys: Sequence[str]) -> float:
    began = time.thread_time()
    for key in keys:
        await get(key)
    return (time.thread_time() - began) / len(keys)


async def measure(url: str, *, pairs: int, seconds: float) -> list[dict[str, float]]:
    """The median costs of the rounds during `seconds`, `pairs` times.

    Raises `SystemExit` if a read was no near hit.
    """
    held = values()
    settings = NearSettings(max_entries=_ROOM)
    async with AsyncExitStack() as stack:
        near = (await stack.enter_async_context(cachesvc_client.Cache.from_url(url))).namespace(
            NAMESPACE, near=settings
        )
        near_sync = stack.enter_context(cachesvc_client.sync.Cache.from_url(url)).namespace(
            NAMESPACE, near=settings
        )
        rival = await _cashews(stack, held)
        await _fill(near, held)
        await asyncio.to_thread(_fill_sync, near_sync, held)
        walks = Walks(held, near.get, near_sync.get, rival)
        before = (_reads_passed(near), _reads_passed(near_sync))
        costs = [await _median_costs(walks, seconds) for _ in range(pairs)]
        if (_reads_passed(near), _reads_passed(near_sync)) != before:
            raise SystemExit("some reads were no near hits")
        return costs


async def _median_costs(walks: Walks, seconds: float) -> dict[str, float]:
    end, rounds = time.perf_counter() + seconds, list[dict[str, float]]()
    while time.perf_counter() < end or len(rounds) < ROUNDS_AT_LEAST:
        rounds.append(await walks.round())
    return {name: median(round_[name] for round_ in rounds) for name in rounds[0]}


async def _cashews(stack: AsyncExitStack, held: dict[str, bytes]) -> AsyncGet:
    """The `get` of cashews' in-memory backend, with room for all keys.

    The backend is set up as its documentation says.
    """
    cache = cashews.Cache()
    cache.setup("mem://", size=_ROOM)
    await cache.init()
    stack.push_async_callback(cache.close)
    await cache.set_many(held)

    for key, value in held.items():
        if await cache.get(key) != value:
            raise SystemExit(f"cashews answered another value of {key!r} than was stored")
    return cache.get


async def _fill(namespace: cachesvc_client.Namespace[bytes], held: dict[str, bytes]) -> None:
    """Reads until every key is answered by the near cache.

    At first it answers none: a new feed cannot vouch for copies yet.
    """
    async with asyncio.timeout(FILL_SECONDS):
        for key, value in held.items():
            # Polling is right here: the event that ends the wait is in another process.
            while not _is_near(await namespace.lookup(key), value):  # noqa: ASYNC110
                await asyncio.sleep(0)


def _fill_sync(namespace: cachesvc_client.sync.Namespace[bytes], held: dict[str, bytes]) -> None:
    end = time.monotonic() + FILL_SECONDS
    for key, value in held.items():
        while not _is_near(found := namespace.lookup(key), value):
            if time.monotonic() > end:
                raise SystemExit(f"no near hit within {FILL_SECONDS:g} s, but {found!r}")


def _is_near(found: Lookup[bytes], value: bytes) -> bool:
    if not isinstance(found, Hit) or found.value != value:
        raise SystemExit(f"lookup answered {found!r}, and not what was stored")
    return found.tier == "near"


def _reads_passed(namespace: cachesvc_client.Namespace[bytes] | cachesvc_client.sync.Namespace[bytes]) -> int:
    assert namespace.near is not None
    return namespace.near.statistics().passed


def main(argv: Sequence[str] | None = None) -> None:
    """Measures and prints the JSON list."""
    parser = argparse.ArgumentParser(
        prog="loadtests.bench.sdk_near", description="What a near hit costs, in nanoseconds."
    )
    parser.add_argument("url")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3)
    args = parser.parse_args(argv)
    print(json.dumps(uvloop.run(measure(args.url, pairs=args.pairs, seconds=args.seconds))))


if __name__ == "__main__":
    main()
