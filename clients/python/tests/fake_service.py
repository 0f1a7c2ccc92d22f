"""A small service that speaks clients/PROTOCOL.md over real sockets.

It records every request, and can be made to fail. It has one fence clock, one store and no tiers.
It honours tokens exactly: an entry is a miss if it is not newer than the pair of its key, of one
of its tags or of the namespace.
"""

import asyncio
import contextlib
import itertools
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import unquote

import msgspec
from aiohttp import web
from cachesvc_client.requests.own_writes import pairs_of, token_of
from cachesvc_client.values.durations import seconds_of
from cachesvc_client.values.lookups import etag_of
from xxhash import xxh3_64_intdigest

MSGPACK = "application/msgpack"
OCTETS = "application/octet-stream"


def digest(target: str) -> int:
    return xxh3_64_intdigest(target.encode())


@dataclass
class Held:
    """An entry, and the fence time that the entry is newer than."""

    value: bytes
    as_of: int
    content_type: str = OCTETS
    tags: list[str] = field(default_factory=list)
    absent: bool = False
    stale: bool = False


@dataclass
class Recorded:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


class FakeService:
    def __init__(self) -> None:
        self.held: dict[str, Held] = {}
        self.leases: dict[str, str] = {}
        """The lease of each key: key → `lease-<as_of>`."""
        self.released: list[tuple[str, str, str]] = []
        """Key, lease and reason of each release, in the order in which they came."""
        self.unkept: set[str] = set()
        """Keys for whose fills nobody needs to wait."""
        self.fences: dict[int, int] = {}
        self.saw: list[Recorded] = []
        self.gate: asyncio.Event = asyncio.Event()
        """Requests are answered while it is set."""
        self.gate.set()
        self.arrived = asyncio.Semaphore(0)
        """Released once per request, before the gate."""
        self.problem: tuple[int, dict[str, Any], dict[str, str]] | None = None
        """The status, problem document and headers that answer every request."""
        self.passing: list[tuple[int, dict[str, Any], dict[str, str]]] = []
        """Problems that answer the next requests, one each."""
        self.problems_of: dict[str, tuple[int, dict[str, Any], dict[str, str]]] = {}
        """Problems that answer the invalidations of a namespace."""
        self.on_read: Callable[[int], None] = lambda nth: None
        """Called before each `:get` is answered, with its number from 1."""
        self.changes_before_puts: Callable[[], None] = lambda: None
        """Called after each `:get` was answered.

        A test does here what another client does before this client's next request.
        """
        self.key_problems: dict[str, dict[str, Any]] = {}
        self.slow: dict[str, asyncio.Event] = {}
        """Keys whose load goes on until their event is set.

        Reads wait for such keys as long as the requests say.
        """
        self.room: int | None = None
        """The most values in one answer of `:get`; later ones are answered `answer-full`."""
        self.missing: list[str] = []
        self.unannounced = ""
        """The receipt's id of every write, as if the instance kept all in its journal."""
        """Instances that do not merge in time what a call waits for."""
        self.receipts: dict[str, dict[str, Any]] = {}
        self.raw_answer: bytes | None = None
        self.says: dict[str, dict[str, Any]] = {}
        """Fields that the answers of `:get` have beside their own, by key."""
        self.instances: dict[str, str] = {}
        """The instances of the region: name → URL. If empty, clients keep to their given URLs."""
        self.tokens: set[str] | None = None
        """The bearer tokens that are taken; others are answered 401. None: nobody needs one."""
        self.shown: list[tuple[str, str]] = []
        """Path and `Authorization` of every request, also of those that are not recorded."""
        self._ticks = itertools.count(1_000_000)
        self._runner: web.ServerRunner | None = None
        self.tls: ssl.SSLContext | None = None
        """Set before `start`: the service speaks https."""
        self.url = ""

    async def __aenter__(self) -> Self:
        await self.start(0)
        return self

    async def start(self, port: int) -> None:
        self._runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port, ssl_context=self.tls)
        await site.start()
        scheme = "http" if self.tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            self.gate.set()
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def calls(self, suffix: str) -> list[Recorded]:
        return [request for request in self.saw if request.path.endswith(suffix)]

    def hold(self, key: str, value: bytes, **more: Any) -> None:
        self.held[key] = Held(value, next(self._ticks), **more)

    def fence(self, key: str) -> None:
        """Invalidates a key, as another client would."""
        next(self._ticks)
        self.held.pop(key, None)
        self.leases.pop(key, None)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        shown = request.headers.get("Authorization", "")
        self.shown.append((request.path, shown))
        if self.tokens is not None and shown.removeprefix("Bearer ") not in self.tokens:
            return _problem(401, "unknown-identity")
        if (
            request.path == "/v1/topology"
        ):  # asked for besides, now and then: no part of what a test counts or holds back
            regions = {"eu": {"instances": self.instances}}
            return web.json_response({"here": {"region": "eu", "instance": "a"}, "regions": regions})
        body: Any = None
        raw = await request.read()
        packed = request.headers.get("Content-Type") == MSGPACK
        if raw and request.method == "POST":
            body = (msgspec.msgpack if packed else msgspec.json).decode(raw)
        self.saw.append(
            Recorded(
                request.method,
                request.path_qs if "%" not in request.raw_path else request.raw_path,
                dict(request.headers),
                body,
            )
        )
        self.arrived.release()
        await self.gate.wait()
        await self._load(request, body)
        problem = self.passing.pop(0) if self.passing else self.problem
        if problem is None and request.path == "/v1/invalidations":
            problem = self.problems_of.get(body["namespace"])
        if problem is not None:
            status, document, headers = problem
            return web.json_response(
                document, status=status, headers=headers, content_type="application/problem+json"
            )
        if self.raw_answer is not None:
            return web.Response(body=self.raw_answer, content_type=MSGPACK)
        if request.method == "PUT":
            return self._put_if_match(request, raw)
        return self._answer(request.method, request.raw_path, dict(request.headers), body)

    async def _load(self, request: web.BaseRequest, body: Any) -> None:
        asked = body["keys"] if request.path.endswith(":get") else []
        loads = [self.slow[key].wait() for key in asked if key in self.slow]
        if not loads:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds_of(request.headers["Cachesvc-Timeout"], "Cachesvc-Timeout")):
                await asyncio.gather(*loads)

    def _answer(self, method: str, path: str, headers: dict[str, str], body: Any) -> web.Response:
        if path == "/v1/invalidations":
            return self._invalidate(body)
        if path.startswith("/v1/invalidations/"):
            return self._receipt(path.rpartition("/")[2])
        namespace, _, rest = path.removeprefix("/v1/").partition("/")
        if namespace.endswith(":get"):
            self.on_read(len(self.calls(":get")))
            over = headers.get("Cache-Control") == "no-cache"
            results = [self._read(namespace[:-4], key, body, over) for key in body["keys"][: self.room]]
            full = {"type": "https://cachesvc.dev/problems/answer-full", "status": 503, "retryable": True}
            results += [{"outcome": "error", "problem": full}] * (len(body["keys"]) - len(results))
            self.changes_before_puts()
            return web.Response(
                body=msgspec.msgpack.encode({"results": results, "lag": 0.1, "news": 1}), content_type=MSGPACK
            )
        if namespace.endswith(":put"):
            return self._put_many(namespace[:-4], body["items"])
        if method == "DELETE":
            return self._invalidated(namespace, [unquote(rest)], [], whole=False)
        return self._read_one(namespace, unquote(rest), headers)

    def _read(self, namespace: str, key: str, asked: dict[str, Any], over: bool) -> dict[str, Any]:
        if key in self.key_problems:
            return {"outcome": "error", "problem": self.key_problems[key]}
        if key in self.slow and not self.slow[key].is_set():
            late = {"type": "https://cachesvc.dev/problems/deadline", "status": 504, "retryable": True}
            return {"outcome": "error", "problem": late}
        held = self._admissible(namespace, key, asked.get("token", ""))
        got: dict[str, Any] = {"outcome": "miss"}
        if held is not None:
            got = {
                "outcome": "stale" if held.stale else "absent" if held.absent else "hit",
                "value": held.value,
                "tier": "l1",
            }
            got |= {"age": 3, "ttl": -1 if held.stale else 42, "as_of": held.as_of, "tags": held.tags}
            got |= {"content_type": held.content_type} if held.content_type != OCTETS else {}
        got |= self.says.get(key, {})
        if asked.get("lease") and (held is None or held.stale or over) and key not in self.leases:
            got["lease"] = self.leases[key] = f"lease-{next(self._ticks)}"
        elif asked.get("lease") and held is None and key in self.unkept:
            got["unkept"] = True
        return got

    def _admissible(self, namespace: str, key: str, token: str) -> Held | None:
        held = self.held.get(key)
        if held is None:
            return None
        targets = {
            digest(f"{namespace}/{key}"),
            digest(namespace),
            *(digest(f"{namespace}#{tag}") for tag in held.tags),
        }
        return held if all(held.as_of > at for target, at in pairs_of(token) if target in targets) else None

    def _read_one(self, namespace: str, key: str, headers: dict[str, str]) -> web.Response:
        held = self._admissible(namespace, key, headers.get("Cachesvc-Token", ""))
        if held is not None and not held.absent:
            return web.Response(body=held.value, headers={"Content-Type": held.content_type})
        return _problem(404, "cache-miss" if held is None else "known-absent")

    def _put_if_match(self, request: web.BaseRequest, value: bytes) -> web.Response:
        namespace, _, rest = request.raw_path.removeprefix("/v1/").partition("/")
        key, held = unquote(rest), self.held.get(unquote(rest))
        if held is None or etag_of(held.value, held.content_type) != request.headers["If-Match"]:
            return _problem(412, "precondition-failed")
        at = next(self._ticks)
        tags = request.headers.get("Cache-Groups", "")
        self.hold(
            key,
            value,
            content_type=request.headers["Content-Type"],
            tags=[tag.strip('" ') for tag in tags.split(",") if tag],
        )
        return web.Response(
            status=202 if self.unannounced else 204,
            headers={"Cachesvc-Token": token_of([(digest(f"{namespace}/{key}"), at)])},
        )

    def _put_many(self, namespace: str, items: list[dict[str, Any]]) -> web.Response:
        results: list[dict[str, Any]] = []
        pairs: list[tuple[int, int]] = []
        for item in items:
            key, lease = item["key"], item.get("lease")
            if "release" in item:
                self.released.append((key, item["lease"], item["release"]))
                if self.leases.get(key) == lease:
                    del self.leases[key]
                results.append({"outcome": "released"})
                continue
            if key in self.key_problems:
                results.append({"outcome": "error", "problem": self.key_problems[key]})
                continue
            if lease and self._is_voided(namespace, item):
                self.leases.pop(key, None)
                results.append({"outcome": "fenced"})
                continue
            self.leases.pop(key, None)
            if not lease:
                pairs.append((digest(f"{namespace}/{key}"), next(self._ticks)))
            kept = {name: item[name] for name in ("content_type", "tags", "absent") if name in item}
            self.hold(key, item.get("value", b""), **kept)
            results.append({"outcome": "stored"})
        answer = {"results": results, "token": token_of(pairs)}
        return web.Response(body=msgspec.msgpack.encode(answer), content_type=MSGPACK)

    def _is_voided(self, namespace: str, item: dict[str, Any]) -> bool:
        lease = item["lease"]
        targets = [digest(namespace), *(digest(f"{namespace}#{tag}") for tag in item.get("tags", ()))]
        newest = max(self.fences.get(target, 0) for target in targets)
        return self.leases.get(item["key"]) != lease or int(lease.removeprefix("lease-")) <= newest

    def _invalidate(self, body: dict[str, Any]) -> web.Response:
        whole = body.get("all", False)
        if whole and body.get("confirm") != body["namespace"]:
            return _problem(400, "confirm-needed")
        missing = self.missing if body.get("wait", "none") != "none" else []
        return self._invalidated(
            body["namespace"], body.get("keys", []), body.get("tags", []), whole=whole, missing=missing
        )

    def _receipt(self, id_: str) -> web.Response:
        state = self.receipts.get(id_)
        return _problem(404, "no-such-receipt") if state is None else web.json_response(state)

    def _invalidated(
        self, namespace: str, keys: list[str], tags: list[str], *, whole: bool, missing: Sequence[str] = ()
    ) -> web.Response:
        """Issues the fence but keeps the copies, so that only tokens refuse them.

        An instance that has not merged the fence does the same.
        """
        at = next(self._ticks)
        targets = (
            [f"{namespace}/{key}" for key in keys]
            + [f"{namespace}#{tag}" for tag in tags]
            + [namespace] * whole
        )
        token = token_of((digest(target), at) for target in targets)
        self.fences.update((digest(target), at) for target in targets)
        for key in keys:
            self.leases.pop(key, None)
        receipt = {"id": f"eu:{at}-0", "token": token, "applied": True, "position": f"{at}-1", "news": 1}
        receipt |= {"reached": not missing, "missing": list(missing)}
        if self.unannounced:
            receipt |= {"id": self.unannounced, "position": "", "reached": False, "announced": False}
            return web.json_response(receipt, status=202, headers={"Cachesvc-Token": token})
        return web.json_response(receipt, status=202 if missing else 200, headers={"Cachesvc-Token": token})


def _problem(status: int, kind: str) -> web.Response:
    document = {"type": f"https://cachesvc.dev/problems/{kind}", "status": status}
    return web.json_response(document, status=status, content_type="application/problem+json")
