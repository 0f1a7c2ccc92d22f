"""Replays a trace through the SDK against a running fleet, and counts who answered.

    python -m loadtests.replay TRACE --url http://127.0.0.1:8101 --url http://127.0.0.1:8201

TRACE is a trace file: gzip, one request per line, `key` or `key,size`. The namespace is
read-through, and its origin is `python -m loadtests.origin`, which counts the loads itself.
`--workers` callers, spread over the instances, take the requests in the order of the trace. Each
caller takes its next request when its last one was answered, so latencies are those of a closed
loop.

The SDK does not tell a caller which tier answered, so hits per tier are read from the instances'
`/metrics` before and after the replay. Nothing else may use these instances meanwhile. With
`--raw`, plain `GET` requests take the place of the SDK, and the tier is read from `Cache-Status`.
"""

import argparse
import asyncio
import re
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import aiohttp
import uvloop
from cachesvc_client import Cache, CacheError

from loadtests.bench.figures import percentile
from loadtests.documents import OtherBytesError, version_of
from loadtests.load.answers import answered_by
from loadtests.load.traces import requests_of

TIERS = ("l1", "l2", "l3")
_LOOKUP = re.compile(
    r'^cachesvc_lookups_total\{(?=[^}]*tier="(\w+)")(?=[^}]*outcome="(hit|stale)")[^}]*\} (\S+)$',
    re.MULTILINE,
)


class UnansweredError(Exception):
    """A request that got no value, or a value that is not the key's."""


@dataclass
class Tally:
    """Counts of what the callers saw."""

    latencies: list[float] = field(default_factory=list)
    """Seconds of each request that was answered."""
    tiers: Counter[str] = field(default_factory=Counter)
    """Answers by tier; filled with `--raw` only."""
    failures: Counter[str] = field(default_factory=Counter)
    keys: set[str] = field(default_factory=set)
    invalidations: int = 0
    seconds: float = 0.0


class Caller(Protocol):
    """One instance, as its callers use it."""

    async def read(self, key: str) -> tuple[bytes | None, str]:
        """The value, and the tier that answered; an empty tier if it cannot be known.

        Raises `UnansweredError`.
        """
        ...

    async def invalidate(self, key: str) -> None:
        """Invalidates the key."""
        ...


class SdkCaller:
    """Calls an instance through the SDK."""

    def __init__(self, cache: Cache, namespace: str) -> None:
        self._namespace = cache.namespace(namespace)

    async def read(self, key: str) -> tuple[bytes | None, str]:
        try:
            return await self._namespace.get(key), ""
        except CacheError as error:
            raise UnansweredError(error.type) from error

    async def invalidate(self, key: str) -> None:
        await self._namespace.delete(key)


class RawCaller:
    """Calls an instance with plain HTTP requests."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, namespace: str) -> None:
        self._session = session
        self._prefix = f"{base_url}/v1/{namespace}/"

    async def read(self, key: str) -> tuple[bytes | None, str]:
        async with self._session.get(self._prefix + quote(key, safe="")) as answer:
            body = await answer.read()
            if answer.status != 200:
                raise UnansweredError(str(answer.status))
            return body, answered_by(answer.headers.get("Cache-Status", ""))[0]

    async def invalidate(self, key: str) -> None:
        async with self._session.delete(self._prefix + quote(key, safe="")) as answer:
            answer.raise_for_status()


async def replay(
    callers: Sequence[Caller], requests: Iterable[str], *, workers: int, invalidate_every: int
) -> Tally:
    """Makes all requests in order, up to `workers` of them at a time.

    Before every `invalidate_every`th request its key is invalidated; 0: never.
    """
    tally = Tally()
    numbered = enumerate(requests, start=1)

    async def work(caller: Caller) -> None:
        for number, key in numbered:
            if invalidate_every and number % invalidate_every == 0:
                await caller.invalidate(key)
                tally.invalidations += 1
            await _ask(caller, key, tally)

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(workers):
            group.create_task(work(callers[number % len(callers)]))
    tally.seconds = time.perf_counter() - started
    return tally


async def _ask(caller: Caller, key: str, tally: Tally) -> None:
    tally.keys.add(key)
    started = time.perf_counter()
    try:
        value, tier = await caller.read(key)
        check(key, value)
    except UnansweredError as error:
        tally.failures[str(error)] += 1
        return
    tally.latencies.append(time.perf_counter() - started)
    tally.tiers[tier] += 1


def check(key: str, value: bytes | None) -> None:
    """Raises `UnansweredError` unless `value` is the reference origin's document of the key."""
    if value is None:
        raise UnansweredError("a miss")
    try:
        version_of(key, value)
    except OtherBytesError as error:
        raise UnansweredError(str(error)) from error


