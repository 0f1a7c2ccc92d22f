"""The cost of one namespace at three times an instance's load for another namespace.

    python -m loadtests.fair_overload

One instance on a core of its own, real servers, and a load generator on another core. Each request
asks for a hundred keys that are not in the instance's small L1, so the instance is overloaded, and
nothing else. First callers that ask again at once show what it can do. Then a quiet namespace
asks for a share of that, alone and beside a loud one, in turns. The last line has the ratios of the
quiet one's goodput and p99, beside the loud one to alone; each is the median of the turns.
"""

import argparse
import asyncio
import os
import random
import statistics
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import aiohttp
import msgspec

from loadtests.fleet import Fleet

TOPOLOGY = """
version: 1
regions:
  here:
    queue: redis://127.0.0.1:26100/0
    pool: {m1: {address: "127.0.0.1:21101"}}
    instances: {a: "http://127.0.0.1:8101"}
cells: {c1: {region: here, url: "redis://127.0.0.1:26101/0"}}
namespaces:
  loud: {owner: tests, ttl: 40m, jitter: 0, early_refresh: 0}
  quiet: {owner: tests, ttl: 40m, jitter: 0, early_refresh: 0}
"""
KEYS = [f"k{number}" for number in range(5000)]
KEYS_AT_ONCE = 100
TIMEOUT_SECONDS = 2.0
SETTLING_SECONDS = 2.0
"""The beginning of a stretch, which is not counted: in it overload is noticed."""


@dataclass
class Seen:
    """The answers of one namespace in one stretch."""

    good: int = 0
    refused: int = 0
    late: int = 0
    seconds: list[float] = field(default_factory=list)

    @property
    def p99(self) -> float:
        return statistics.quantiles(self.seconds, n=100)[98] if len(self.seconds) > 1 else 0.0

    def __str__(self) -> str:
        return f"{self.good} good, {self.refused} refused, {self.late} late, p99 {self.p99 * 1000:.0f} ms"


class Load:
    """Requests to one instance, of any namespace."""

    def __init__(self, url: str, session: aiohttp.ClientSession, keys: Sequence[str] = KEYS) -> None:
        self._url = url
        self._keys = keys
        self._session = session
        self._rng = random.Random(7)
        self._encode = msgspec.msgpack.encode

    async def fill(self, namespace: str) -> None:
        headers = {"Content-Type": "application/msgpack"}
        for start in range(0, len(self._keys), 500):
            items = [{"key": key, "value": b"x" * 200} for key in self._keys[start : start + 500]]
            body = self._encode({"items": items})
            async with self._session.post(
                f"{self._url}/v1/{namespace}:put", data=body, headers=headers
            ) as answer:
                answer.raise_for_status()

    async def ask(self, namespace: str, seen: Seen) -> None:
        body = self._encode({"keys": self._rng.sample(self._keys, KEYS_AT_ONCE)})
        headers = {"Content-Type": "application/msgpack"}
        began = perf_counter()
        try:
            async with (
                asyncio.timeout(TIMEOUT_SECONDS),
                self._session.post(f"{self._url}/v1/{namespace}:get", data=body, headers=headers) as answer,
            ):
                await answer.read()
                if answer.status == 200:
                    seen.good += 1
                    seen.seconds.append(perf_counter() - began)
                else:
                    seen.refused += 1
        except (TimeoutError, aiohttp.ClientError):
            seen.late += 1

    async def closed(self, seconds: float, callers: int) -> float:
        """Returns the requests per second that so many callers get who ask again at once."""
        seen, ends = Seen(), perf_counter() + seconds

        async def caller() -> None:
            while perf_counter() < ends:
                await self.ask("loud", seen)

        await asyncio.gather(*(caller() for _ in range(callers)))
        return seen.good / seconds

    async def stretch(self, seconds: float, rates: dict[str, float]) -> dict[str, Seen]:
        """Asks at these rates (requests per second), whether answered or not."""
        found = {namespace: Seen() for namespace in rates}
        settling = {namespace: Seen() for namespace in rates}
        tasks: set[asyncio.Task[None]] = set()
        began = perf_counter()

        def begin(work: Coroutine[Any, Any, None]) -> None:
            task = asyncio.create_task(work)
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        async def arrivals(namespace: str, rate: float) -> None:
            due = began
            while (now := perf_counter()) < began + SETTLING_SECONDS + seconds:
                while due <= now:
                    seen = (found if due > began + SETTLING_SECONDS else settling)[namespace]
                    begin(self.ask(namespace, seen))
                    due += self._rng.expovariate(rate)
                await asyncio.sleep(0.002)

        await asyncio.gather(*(arrivals(namespace, rate) for namespace, rate in rates.items()))
        await asyncio.gather(*tasks)
        return found


async def measure(url: str, seconds: float, turns: int, share: float) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        load = Load(url, session)
        for namespace in ("loud", "quiet"):
            await load.fill(namespace)
        await load.closed(1, 16)
        most = await load.closed(seconds, 16)
        print(f"it does {most:.0f} requests a second", flush=True)
        goodputs, p99s = [], []
        for _ in range(turns):
            alone = (await load.stretch(seconds, {"quiet": share * most}))["quiet"]
            both = await load.stretch(seconds, {"quiet": share * most, "loud": 3 * most})
            print(f"quiet alone: {alone}\n beside loud: {both['quiet']}\n loud: {both['loud']}", flush=True)
            asked = both["quiet"].good + both["quiet"].refused + both["quiet"].late
            alone_asked = alone.good + alone.refused + alone.late
            goodputs.append(both["quiet"].good / asked / (alone.good / alone_asked))
            p99s.append(both["quiet"].p99 / alone.p99)
        print(f"goodput {statistics.median(goodputs):.3f}, p99 {statistics.median(p99s):.2f} of alone")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.25, help="what the quiet namespace asks for")
    asked = parser.parse_args()
    with TemporaryDirectory(prefix="csvc-", dir="/tmp") as root:
        document = Path(root) / "topology.yaml"
        document.write_text(TOPOLOGY)
        environ = {"CACHESVC_L1_MAX_ENTRIES": "100"}
        with Fleet(document, Path(root) / "run", environ=environ) as fleet:
            cores = sorted(os.sched_getaffinity(0))
            for task in Path(f"/proc/{fleet.instances['a'].pid}/task").iterdir():
                os.sched_setaffinity(int(task.name), cores[:1])
            os.sched_setaffinity(0, cores[1:] or cores)
            asyncio.run(measure(fleet.url("a"), asked.seconds, asked.turns, asked.share))


if __name__ == "__main__":
    main()
