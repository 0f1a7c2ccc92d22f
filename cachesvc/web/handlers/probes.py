"""The calls of operators and tools: probes, metrics, topology, the API's own description.

Their bodies are small and made per request.
"""

from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from cachesvc.config.service import Service
from cachesvc.config.topology import Topology
from cachesvc.model.scope import EVERY, Action
from cachesvc.telemetry.metrics.metrics import Metrics
from cachesvc.web.access.door import grant_of
from cachesvc.web.contract import Host, Readiness
from cachesvc.web.handlers.openapi import document
from cachesvc.web.ports import Port, wrong_port
from cachesvc.web.replies.redaction import seen_topology, shown_topology
from cachesvc.web.replies.reply import Reply
from cachesvc.web.requests.bodies import JSON
from cachesvc.web.routing import Place

TEXT = "text/plain; charset=utf-8"

Probe = Callable[[web.BaseRequest, Place], Awaitable[Reply]]


class Probes:
    """The handlers of these calls."""

    def __init__(
        self,
        service: Service,
        topology: Topology,
        readiness: Readiness,
        metrics: Metrics,
        host: Host | None = None,
    ) -> None:
        """`host` is None for an instance that is no worker of several."""
        self._host = host
        self._here = {"region": service.region, "instance": service.instance}
        self.topology_in_force = topology
        self._readiness = readiness
        self._metrics = metrics
        self._openapi = msgspec.json.encode(document())

    async def livez(self, _: web.BaseRequest, __: Place) -> Reply:
        """Answers 200 while the event loop turns.

        A backend that is down is no reason to restart this process.
        """
        return _ok(b"alive\n", TEXT)

    async def readyz(self, request: web.BaseRequest, place: Place) -> Reply:
        """Answers 200 if this instance may be sent requests, else 503; `?verbose` adds reasons.

        At a port that workers share it is the host that may be sent requests. The reasons name servers
        and other instances: they need the scope `observe:*`.
        """
        is_verbose = _is_verbose(place)
        if is_verbose:
            grant_of(request).require_whole(Action.OBSERVE, EVERY)
        ready, reasons = self._readiness()
        if self._host is not None and (is_verbose or not ready) and self._host.is_asked(request):
            ready, reasons = await self._host.readiness()
        status, line = (
            (200, "HTTP/1.1 200 OK") if ready else (503, "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1")
        )
        if is_verbose:
            return _answer(status, line, msgspec.json.encode({"ready": ready, **reasons}), JSON)
        return _answer(status, line, b"ready\n" if ready else b"not ready\n", TEXT)

    def readyz_of(self, other: Port) -> Probe:
        """Returns the `readyz` of a port whose reasons are told on the `other` port only."""

        async def readyz(request: web.BaseRequest, place: Place) -> Reply:
            if _is_verbose(place):
                wrong_port(other, request.headers.get("Host", ""))
            return await self.readyz(request, place)

        return readyz

    async def metrics(self, request: web.BaseRequest, _: Place) -> Reply:
        accept = request.headers.get("Accept", "")
        of_host = self._host if self._host is not None and self._host.is_asked(request) else None
        body, content_type = await (of_host or self._metrics).exposition(accept)
        return _ok(body, content_type)

    async def topology(self, request: web.BaseRequest, _: Place) -> Reply:
        """Answers the shared document, and in `here` the instance that answers.

        A client takes the instances of that region from it. `masters` says which addresses sentinels name
        for servers of theirs (`cell c1`, `queue eu`), `move` how far a move of partitions is. Without the
        scope `observe:*` the answer has the namespaces in which the identity may do anything, the
        instances, and no server.
        """
        grant = grant_of(request)
        is_whole = grant.has(Action.OBSERVE, EVERY)
        reasons = self._readiness()[1] if is_whole else {}
        told = {field: reasons[field] for field in ("masters", "move") if field in reasons}
        shown = (
            {**shown_topology(self.topology_in_force), "masters": {}, **told}
            if is_whole
            else seen_topology(self.topology_in_force, grant.namespaces)
        )
        return json_reply(msgspec.json.encode({"here": self._here, **shown}))

    async def instances(self, request: web.BaseRequest, _: Place) -> Reply:
        """Answers the part of the topology that clients need, in the same form."""
        shown = seen_topology(self.topology_in_force, grant_of(request).namespaces)
        return json_reply(msgspec.json.encode({"here": self._here, **shown}))

    async def openapi(self, _: web.BaseRequest, __: Place) -> Reply:
        return json_reply(self._openapi)


def _is_verbose(place: Place) -> bool:
    return "verbose" in place.query.split("&")


def json_reply(body: bytes) -> Reply:
    return _ok(body, JSON)


def _ok(body: bytes, content_type: str) -> Reply:
    return _answer(200, "HTTP/1.1 200 OK", body, content_type)


def _answer(status: int, line: str, body: bytes, content_type: str) -> Reply:
    head = (
        f"{line}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\n"
    )
    return Reply(status, head.encode(), body, outcome="ok" if status < 500 else "failed")