async def hits_of(session: aiohttp.ClientSession, base_urls: Sequence[str]) -> Counter[str]:
    """Hits per tier, fresh and stale, that the instances have counted since they started."""
    counted: Counter[str] = Counter()
    for base_url in base_urls:
        async with session.get(f"{base_url}/metrics") as answer:
            answer.raise_for_status()
            for tier, _, hits in _LOOKUP.findall(await answer.text()):
                counted[tier] += int(float(hits))
    return counted


async def origin_loads(session: aiohttp.ClientSession, origin: str) -> int:
    """The number of loads that the reference origin has counted."""
    async with session.get(f"{origin}/_stats") as answer:
        answer.raise_for_status()
        stats: dict[str, Any] = await answer.json()
        return int(stats["loads"])


@asynccontextmanager
async def calling(args: argparse.Namespace, session: aiohttp.ClientSession) -> AsyncIterator[list[Caller]]:
    """A caller for each URL; the connections are closed at the end."""
    if args.raw:
        yield [RawCaller(session, base_url, args.namespace) for base_url in args.url]
        return
    async with AsyncExitStack() as opened:
        caches = [await opened.enter_async_context(Cache.from_url(base_url)) for base_url in args.url]
        yield [SdkCaller(cache, args.namespace) for cache in caches]


async def run(args: argparse.Namespace) -> int:
    """Replays and prints the table; 1 if a request was not answered, else 0."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        hits, loads = await hits_of(session, args.url), await origin_loads(session, args.origin)
        async with calling(args, session) as callers:
            requests = islice(requests_of(args.trace), args.requests)
            tally = await replay(
                callers, requests, workers=args.workers, invalidate_every=args.invalidate_every
            )
        hits = await hits_of(session, args.url) - hits
        loads = await origin_loads(session, args.origin) - loads
    print("\n".join(table(args, tally, hits, loads)))
    return 1 if tally.failures else 0


def table(args: argparse.Namespace, tally: Tally, hits: Counter[str], loads: int) -> list[str]:
    """The lines that are printed: a head, and one line per figure."""
    asked = len(tally.latencies) + tally.failures.total()
    by_tier = tally.tiers if args.raw else hits
    rows = [("requests", f"{asked:,}"), ("different keys", _share(len(tally.keys), asked))]
    rows += [(f"{tier} hits", _share(by_tier[tier], asked)) for tier in TIERS]
    rest = len(tally.latencies) - sum(by_tier[tier] for tier in TIERS)
    rows.append(("loaded, or shared a load or look-up", _share(rest, asked)))
    # Refreshes in the background are loads too, so this figure is not a part of the requests.
    rows.append(("origin loads, counted there", _share(loads, asked)))
    if args.invalidate_every:
        rows.append(("invalidations", f"{tally.invalidations:,}"))
    rows += [(f"not answered: {why}", f"{count:,}") for why, count in tally.failures.most_common()]
    ordered = sorted(tally.latencies)
    if ordered:
        rows += [(f"p{share * 100:g}", f"{percentile(ordered, share) * 1e3:.2f} ms") for share in (0.5, 0.99)]
    rows.append(("requests/s", f"{asked / tally.seconds:,.0f}"))
    via = "plain GETs" if args.raw else "the SDK"
    where = f"{args.workers} workers over {len(args.url)} instances, namespace {args.namespace}"
    head = f"{args.trace.name} through {via}: {where}"
    return [head, *(f"  {name:<36}{value:>18}" for name, value in rows)]


def _share(count: int, of: int) -> str:
    return f"{count:,} ({count / of:.1%})" if of else "0"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.replay", description="Replay a trace against a running fleet."
    )
    parser.add_argument("trace", type=Path)
    parser.add_argument(
        "--url", action="append", required=True, help="base URL of an instance; give one for each"
    )
    parser.add_argument("--origin", default="http://127.0.0.1:9100", help="base URL of the reference origin")
    parser.add_argument("--namespace", default="docs")
    parser.add_argument("--workers", type=int, default=64, help="requests under way at once (default 64)")
    parser.add_argument("--requests", type=int, help="stop after so many (default: the whole trace)")
    parser.add_argument(
        "--invalidate-every", type=int, default=0, help="invalidate the key before every Nth request"
    )
    parser.add_argument("--raw", action="store_true", help="plain GETs; tiers from Cache-Status")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(uvloop.run(run(_arguments())))
