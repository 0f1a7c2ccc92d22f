"""A deployment for the checker to check: instances in this process.

They are coherent by construction, or have something wrong if a test wants it. Each instance keeps
copies of what it loads from the checker's origin. It drops them when an invalidation reaches it:
at once, in every instance, before the call returns. The interface is that of the wire: `:get`,
GET, invalidations, receipts, `GET /v1/fences`.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import msgspec
from aiohttp import web


class FakeInstance:
    """One instance. It answers from its copies, else from the origin."""

    def __init__(self, name: str, origin: str, deployment: "FakeDeployment") -> None:
        self.name = name
        self.is_deaf = False
        """If true, the instance reports fences as merged, but they have no effect."""
        self.ready = 200
        self.url = ""
        self.http: aiohttp.ClientSession
        self.followers: list[asyncio.Queue[bytes]] = []
        self.last_event_ids: list[str] = []
        """The `Last-Event-ID` of every subscription that resumed."""
        self._origin = origin
        self._deployment = deployment
        self._copies: dict[str, tuple[bytes, tuple[str, ...]]] = {}
        self._merges = 0

    def app(self) -> web.Application:
        """The application that serves the instance."""
        app = web.Application()
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/v1/fences", self._fences)
        app.router.add_post("/v1/check:get", self._get_many)
        app.router.add_post("/v1/invalidations", self._invalidate)
        app.router.add_get("/v1/invalidations/{id}", self._receipt)
        app.router.add_get("/v1/check/{key}", self._get)
        app.router.add_put("/v1/check/{key}", self._put)
        return app

    def load_from(self, origin: str) -> None:
        """Sets the origin's URL, in the form of a namespace's `origin.url`."""
        self._origin = origin

    def merge(self, keys: Sequence[str], tags: Sequence[str]) -> None:
        """Drops the copies that the fences concern, and tells the subscribers."""
        self._merges += 1
        if not self.is_deaf:
            concerned = [key for key, (_, own) in self._copies.items() if key in keys or set(own) & set(tags)]
            for key in concerned:
                del self._copies[key]
        self.tell("fences", b"{}")

    def tell(self, kind: str, data: bytes) -> None:
        """Sends an event to every subscriber."""
        for follower in self.followers:
            follower.put_nowait(
                f"event: {kind}\nid: eu={self._deployment.position}\n".encode() + b"data: " + data + b"\n\n"
            )

    def hang_up(self) -> None:
        """Ends every subscription."""
        for follower in self.followers:
            follower.put_nowait(b"")

    async def _readyz(self, request: web.Request) -> web.Response:
        return web.Response(status=self.ready)

    async def _fences(self, request: web.Request) -> web.StreamResponse:
        self.last_event_ids += (
            [request.headers["Last-Event-ID"]] if "Last-Event-ID" in request.headers else []
        )
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        waiting: asyncio.Queue[bytes] = asyncio.Queue()
        self.followers.append(waiting)
        self.tell("reset", b'{"floor":1,"reason":"new"}')
        try:
            while event := await waiting.get():
                await response.write(event)
        finally:
            self.followers.remove(waiting)
        return response

    async def _get_many(self, request: web.Request) -> web.Response:
        asked = msgspec.msgpack.decode(await request.read())
        results = [await self._read(key) for key in asked["keys"]]
        return web.Response(body=msgspec.msgpack.encode({"results": results, "lag": 0.1}))

    async def _get(self, request: web.Request) -> web.Response:
        got = await self._read(request.match_info["key"])
        status = "cachesvc-l1; hit; ttl=50" if got["tier"] == "l1" else "cachesvc-l3; fwd=uri-miss; stored"
        return web.Response(body=got["value"], headers={"Cache-Status": status, "Cachesvc-Lag": "0.100"})

    async def _put(self, request: web.Request) -> web.Response:
        key, value = request.match_info["key"], await request.read()
        self._deployment.invalidate([key], ())
        if not self.is_deaf:
            self._copies[key] = value, _tags(request.headers["Cache-Groups"])
        return web.Response(status=204, headers={"Cachesvc-Token": ""})

    async def _read(self, key: str) -> dict[str, object]:
        if key in self._copies:
            return {"outcome": "hit", "value": self._copies[key][0], "tier": "l1", "as_of": 1}
        merges = self._merges
        async with self.http.get(self._origin.replace("{key}", key)) as answer:
            value, tags = await answer.read(), _tags(answer.headers["Cache-Groups"])
        if merges == self._merges or self.is_deaf:
            self._copies[key] = value, tags
        return {"outcome": "loaded", "value": value, "tier": "origin", "as_of": 1}

    async def _invalidate(self, request: web.Request) -> web.Response:
        change = msgspec.json.decode(await request.read())
        return web.json_response(self._deployment.invalidate(change.get("keys", ()), change.get("tags", ())))

    async def _receipt(self, request: web.Request) -> web.Response:
        return web.json_response(
            {"id": request.match_info["id"], "state": "done", "position": self._deployment.position}
        )


def _tags(groups: str) -> tuple[str, ...]:
    return tuple(tag.strip(' "') for tag in groups.split(","))


class FakeDeployment:
    """Instances by name, and the changes that reach all of them."""

    def __init__(self, names: Sequence[str], origin: str) -> None:
        self.position = "1000-0"
        self.instances = {name: FakeInstance(name, origin, self) for name in names}

    @property
    def addresses(self) -> dict[str, str]:
        """The instances' URLs by name."""
        return {name: instance.url for name, instance in self.instances.items()}

    def invalidate(self, keys: Sequence[str], tags: Sequence[str]) -> dict[str, object]:
        """Invalidates in every instance at once; the receipt."""
        ms, _, number = self.position.partition("-")
        self.position = f"{ms}-{int(number) + 1}"
        for instance in self.instances.values():
            instance.merge(keys, tags)
        return {
            "id": f"eu:{self.position}",
            "token": "",
            "applied": True,
            "position": self.position,
            "wait": "none",
            "reached": True,
        }


@asynccontextmanager
async def deployment(*names: str, origin: str) -> AsyncIterator[FakeDeployment]:
    """A running deployment; `origin` has the form of a namespace's `origin.url`."""
    found = FakeDeployment(names, origin)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        for instance in found.instances.values():
            instance.http = http
            runner = web.AppRunner(
                instance.app(), access_log=None, handler_cancellation=True, shutdown_timeout=0.1
            )
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            instance.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield found
