"""The origin that the checker owns: a store that counts its writes, and an HTTP server for read-through namespaces.

A load takes its snapshot when it begins and is slow afterwards: so a write can come between the snapshot and the fill, which is
the race that a cache has to win. A snapshot taken later would only make values newer than their `as_of` says.
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
"""Keeps a record; never blocks."""
Now: TypeAlias = Callable[[], int]
"""µs of the checker's monotonic clock."""


class Snapshot(Struct, frozen=True):
    key: str
    w: int
    value: bytes
    tags: tuple[str, ...]


class VersionedStore:
    """How often each key was written. A commit is one synchronous step on the loop: that is its lock."""

    def __init__(self, tags_of: Mapping[str, tuple[str, ...]], note: Note, now: Now) -> None:
        """`tags_of`: the keys there are, each with the tags of its value."""
        self._tags_of = tags_of
        self._written = dict.fromkeys(tags_of, 0)
        self._note = note
        self._now = now

    def __repr__(self) -> str:
        return f"<VersionedStore [{len(self._written)} keys, {sum(self._written.values())} writes]>"

    def __contains__(self, key: str) -> bool:
        return key in self._written

    def commit(self, keys: Iterable[str]) -> tuple[tuple[str, int], ...]:
        """Write each of these once, all at one moment; their (key, w)."""
        committed = self._now()  # before anyone can see the new value: a reader of it ends later
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
        return tuple(key for key, tags in self._tags_of.items() if tag in tags)


class HttpOrigin:
    """`GET /check/{key}`, with tags, an ETag and 304s, as slow as `delays` says. Start and stop, each at most once."""

    def __init__(
        self, store: VersionedStore, random: Random, note: Note, now: Now, delays: LoadDelays = AT_ONCE
    ) -> None:
        self.delays = delays
        self.running = 0
        """Loads now."""
        self.url = ""
        """What a namespace's `origin.url` has to be, once it listens."""
        self._store = store
        self._random = random
        self._note = note
        self._now = now
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises `OSError`, such as for an address that is in use."""
        app = web.Application()
        app.router.add_get("/check/{key}", self._get, allow_head=False)
        # A slow load ends with its connection: one that nobody waits for any more need not hold up `stop`.
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
        if key not in self._store:  # of an earlier run: somebody refreshes what is left of it
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
