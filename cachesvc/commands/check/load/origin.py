"""The checker's own origin: a store that counts its writes, and an HTTP server that
answers loads.

A load takes its snapshot when it begins and is slow afterwards. So a write can come between the
snapshot and the fill, which is the race that a cache has to win. A snapshot that is taken later
would only make values newer than their `as_of` says.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import TypeAlias

from aiohttp import web
from msgspec import Struct

from cachesvc.commands.check.history import Load, Record, Write
from cachesvc.commands.check.load.values import encode
from cachesvc.commands.check.settings import AT_ONCE, LoadDelays
from cachesvc.model import cache_groups

Note: TypeAlias = Callable[[Record], None]
"""Records something in the history; never blocks."""
Now: TypeAlias = Callable[[], int]
"""The time in µs of the checker's monotonic clock."""


class Snapshot(Struct, frozen=True):
    """A value as it was when a load began."""

    key: str
    w: int
    value: bytes
    tags: tuple[str, ...]


class VersionedStore:
    """Counts the writes of each key. A commit is one synchronous step on the loop, so it needs
    no lock."""

    def __init__(self, tags_of: Mapping[str, tuple[str, ...]], note: Note, now: Now) -> None:
        """`tags_of`: all keys, each with the tags of its value."""
        self._tags_of = tags_of
        self._written = dict.fromkeys(tags_of, 0)
        self._note = note
        self._now = now

    def __repr__(self) -> str:
        return f"<VersionedStore [{len(self._written)} keys, {sum(self._written.values())} writes]>"

    def __contains__(self, key: str) -> bool:
        return key in self._written

    def commit(self, keys: Iterable[str]) -> tuple[tuple[str, int], ...]:
        """Writes each key once, all at one moment, and returns the writes as pairs (key, w)."""
        committed = self._now()  # earlier than any read can see the new value, so such a read ends later
        written = []
        for key in keys:
            self._written[key] = w = self._written[key] + 1
            self._note(Write(key, w, committed, self._tags_of[key]))
            written.append((key, w))
        return tuple(written)

    def snapshot(self, key: str) -> Snapshot:
        w = self._written[key]
        return Snapshot(key, w, encode(key, w), self._tags_of[key])

    def keys_of(self, tag: str) -> tuple[str, ...]:
        """The keys whose value has the tag."""
        return tuple(key for key, tags in self._tags_of.items() if tag in tags)


class HttpOrigin:
    """Answers `GET /check/{key}` with tags, an ETag and 304s, as slowly as `delays` says.

    `start` and `stop` are called once each at most.
    """

    def __init__(
        self, store: VersionedStore, random: Random, note: Note, now: Now, delays: LoadDelays = AT_ONCE
    ) -> None:
        self.delays = delays
        self.running = 0
        """The loads that run now."""
        self.url = ""
        """The right `origin.url` of a namespace; set by `start`."""
        self._store = store
        self._random = random
        self._note = note
        self._now = now
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> None:
        """Begins to listen. Raises `OSError`, such as for an address in use."""
        app = web.Application()
        app.router.add_get("/check/{key}", self._get, allow_head=False)
        # A slow load is cancelled with its connection, so that a load without a waiter does not delay `stop`.
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        self.url = f"http://{host}:{runner.addresses[0][1]}/check/{{key}}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _get(self, request: web.Request) -> web.Response:
        key = request.match_info["key"]
        if key not in self._store:  # a key of an earlier run, whose copy is being refreshed
            raise web.HTTPNotFound
        started = self._now()
        snapshot = self._store.snapshot(key)
        self.running += 1
        try:
            await asyncio.sleep(self.delays.draw(self._random))
        finally:
            self.running -= 1
            self._note(Load(key, snapshot.w, started, self._now()))
        return _answer(request, snapshot)


def _answer(request: web.Request, snapshot: Snapshot) -> web.Response:
    etag = f'"{snapshot.w}"'
    headers = {
        "ETag": etag,
        "Cache-Control": "max-age=60",
        "Cache-Groups": cache_groups.format(snapshot.tags),
    }
    if request.headers.get("If-None-Match") == etag:
        return web.Response(status=304, headers=headers)
    return web.Response(body=snapshot.value, headers=headers)
