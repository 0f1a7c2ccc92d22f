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
import gc
import os
import random
import statistics
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec
import uvloop

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
REQUESTS = 500
"""So many requests are made for each namespace; one of them is drawn each time."""
LOUD = 3
"""The loud namespace asks for so many times what the instance can do."""
TICK_SECONDS = 0.002
TIMEOUT_SECONDS = 2.0
SETTLING_SECONDS = 4.0
"""The beginning of a stretch, which is not counted: in it overload is noticed."""


def percentile_99(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=100)[98] if len(values) > 1 else 0.0


@dataclass
class Seen:
    """The answers of one namespace in one stretch."""

    good: int = 0
    refused: int = 0
    late: int = 0
    seconds: list[float] = field(default_factory=list)

    @property
    def p99(self) -> float:
        return percentile_99(self.seconds)

    @property
    def good_share(self) -> float:
        """The part of what was asked that was answered with values."""
        return self.good / max(1, self.good + self.refused + self.late)

    def __str__(self) -> str:
        median = statistics.median(self.seconds or [0.0])
        return (
            f"{self.good} good, {self.refused} refused, {self.late} late, "
            f"median {median * 1000:.1f} ms, p99 {self.p99 * 1000:.1f} ms"
        )


class Line(asyncio.Protocol):
    """One connection with at most one request under way."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[int] | None = None
        self._received = b""
        self.transport: asyncio.WriteTransport | None = None
        """None before the connection stands and after its end."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.WriteTransport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("closed before the answer"))

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0 or self._answer is None or self._answer.done():
            return
        at = self._received.index(b"Content-Length: ") + 16
        if len(self._received) >= end + 4 + int(self._received[at : self._received.index(b"\r", at)]):
            self._answer.set_result(int(self._received[9:12]))

    async def ask(self, request: bytes) -> int:
        """Returns the status of the answer, once its body is complete. Raises `OSError`."""
        if self.transport is None:
            raise ConnectionResetError("closed before the request")
        self._received, self._answer = b"", asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self._answer


class Load:
    """Requests to one instance, of any namespace.

    They are made before and go over standing connections: what a request costs the generator must be
    small beside what it costs the instance, or the figures are the generator's.
    """

    def __init__(self, url: str, keys: Sequence[str] = KEYS, keys_at_once: int = KEYS_AT_ONCE) -> None:
        self._host, self._port = urlsplit(url).hostname or "", urlsplit(url).port or 80
        self._keys = keys
        self._rng = random.Random(7)
        self._free: list[Line] = []
        self._requests = {
            namespace: [
                self._request(f"{namespace}:get", {"keys": self._rng.sample(keys, keys_at_once)})
                for _ in range(REQUESTS)
            ]
            for namespace in ("loud", "quiet")
        }
        self.lags: list[float] = []
        """How long after its time each request of a stretch was sent, in seconds."""

    def _request(self, path: str, body: object) -> bytes:
        encoded = msgspec.msgpack.encode(body)
        head = f"POST /v1/{path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n"
        return (
            f"{head}Content-Type: application/msgpack\r\nContent-Length: {len(encoded)}\r\n\r\n".encode()
            + encoded
        )

    @asynccontextmanager
    async def _line(self) -> AsyncIterator[Line]:
        """Lends a connection, which is closed if the block fails or is cancelled."""
        if self._free:
            line = self._free.pop()
        else:
            _, line = await asyncio.get_running_loop().create_connection(Line, self._host, self._port)
        try:
            yield line
        except BaseException:
            if line.transport is not None:
                line.transport.abort()
            raise
        if line.transport is not None:
            self._free.append(line)

    def close(self) -> None:
        """Closes the connections, none of which may be in use."""
        for line in self._free:
            if line.transport is not None:
                line.transport.close()
        self._free.clear()

    async def fill(self, namespace: str) -> None:
        for start in range(0, len(self._keys), 500):
            items = [{"key": key, "value": b"x" * 200} for key in self._keys[start : start + 500]]
            async with self._line() as line:
                if await line.ask(self._request(f"{namespace}:put", {"items": items})) != 200:
                    raise ValueError(f"{namespace}: cannot be filled")

    async def ask(self, namespace: str, seen: Seen) -> None:
        request, began = self._rng.choice(self._requests[namespace]), perf_counter()
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS), self._line() as line:
                if await line.ask(request) == 200:
                    seen.good += 1
                    seen.seconds.append(perf_counter() - began)
                else:
                    seen.refused += 1
        except (TimeoutError, OSError):
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
                    is_counted = due > began + SETTLING_SECONDS
                    begin(self.ask(namespace, (found if is_counted else settling)[namespace]))
                    if is_counted:
                        self.lags.append(now - due)
                    due += self._rng.expovariate(rate)
                await asyncio.sleep(TICK_SECONDS)

        self.lags.clear()
        await asyncio.gather(*(arrivals(namespace, rate) for namespace, rate in rates.items()))
        await asyncio.gather(*tasks)
        return found


async def measure(load: Load, seconds: float, turns: int, share: float) -> None:
    for namespace in ("loud", "quiet"):
        await load.fill(namespace)
    await load.closed(1, 16)
    most = await load.closed(seconds, 16)
    print(f"it does {most:.0f} requests a second", flush=True)
    goodputs, p99s = [], []
    for _ in range(turns):
        alone = (await load.stretch(seconds, {"quiet": share * most}))["quiet"]
        both = await load.stretch(seconds, {"quiet": share * most, "loud": LOUD * most})
        lag = percentile_99(load.lags)
        print(f"quiet alone: {alone}\n beside loud: {both['quiet']}\n loud: {both['loud']}")
        print(f" the generator sends {lag * 1000:.0f} ms too late (p99)", flush=True)
        goodputs.append(both["quiet"].good_share / alone.good_share)
        p99s.append(both["quiet"].p99 / alone.p99)
    print(f"goodput {statistics.median(goodputs):.3f}, p99 {statistics.median(p99s):.2f} of alone")


async def run(url: str, asked: argparse.Namespace) -> None:
    load = Load(url, keys_at_once=asked.keys)
    gc.freeze()
    gc.disable()
    try:
        await measure(load, asked.seconds, asked.turns, asked.share)
    finally:
        load.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.25, help="what the quiet namespace asks for")
    parser.add_argument("--keys", type=int, default=KEYS_AT_ONCE, help="keys in each request")
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
            uvloop.run(run(fleet.url("a"), asked))


if __name__ == "__main__":
    main()
