"""The service as the conformance cases meet it: the real web layer, paths and loops on fake servers, on the loop's fake clock.

No socket: requests are handed to the web layer as aiohttp would, replies are read from what it would write. So that under
looptime an hour costs nothing, and every loop (feed, consumer, heartbeats) does its work meanwhile.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest import mock

from aiohttp import StreamReader
from aiohttp.test_utils import make_mocked_request

from cachesvc.app.feeds import build
from cachesvc.changes.broadcast.subscription import Subscription
from cachesvc.config.document import read_struct
from cachesvc.config.service import Server, Service
from cachesvc.config.topology import Cell as CellDocument
from cachesvc.config.topology import Namespace, Region, Topology
from cachesvc.model.entry import Key
from cachesvc.model.errors import OriginError
from cachesvc.telemetry.metrics.metrics import Metrics
from cachesvc.tiers.origin.contract import Loaded
from cachesvc.web.handlers.fence_stream import StreamReply
from cachesvc.web.replies.reply import Reply
from cachesvc.web.server import Web
from clients.conformance.case_format import namespaces
from clients.conformance.replay import Answered, Requested
from tests.doubles.loaders import absent, loaded, unkept
from tests.paths.world import FarSide, Instance

TOPOLOGY = Topology(
    version=1,
    regions={"here": Region(queue="memory", instances={"a": "http://a.test:8080"})},
    cells={
        "c1": CellDocument(region="here", url="memory"),
        "c2": CellDocument(region="here", url="memory", active=False),
    },
    namespaces={
        name: read_struct(document, Namespace, f"$.{name}") for name, document in namespaces().items()
    },
)


def origin(key: Key) -> Loaded:
    """The origin of `articles`, as clients/conformance/README.md describes it."""
    if key.text.startswith("absent-"):
        return absent()
    if key.text.startswith("broken-"):
        raise OriginError("out of order")
    if key.text.startswith("unkept-"):
        return unkept(f"value of {key.text}".encode())
    return loaded(f"value of {key.text}".encode(), content_type="text/plain", tags=("article",))


class ServiceFeed:
    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._pending: list[str] = []

    async def next(self) -> tuple[str, str, Any]:
        while not self._pending:
            self._pending = (await self._subscription.next()).decode().split("\n\n")[:-1]
        fields = dict(line.split(": ", 1) for line in self._pending.pop(0).split("\n"))
        return fields["event"], fields["id"], json.loads(fields["data"])


class ReplayedService:
    def __init__(self, web: Web) -> None:
        self._web = web

    async def exchange(self, request: Requested) -> Answered:
        return _answered(await self._reply(request))

    async def subscribe(self, request: Requested) -> tuple[Answered, ServiceFeed]:
        reply = await self._reply(request)
        assert isinstance(reply, StreamReply), reply.head
        assert isinstance(reply.subscription, Subscription)
        return _answered(reply), ServiceFeed(reply.subscription)

    async def advance(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _reply(self, request: Requested) -> Reply:
        body = StreamReader(mock.Mock(_reading_paused=False), 1 << 16, loop=asyncio.get_running_loop())
        body.feed_data(request.body)
        body.feed_eof()
        headers = dict(request.headers)
        if request.body:
            headers["Content-Length"] = str(len(request.body))
        return await self._web.handle(
            make_mocked_request(request.method, request.target, headers, payload=body)
        )


def _answered(reply: Reply) -> Answered:
    lines = reply.head.decode("latin-1").rstrip("\r\n").split("\r\n")[1:]
    fields = [line.partition(": ") for line in lines]
    return Answered(reply.status, {name.lower(): value for name, _, value in fields}, reply.payload)


@asynccontextmanager
async def replayed_service() -> AsyncIterator[ReplayedService]:
    """A region of one instance that has been up for a while."""
    far = FarSide()
    far.loader.default = origin
    paths = Instance(far, topology=TOPOLOGY, name="a")
    paths.fences.watermark = 0
    loops = build(paths.service, paths.topology, paths.remote, paths.paths, clock=paths.clock)
    web = Web(
        Service(server=Server()),
        TOPOLOGY,
        paths.paths,
        loops.broadcast,
        lambda: (True, {}),
        Metrics(),
        clock=paths.clock,
    )
    for loop, name in loops.loops():
        paths.tasks.spawn(loop, name)
    await asyncio.sleep(2)
    try:
        yield ReplayedService(web)
    finally:
        await web.stop()
        await paths.tasks.stop()
