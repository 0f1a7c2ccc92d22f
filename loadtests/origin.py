"""The reference origin: an HTTP server whose answers, delays and failures a test controls.

    python -m loadtests.origin --port 9100 --latency 20ms --failure-rate 0.0

- `GET /docs/{key}` answers bytes that depend only on key, version and size, with `ETag`,
  `Cache-Control` and `Cache-Groups`.
- `POST /docs/{key}` changes that document: it has the next version from now on, and the answer
  names this version.
- `GET /docs/{key}?for={namespace}` answers the same; the load is counted for that namespace, too.
- `GET /_stats` answers what the origin was asked.
- `POST /_control` changes what the origin does. Its body is a JSON object with some of the fields
  of `Control`, its answer has all fields. With `"reset": true` the counts are reset, too.

In a test, use `ReferenceOrigin` directly.
"""

import argparse
import asyncio
import random
import signal
from collections import Counter
from hashlib import blake2b
from typing import Any
from urllib.parse import quote

import msgspec
import uvloop
from aiohttp import web

from cachesvc.model import cache_groups
from cachesvc.model.units import Duration, Size
from loadtests.documents import document

ASKED_FOR = "for"
"""The query parameter by which a load may name the namespace that it is for."""
STATS_KEYS = 20
"""The number of most loaded keys that `/_stats` names."""


class Behaviour(msgspec.Struct, forbid_unknown_fields=True):
    """The origin's behaviour; every field can change while the origin runs."""

    latency: str = "0ms"
    """The delay before every answer."""
    failure_rate: float = 0.0
    """Share of loads that are answered 500."""
    hang: bool = False
    """While true, no load is answered."""
    status: int = 0
    """The status of every answer, which then has no body. 0: the usual answers."""
    absent: list[str] = msgspec.field(default_factory=list)
    """Keys that are answered 404."""
    cache_control: str = "max-age=60"
    """The header's value. Empty: no such header."""
    groups: list[str] = msgspec.field(default_factory=lambda: ["docs"])
    """Tags of every document; `{key}` in a tag stands for the percent-encoded key."""
    version: int = 1
    """Part of every body: another version makes other bytes.

    A key that was changed n times is n versions ahead of this number.
    """
    size: str = "512B"


class Control(Behaviour, forbid_unknown_fields=True):
    """A change of behaviour; only the fields that are given change."""

    reset: bool = False


class Stats(msgspec.Struct, frozen=True):
    """Counts since the origin's start or the last reset."""

    loads: int
    """`GET` requests for documents, whatever the answer was."""
    keys: int
    """Different keys among these requests."""
    not_modified: int
    failures: int
    running: int
    peak: int
    """The most loads that ran at once."""
    top: dict[str, int]
    by_namespace: dict[str, int]
    """The loads that name the namespace they are for (`?for=…`), by that name."""


