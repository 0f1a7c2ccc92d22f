"""One process's part of the side-by-side comparison: three phases of reads.

    warm      every process has read every key; readers each read the keys of a Zipf walk
    stampede  many readers, in all processes, want the same cold key at the same moment;
              again for each round
    expiry    every reader reads one key at a slow pace while its value ages, is refreshed or
              expires

The process reads through one way, in step with the other processes. The origin takes 20 ms and is
counted. Every value is compared with the origin's.
"""

import asyncio
import functools
import random
import time
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle, islice
from threading import Barrier

import uvloop

from loadtests.bench.figures import BenchError
from loadtests.bench.keyspace import VALUE_BYTES
from loadtests.bench.sdk_rivals import Ages, Backends, Read, way
from loadtests.load.keys import key_of, zipf

ZIPF_EXPONENT = 1.0
KEYS = 1_000
WALK = 20_000
"""Keys that each process draws before, so that drawing is not timed."""
ORIGIN_SECONDS = 0.02
FOR_GOOD = Ages(refresh=1_200.0, most=1_800.0)
PAUSE_SECONDS = 0.02
"""The pause between two reads of one reader in the expiry phase.

With it, a wait in that phase is the cache's, not the processor's.
"""
TURN = 32
"""Reads after which a reader lets others run.

Hits in this process never wait for anything, so a reader would otherwise keep the loop to itself.
"""
WARM_UP_SHARE = 0.8
"""The part of the warm phase's time that is read before that phase.

A near cache keeps little in its first second, because its feed vouches for little then.
"""
OVERTIME = 0.075
"""The part of a lifetime by which the expiry phase is longer.

So the last value ends within the phase, and its early refresh is not due again.
"""
MEETING_SECONDS = 60.0


@dataclass(frozen=True)
class Plan:
    """The work of each process."""

    backends: Backends
    processes: int
    readers: int
    """Tasks in each process."""
    warm_seconds: float
    stampedes: int
    crowd: int
    """Readers of a stampede in each process."""
    ages: Ages
    """The ages in the expiry phase."""
    expiries: int
    """How many times `ages.most` the expiry phase lasts."""
    run: str
    """The beginning of every key, so that no run finds what another one left."""


@dataclass
class Measured:
    """One phase in one process, or in all of them."""

    seconds: float = 0.0
    loads: int = 0
    latencies: "array[float]" = field(default_factory=lambda: array("d"))

    def join(self, other: "Measured") -> None:
        """Adds another process's part of the same phase."""
        self.seconds = max(self.seconds, other.seconds)
        self.loads += other.loads
        self.latencies += other.latencies


@dataclass(frozen=True)
class Phases:
    """The three phases of one process, or of all."""

    warm: Measured
    stampede: Measured
    expiry: Measured


class Origin:
    """The origin. It counts its loads."""

    def __init__(self) -> None:
        self.loads = 0

    async def load(self, key: str) -> bytes:
        """The value of `key`, after `ORIGIN_SECONDS`."""
        self.loads += 1
        await asyncio.sleep(ORIGIN_SECONDS)
        return value_of(key)


@functools.cache
def value_of(key: str) -> bytes:
    """The origin's value of `key`."""
    return random.Random(key).randbytes(VALUE_BYTES)


