"""Asks instances for their metrics, whether they are ready, and their hot keys."""

import asyncio
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from heapq import nlargest

import aiohttp
import msgspec
from msgspec import Struct

from cachesvc.commands.top.exposition import Exposition
from cachesvc.model.printable import printable, printable_in

TIMEOUT_SECONDS = 2.0
HOT_NAMESPACES = 3
"""How many namespaces (those with the hottest keys) are asked for their hot keys."""


class Unmet(Struct, frozen=True):
    """A need that a server does not meet: a setting, or a state such as `full`."""

    server: str
    """Kind and name of the server, such as `cell eu-1`."""
    need: str
    effect: str
    """`stale` if old values may be answered, else `cost`."""
    why: str


class Ready(Struct, frozen=True):
    """The answer of `/readyz?verbose`."""

    ready: bool
    fence_feeds: Mapping[str, str] = {}
    loops: Mapping[str, str] = {}
    """The background loops that do not do their work, each with the reason."""
    masters: Mapping[str, str] = {}
    """`host:port` of the servers that sentinels name, such as `cell eu-1`."""
    rivals: Mapping[str, str] = {}
    """Names that mean two things, by kind (`changes/rivals.py`), and what to do."""
    settings: Sequence[Unmet] = ()
    conditions: Sequence[Unmet] = ()
    troubles: Sequence[str] = ()
    """Everything that is wrong as the instance sees it, in sentences."""


class HotKey(Struct, frozen=True):
    digest: str
    share: float
    reads_per_second: float
    key: str = ""


class HotKeys(Struct, frozen=True):
    """The answer of `/v1/hotkeys`."""

    namespace: str
    reads_sampled: int
    hot: Sequence[HotKey]


class Scrape(Struct, frozen=True):
    """The answers of one instance at one time."""

    at: float
    """Seconds of a monotonic clock."""
    metrics: Exposition
    ready: Ready
    hot: Sequence[HotKeys] = ()
    refuses_token: bool = False
    """True if the debug token is not the instance's; then it showed digests."""


class Silence(Struct, frozen=True):
    """An instance did not answer, or its answer cannot be read."""

    why: str


def master_of(server: str, scrapes: Iterable[Scrape]) -> str:
    """Returns what instances say of where a server is (`cell eu-1`); several if they differ."""
    found = {scrape.ready.masters[server] for scrape in scrapes if server in scrape.ready.masters}
    return ", ".join(printable(one) for one in sorted(found))


class RefusedError(ValueError):
    """The debug token is not the instance's."""


class Asker:
    """Asks instances. Its calls raise nothing: an instance that does not answer is a
    `Silence`."""

    def __init__(self, http: aiohttp.ClientSession, debug_token: str = "") -> None:
        self._http = http
        self._headers = {"Cachesvc-Debug": debug_token} if debug_token else {}

    def __repr__(self) -> str:
        return f"<Asker {'with' if self._headers else 'without'} debug token>"

    async def all(self, addresses: Mapping[str, str]) -> dict[str, Scrape | Silence]:
        """Asks all instances at once."""
        found = await asyncio.gather(*map(self.one, addresses.values()))
        return dict(zip(addresses, found, strict=True))

    async def one(self, url: str) -> Scrape | Silence:
        """Asks one instance, within `TIMEOUT_SECONDS`."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                return await self._scrape(url)
        except TimeoutError:  # comes before `OSError`, its base
            return Silence(f"no answer within {TIMEOUT_SECONDS:g} s")
        except (aiohttp.ClientError, OSError) as error:
            return Silence(_reason(error))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            return Silence(f"its answer cannot be read: {error}")

    async def topology(self, url: str) -> bytes | Silence:
        """The topology document as this instance shows it."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                return await self._get(f"{url}/v1/topology")
        except TimeoutError:
            return Silence(f"no answer within {TIMEOUT_SECONDS:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Silence(_reason(error))

    async def _scrape(self, url: str) -> Scrape:
        metrics = Exposition.parse(printable((await self._get(f"{url}/metrics")).decode(), keep="\n"))
        at = time.monotonic()
        ready = msgspec.convert(
            printable_in(msgspec.json.decode(await self._get(f"{url}/readyz?verbose", also=503))), Ready
        )
        shares = metrics.by("hot_key_share", "namespace")
        hottest = nlargest(HOT_NAMESPACES, shares, key=shares.__getitem__)
        try:
            return Scrape(at, metrics, ready, await self._hot_keys(url, hottest, self._headers))
        except RefusedError:
            return Scrape(at, metrics, ready, await self._hot_keys(url, hottest, {}), refuses_token=True)

    async def _hot_keys(
        self, url: str, namespaces: Iterable[str], headers: Mapping[str, str]
    ) -> Sequence[HotKeys]:
        found = await asyncio.gather(
            *(self._get(f"{url}/v1/hotkeys?namespace={name}", headers=headers) for name in namespaces)
        )
        return [msgspec.convert(printable_in(msgspec.json.decode(document)), HotKeys) for document in found]

    async def _get(self, url: str, *, headers: Mapping[str, str] | None = None, also: int = 200) -> bytes:
        async with self._http.get(url, headers=headers, allow_redirects=False) as answer:
            if answer.status == 403:
                raise RefusedError(f"403 {answer.reason} for {answer.url.path}")
            if answer.status == 401:
                raise ValueError("it needs an identity with observe:* (--token-file)")
            if answer.status not in (200, also):
                raise ValueError(f"{answer.status} {answer.reason} for {answer.url.path}")
            return await answer.read()


def _reason(error: Exception) -> str:
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, OSError) and cause.errno:
        return os.strerror(cause.errno).lower()  # the exception's own text repeats the address
    return printable(str(cause)) or type(cause).__name__
