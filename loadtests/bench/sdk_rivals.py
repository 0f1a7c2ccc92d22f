"""Ways to read a key through a cache: ours, and what a team would otherwise write.

Each is set up as its documentation says. Every way gets the same loader and the same bound on
age, and keeps its connections for as long as its block is open.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version

import aiocache
import cashews
from aiocache.serializers import NullSerializer
from cachesvc_client import Cache, Namespace, NearSettings
from redis.asyncio import Redis

from loadtests.bench.figures import BenchError
from loadtests.bench.keyspace import NAMESPACE

Load = Callable[[str], Awaitable[bytes]]
"""Loads a key's value from the origin."""
Read = Callable[[str], Awaitable[bytes | None]]


@dataclass(frozen=True)
class Backends:
    """The servers that the ways need."""

    service_url: str
    redis_port: int
    """The port of the rivals' own Redis."""


@dataclass(frozen=True)
class Ages:
    """Ages in seconds.

    No answer may be older than `most`; ways that can refresh early do so from `refresh` on.
    """

    refresh: float
    most: float


Open = Callable[[Backends, Load, Ages], AbstractAsyncContextManager[Read]]


@dataclass(frozen=True)
class Way:
    """A way to read, and how the table describes it."""

    open: Open
    package: str
    settings: str
    """The settings, as a reader of the table would want to know them."""

    @property
    def said(self) -> str:
        """The way with its package and version, for the table."""
        return f"{self.package} {version(self.package)}: {self.settings}"


@asynccontextmanager
async def ours(backends: Backends, load: Load, ages: Ages) -> AsyncIterator[Read]:
    """The SDK's `get_or_load`."""
    async with Cache.from_url(backends.service_url) as cache:
        yield _get_or_load(cache.namespace(NAMESPACE), load, ages)


@asynccontextmanager
async def ours_near(backends: Backends, load: Load, ages: Ages) -> AsyncIterator[Read]:
    """The same with a near cache."""
    async with Cache.from_url(backends.service_url) as cache:
        yield _get_or_load(cache.namespace(NAMESPACE, near=NearSettings()), load, ages)


def _get_or_load(namespace: Namespace[bytes], load: Load, ages: Ages) -> Read:
    stale = ages.most - ages.refresh

    async def read(key: str) -> bytes | None:
        return await namespace.get_or_load(key, load, ttl=ages.refresh, stale=stale)

    return read


@asynccontextmanager
async def cashews_early(backends: Backends, load: Load, ages: Ages) -> AsyncIterator[Read]:
    """cashews with early refresh."""
    async with _cashews(backends) as cache:
        yield cache.early(ttl=ages.most, early_ttl=ages.refresh, key="{key}")(_named(load))


@asynccontextmanager
async def cashews_lock(backends: Backends, load: Load, ages: Ages) -> AsyncIterator[Read]:
    """cashews with a lock around the load."""
    async with _cashews(backends) as cache:
        yield cache.cache(ttl=ages.most, key="{key}", lock=True)(_named(load))


def _named(load: Load) -> Load:
    """The loader as a function whose parameter a key template can name."""

    async def loaded(key: str) -> bytes:
        return await load(key)

    return loaded


@asynccontextmanager
async def _cashews(backends: Backends) -> AsyncIterator[cashews.Cache]:
    cache = cashews.Cache()
    cache.setup(f"redis://127.0.0.1:{backends.redis_port}", client_side=True, suppress=False)
    await cache.init()
    try:
        yield cache
    finally:
        await cache.close()


@asynccontextmanager
async def aiocache_stampede(backends: Backends, load: Load, ages: Ages) -> AsyncIterator[Read]:
    """aiocache with a lease against stampedes."""
    caching = aiocache.cached_stampede(
        lease=2,
        ttl=ages.most,
        cache=aiocache.Cache.REDIS,
        endpoint="127.0.0.1",
        port=backends.redis_port,
        serializer=NullSerializer(encoding=None),
        key_builder=lambda _function, key: key,
    )
    decorated: Read = caching(load)

    async def read(key: str) -> bytes | None:
        while True:
            try:
                return await decorated(key)
            except KeyError:
                # RedLock._release of aiocache 0.12: when two releases of one key cross, the second
                # one finds no event.
                continue

    try:
        yield read
    finally:
        await caching.cache.close()


@asynccontextmanager
async def by_hand(backends: Backends, load: Load, ages: Ages) -> AsyncIterator[Read]:
    """Redis by hand: get, else load and set."""
    async with Redis(port=backends.redis_port) as redis:

        async def read(key: str) -> bytes | None:
            held = await redis.get(key)
            if held is None:
                held = await load(key)
                await redis.set(key, held, px=round(ages.most * 1000))
            assert isinstance(held, bytes)
            return held

        yield read


WAYS = {
    "ours": Way(
        ours, "cachesvc-client", "get_or_load(ttl, stale); one instance with L1, memcached and Redis"
    ),
    "ours, near": Way(ours_near, "cachesvc-client", "the same, and near=NearSettings()"),
    "cashews early": Way(
        cashews_early, "cashews", "@cache.early(ttl, early_ttl), Redis with client_side=True"
    ),
    "cashews lock": Way(cashews_lock, "cashews", "@cache(ttl, lock=True), Redis with client_side=True"),
    "aiocache": Way(
        aiocache_stampede, "aiocache", "@cached_stampede(lease=2, ttl), Redis, bytes as they are"
    ),
    "by hand": Way(by_hand, "redis", "get, else load and set with px; redis.asyncio with hiredis"),
}


def way(name: str) -> Way:
    """The way with this name. Raises `BenchError` if there is none."""
    if name not in WAYS:
        raise BenchError(f"no way to read is called {name!r}: {', '.join(WAYS)}")
    return WAYS[name]