class ReferenceOrigin:
    """The server, in this process.

    Change `behaviour` with `set`; read `loads`, `peak` and the other counts at any time.
    """

    def __init__(self, *, seed: int = 1, **behaviour: Any) -> None:
        self.behaviour = Behaviour()
        self.url = ""
        """The server's base URL once the server runs."""
        self.random = random.Random(seed)
        self._changes: Counter[str] = Counter()
        """Changes of single documents, by key.

        `reset` keeps these counts: a version that came a second time would have other bytes.
        """
        self._awake = asyncio.Event()
        self._asked = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self.reset()
        self.set(**behaviour)

    @property
    def template(self) -> str:
        """The URL for a namespace's `origin.url`."""
        return f"{self.url}/docs/{{key}}"

    def set(self, **changes: Any) -> None:
        """Changes fields of `Behaviour`.

        Raises `ValueError` (or msgspec's error) for an invalid value, and then changes nothing.
        """
        wanted = msgspec.convert(msgspec.to_builtins(self.behaviour) | changes, Behaviour)
        cache_groups.format(wanted.groups)
        self._latency, self._size = Duration.parse(wanted.latency).seconds, Size.parse(wanted.size)
        self.behaviour = wanted
        if wanted.hang:
            self._awake.clear()
        else:
            self._awake.set()

    def reset(self) -> None:
        """Resets the counts."""
        self.per_key: Counter[str] = Counter()
        self.per_namespace: Counter[str] = Counter()
        self.loads = self.not_modified = self.failures = self.running = self.peak = 0

    def version_of(self, key: str) -> int:
        """The version that the document of `key` has now."""
        return self.behaviour.version + self._changes[key]

    def change(self, key: str) -> int:
        """Gives the document its next version, and returns that version."""
        self._changes[key] += 1
        return self.version_of(key)

    async def asked(self, loads: int) -> None:
        """Waits until at least `loads` loads have come in."""
        while self.loads < loads:
            self._asked.clear()
            await self._asked.wait()

    def stats(self) -> Stats:
        """The counts of now."""
        top = dict(self.per_key.most_common(STATS_KEYS))
        return Stats(
            self.loads,
            len(self.per_key),
            self.not_modified,
            self.failures,
            self.running,
            self.peak,
            top,
            dict(self.per_namespace),
        )

    async def start(self, *, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listens at `host`; with `port` 0, at a port that the kernel chooses."""
        app = web.Application()
        app.router.add_get("/docs/{key:[^/]+}", self._get, allow_head=False)
        app.router.add_post("/docs/{key:[^/]+}", self._post)
        app.router.add_get("/_stats", self._get_stats)
        app.router.add_post("/_control", self._post_control)
        # A load that hangs ends with its connection, so neither a client's timeout nor `stop` leaves it
        # running.
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        self.url = f"http://{host}:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Answers the loads that hang, and stops listening."""
        self._awake.set()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _get(self, request: web.Request) -> web.Response:
        key = request.match_info["key"]
        self.loads += 1
        self.per_key[key] += 1
        if ASKED_FOR in request.query:
            self.per_namespace[request.query[ASKED_FOR]] += 1
        self.running += 1
        self.peak = max(self.peak, self.running)
        self._asked.set()
        try:
            await self._delay()
            return self._answer(request, key)
        finally:
            self.running -= 1

    async def _delay(self) -> None:
        if self._latency:
            await asyncio.sleep(self._latency)
        await self._awake.wait()

    def _answer(self, request: web.Request, key: str) -> web.Response:
        now = self.behaviour
        if now.failure_rate and self.random.random() < now.failure_rate:
            self.failures += 1
            return web.Response(status=500)
        if now.status:
            return web.Response(status=now.status)
        headers = self._headers(key)
        if key in now.absent:
            return web.Response(status=404, headers=headers)
        body = document(key, self.version_of(key), self._size)
        headers["ETag"] = f'"{blake2b(body, digest_size=8).hexdigest()}"'
        if headers["ETag"] in request.headers.get("If-None-Match", ""):
            self.not_modified += 1
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, content_type="text/plain", headers=headers)

    def _headers(self, key: str) -> dict[str, str]:
        headers = {"Cache-Control": self.behaviour.cache_control} if self.behaviour.cache_control else {}
        if self.behaviour.groups:
            named = (group.replace("{key}", quote(key, safe="")) for group in self.behaviour.groups)
            headers["Cache-Groups"] = ", ".join(f'"{group}"' for group in named)
        return headers

    async def _post(self, request: web.Request) -> web.Response:
        return _json({"version": self.change(request.match_info["key"])})

    async def _get_stats(self, _: web.Request) -> web.Response:
        return _json(self.stats())

    async def _post_control(self, request: web.Request) -> web.Response:
        try:
            asked = msgspec.json.decode(await request.read(), type=dict[str, Any])
            reset = msgspec.convert(asked, Control).reset
            asked.pop("reset", None)
            self.set(**asked)
        except (ValueError, TypeError) as error:
            return web.Response(status=400, text=f"{error}\n")
        if reset:
            self.reset()
        return _json(self.behaviour)


def _json(answer: msgspec.Struct | dict[str, int]) -> web.Response:
    return web.Response(body=msgspec.json.encode(answer), content_type="application/json")


def _arguments() -> argparse.Namespace:
    defaults = Behaviour()
    parser = argparse.ArgumentParser(prog="python -m loadtests.origin", description="The reference origin.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9100)
    parser.add_argument("--latency", default=defaults.latency, help="such as 20ms")
    parser.add_argument(
        "--failure-rate",
        type=float,
        default=defaults.failure_rate,
        help="share of loads answered 500, 0 to 1",
    )
    parser.add_argument("--size", default=defaults.size, help="of each document, such as 512B")
    parser.add_argument("--cache-control", default=defaults.cache_control)
    return parser.parse_args()


async def serve(arguments: argparse.Namespace) -> None:
    """Serves until SIGINT or SIGTERM."""
    origin = ReferenceOrigin(
        latency=arguments.latency,
        failure_rate=arguments.failure_rate,
        size=arguments.size,
        cache_control=arguments.cache_control,
    )
    stopped = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stopped.set)
    await origin.start(host=arguments.host, port=arguments.port)
    print(f"origin: {origin.template}", flush=True)
    await stopped.wait()
    await origin.stop()


if __name__ == "__main__":
    uvloop.run(serve(_arguments()))