class Process:
    """One of `plan.processes`, which reads through one way."""

    def __init__(self, plan: Plan, way_name: str, index: int, meet: Callable[[], Awaitable[None]]) -> None:
        self._plan = plan
        self._way = way(way_name)
        self._prefix = f"{plan.run}-{way_name.replace(', ', '-').replace(' ', '-')}"
        self._index = index
        self._meet = meet
        self._origin = Origin()

    async def phases(self) -> Phases:
        """Runs the three phases."""
        async with self._reading(FOR_GOOD) as read:
            warm = await self._warm(read)
            stampede = await self._stampede(read)
        async with self._reading(self._plan.ages) as read:
            return Phases(warm, stampede, await self._expiry(read))

    @asynccontextmanager
    async def _reading(self, ages: Ages) -> AsyncIterator[Read]:
        """A read whose value is checked.

        It raises `BenchError` if it answers anything but the origin's value.
        """
        async with self._way.open(self._plan.backends, self._origin.load, ages) as read:

            async def checked(key: str) -> bytes | None:
                value = await read(key)
                if value != value_of(key):
                    raise BenchError(f"{self._way.said} answered another value of {key!r} than the origin")
                return value

            yield checked

    def _key(self, name: str) -> str:
        return f"{self._prefix}-{name}"

    # warm -----------------------------------------------------------------------------------------

    async def _warm(self, read: Read) -> Measured:
        plan = self._plan
        await self._read_all(read, range(self._index, KEYS, plan.processes))
        await self._meet()
        drawn = zipf(KEYS, ZIPF_EXPONENT, random.Random(self._index))
        walk = cycle([self._key(key) for key in islice(drawn, WALK)])
        await self._walk(read, walk, plan.warm_seconds * WARM_UP_SHARE)
        await self._read_all(read, range(KEYS))
        await self._meet()
        return await self._walk(read, walk, plan.warm_seconds)

    async def _walk(self, read: Read, walk: Iterator[str], seconds: float) -> Measured:
        async with self._measured() as measured:
            end = time.perf_counter() + seconds
            await asyncio.gather(
                *(_read_until(end, read, walk, measured.latencies) for _ in range(self._plan.readers))
            )
        return measured

    async def _read_all(self, read: Read, numbers: Iterable[int]) -> None:
        keys = iter([self._key(key_of(number)) for number in numbers])

        async def read_on() -> None:
            for key in keys:
                await read(key)

        await asyncio.gather(*(read_on() for _ in range(self._plan.readers)))

    # stampede -------------------------------------------------------------------------------------

    async def _stampede(self, read: Read) -> Measured:
        async with self._measured() as measured:
            for number in range(self._plan.stampedes):
                key = self._key(f"cold-{number}")
                await self._meet()
                await asyncio.gather(
                    *(_timed(read, key, measured.latencies) for _ in range(self._plan.crowd))
                )
            await self._meet()  # a load that a straggler still makes counts for this phase
        return measured

    # expiry ---------------------------------------------------------------------------------------

    async def _expiry(self, read: Read) -> Measured:
        key = self._key("ageing")
        if self._index == 0:
            await read(key)
        await self._meet()
        await read(key)
        await self._meet()
        async with self._measured() as measured:
            end = time.perf_counter() + (self._plan.expiries + OVERTIME) * self._plan.ages.most
            readers = (
                _read_calmly_until(end, read, key, measured.latencies) for _ in range(self._plan.readers)
            )
            await asyncio.gather(*readers)
        return measured

    @asynccontextmanager
    async def _measured(self) -> AsyncIterator[Measured]:
        measured = Measured()
        loads, began = self._origin.loads, time.perf_counter()
        yield measured
        measured.seconds, measured.loads = time.perf_counter() - began, self._origin.loads - loads


async def _read_until(end: float, read: Read, walk: Iterator[str], latencies: "array[float]") -> None:
    done, began = 0, time.perf_counter()
    while began < end:
        await read(next(walk))
        latencies.append(time.perf_counter() - began)
        done += 1
        if done % TURN == 0:
            await asyncio.sleep(0)
        began = time.perf_counter()


async def _read_calmly_until(end: float, read: Read, key: str, latencies: "array[float]") -> None:
    while time.perf_counter() < end:
        await _timed(read, key, latencies)
        await asyncio.sleep(PAUSE_SECONDS * random.uniform(0.5, 1.5))


async def _timed(read: Read, key: str, latencies: "array[float]") -> None:
    began = time.perf_counter()
    await read(key)
    latencies.append(time.perf_counter() - began)


# in a pool of processes ---------------------------------------------------------------------------

_meeting: list[Barrier] = []
"""The barrier of this process, set when it starts: a barrier can be inherited, not sent."""


def meet_at(barrier: Barrier) -> None:
    """Sets the barrier of this process."""
    _meeting.append(barrier)


def phases(plan: Plan, way_name: str, index: int) -> Phases:
    """Runs the phases. Call it in every process of the pool at the same time.

    If one process fails, the others end with `BrokenBarrierError`.
    """
    (barrier,) = _meeting

    async def meet() -> None:
        await asyncio.to_thread(barrier.wait, MEETING_SECONDS)

    try:
        return uvloop.run(Process(plan, way_name, index, meet).phases())
    except BaseException:
        barrier.abort()
        raise


def joined(parts: Sequence[Phases]) -> Phases:
    """The phases with the measurements of all processes together."""
    whole = Phases(Measured(), Measured(), Measured())
    for part in parts:
        for name in ("warm", "stampede", "expiry"):
            getattr(whole, name).join(getattr(part, name))
    return whole
