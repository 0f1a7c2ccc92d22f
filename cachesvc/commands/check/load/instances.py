"""The instances under check, asked over HTTP as any caller would, with none of the
service's own code."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import TypeVar
from urllib.parse import quote

import aiohttp
import msgspec
from msgspec import Struct

from cachesvc.commands.check.history import region_of
from cachesvc.commands.check.load.origin import Snapshot
from cachesvc.model import cache_groups

MSGPACK = "application/msgpack"
GRACE_SECONDS = 3.0
"""The time that a call may take beyond its deadline before it is given up, so that a late
answer is seen as one."""
CALL_SECONDS = 10.0
"""The timeout of calls without a deadline of their own, such as an invalidation that waits
for a region."""
PROBE_SECONDS = 0.1
"""The pause between two probes of an instance that is gone."""
PROBE_TIMEOUT_SECONDS = 2.0

T = TypeVar("T")


class Problem(Struct):
    """The part of a problem (RFC 9457) that is used."""

    type: str = ""
    detail: str = ""

    @property
    def kind(self) -> str:
        """The problem's kind: the last segment of its type."""
        return self.type.rpartition("/")[2]


class Got(Struct):
    """The answer for one key."""

    outcome: str
    value: bytes = b""
    tier: str = ""
    as_of: int = 0
    seen: int = 0
    """The time that a session remembers, where `as_of` does not order the answer; else 0."""
    lease: str = ""
    problem: Problem | None = None


class GotMany(Struct):
    """The answers for several keys, in the order of the keys, and the staleness bound in
    seconds."""

    results: list[Got]
    lag: float | None = None


class Receipt(Struct):
    """The receipt of an invalidate call."""

    id: str
    token: str = ""
    position: str = ""
    reached: bool = True
    announced: bool = True


class ReceiptState(Struct):
    """The state of a change."""

    state: str = "open"
    position: str = ""


class InstanceError(Exception):
    """An instance did not answer, or its answer is a failure.

    `reason` is the problem's kind, or the exception's name.
    """

    def __init__(self, instance: str, reason: str, detail: str = "") -> None:
        super().__init__(f"{instance}: {reason}{': ' if detail else ''}{detail}")
        self.reason = reason
        self.region = region_of(instance)


class Instance:
    """One instance. Every call raises `InstanceError`, and nothing else."""

    def __init__(self, name: str, url: str, namespace: str, http: aiohttp.ClientSession) -> None:
        self.name = name
        """The name as `region/instance`."""
        self.url = url
        self.is_gone = False
        """True if it refused or dropped a connection, and has not said since that it is ready. A
        load balancer would not send it requests."""
        self._path = f"{url}/v1/{quote(namespace, safe='')}"
        self._http = http

    def __repr__(self) -> str:
        return f"<Instance {self.name}{' (gone)' if self.is_gone else ''}>"

    @property
    def region(self) -> str:
        return self.name.partition("/")[0]

    async def get(self, key: str, *, token: str, deadline_seconds: float) -> GotMany:
        """A GET of one key, the shortest path through the service. The answer has no `as_of`."""
        headers = {"Cachesvc-Timeout": _milliseconds(deadline_seconds)} | (
            {"Cachesvc-Token": token} if token else {}
        )
        status, fields, body = await self._call(
            "GET", self._key(key), headers=headers, seconds=deadline_seconds + GRACE_SECONDS
        )
        lag = float(fields["Cachesvc-Lag"]) if "Cachesvc-Lag" in fields else None
        return GotMany([self._got(status, fields.get("Cache-Status", ""), body)], lag)

    async def get_many(
        self,
        keys: Sequence[str],
        *,
        token: str,
        deadline_seconds: float,
        lease_wait_seconds: float | None = None,
    ) -> GotMany:
        """A `:get` of several keys.

        With `lease_wait_seconds`, a miss grants one caller the lease, and the others wait so long
        for the fill.
        """
        asked: dict[str, object] = {"keys": keys, "token": token}
        if lease_wait_seconds is not None:
            asked |= {"lease": True, "wait": lease_wait_seconds}
        headers = {"Cachesvc-Timeout": _milliseconds(deadline_seconds), "Content-Type": MSGPACK}
        status, _, body = await self._call(
            "POST",
            f"{self._path}:get",
            headers=headers,
            body=msgspec.msgpack.encode(asked),
            seconds=deadline_seconds + GRACE_SECONDS,
        )
        if status != 200:
            raise self._failure(status, body)
        got = self._decoded(msgspec.msgpack.Decoder(GotMany), body)
        if len(got.results) != len(keys):
            raise InstanceError(self.name, "unreadable", f"{len(got.results)} results for {len(keys)} keys")
        return got

    async def fill(self, snapshot: Snapshot, lease: str) -> bool:
        """Writes a loaded value back. True if it was stored, False if the lease was voided."""
        headers = {
            "Cachesvc-Lease": lease,
            "Cache-Control": "max-age=60",
            "Cache-Groups": cache_groups.format(snapshot.tags),
        }
        status, _, body = await self._call(
            "PUT", self._key(snapshot.key), headers=headers, body=snapshot.value
        )
        if status not in (200, 201, 204, 409):
            raise self._failure(status, body)
        return status != 409

    async def put(self, snapshot: Snapshot) -> Receipt:
        """Stores a value that was just written; returns its receipt: that has an id only if the
        write could not be announced."""
        headers = {"Cache-Control": "max-age=60", "Cache-Groups": cache_groups.format(snapshot.tags)}
        status, fields, body = await self._call(
            "PUT", self._key(snapshot.key), headers=headers, body=snapshot.value
        )
        if status == 202:
            return self._decoded(msgspec.json.Decoder(Receipt), body)
        if status != 204:
            raise self._failure(status, body)
        return Receipt("", fields.get("Cachesvc-Token", ""))

    async def invalidate(self, change: Mapping[str, object]) -> Receipt:
        """Announces a change with `POST /v1/invalidations`."""
        body = msgspec.json.encode(change)
        status, _, answer = await self._call(
            "POST", f"{self.url}/v1/invalidations", headers={"Content-Type": "application/json"}, body=body
        )
        if status not in (200, 202):
            raise self._failure(status, answer)
        return self._decoded(msgspec.json.Decoder(Receipt), answer)

    async def receipt(self, id_: str) -> ReceiptState:
        """The state of a change, by its id."""
        status, _, body = await self._call("GET", f"{self.url}/v1/invalidations/{quote(id_, safe='')}")
        if status != 200:
            raise self._failure(status, body)
        return self._decoded(msgspec.json.Decoder(ReceiptState), body)

    async def require_ready(self) -> None:
        """Raises `InstanceError` unless the instance is ready. A ready instance is not gone any
        more."""
        status, _, body = await self._call("GET", f"{self.url}/readyz", seconds=PROBE_TIMEOUT_SECONDS)
        if status != 200:
            raise self._failure(status, body)
        self.is_gone = False

    def _key(self, key: str) -> str:
        return f"{self._path}/{quote(key, safe='')}"

    async def _call(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        seconds: float = CALL_SECONDS,
    ) -> tuple[int, Mapping[str, str], bytes]:
        try:
            async with self._http.request(
                method,
                url,
                headers=headers,
                data=body or None,
                timeout=aiohttp.ClientTimeout(total=seconds),
                allow_redirects=False,
            ) as answer:
                return answer.status, answer.headers, await answer.read()
        except (
            TimeoutError
        ) as error:  # comes before `OSError`, its base: a silent instance may be stopped, and is not gone
            raise InstanceError(self.name, "no-answer", f"within {seconds:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            self.is_gone = True
            raise InstanceError(self.name, type(error).__name__, str(error)) from error

    def _got(self, status: int, cache_status: str, body: bytes) -> Got:
        if status == 200:
            outcome, tier = answered_by(cache_status)
            return Got(outcome, body, tier)
        problem = _problem(body)
        if status == 404 and problem.kind in ("known-absent", "cache-miss"):
            return (
                Got("absent", tier=answered_by(cache_status)[1])
                if problem.kind == "known-absent"
                else Got("miss")
            )
        raise self._failure(status, body)

    def _failure(self, status: int, body: bytes) -> InstanceError:
        problem = _problem(body)
        return InstanceError(self.name, problem.kind or f"status-{status}", problem.detail)

    def _decoded(self, decoder: "msgspec.json.Decoder[T] | msgspec.msgpack.Decoder[T]", body: bytes) -> T:
        try:
            return decoder.decode(body)
        except msgspec.DecodeError as error:
            raise InstanceError(self.name, "unreadable", str(error)) from error


class Instances:
    """All instances, and which of them can be asked now."""

    def __init__(self, addresses: Mapping[str, str], namespace: str, http: aiohttp.ClientSession) -> None:
        self.all = [Instance(name, url, namespace, http) for name, url in addresses.items()]

    def __repr__(self) -> str:
        return f"<Instances [{len(self.here())} of {len(self.all)} here]>"

    def here(self) -> list[Instance]:
        """The instances that are not gone."""
        return [instance for instance in self.all if not instance.is_gone]

    def one(self, random: Random) -> Instance:
        """A random instance that is not gone; if all are, any."""
        return random.choice(self.here() or self.all)

    async def look(self) -> None:
        """Asks the instances that are gone whether they are ready, until it is cancelled.

        Until an instance is ready no request is sent to it: one that has just started has not
        read the fences yet, and says so.
        """
        while True:
            await asyncio.gather(
                *(each.require_ready() for each in self.all if each.is_gone), return_exceptions=True
            )
            await asyncio.sleep(PROBE_SECONDS)


def answered_by(cache_status: str) -> tuple[str, str]:
    """Outcome and tier of a 200, from its `Cache-Status` (RFC 9211): the member with `hit`,
    else the origin."""
    for member in _members(cache_status):
        if "hit" in member[1:]:
            tier = member[0].removeprefix("cachesvc-")
            return ("stale" if any(word.startswith("ttl=-") for word in member) else "hit"), tier
    return "loaded", "origin"


def _members(cache_status: str) -> Iterable[list[str]]:
    return ([word.strip() for word in member.split(";")] for member in cache_status.split(","))


def _problem(body: bytes) -> Problem:
    try:
        return msgspec.json.decode(body, type=Problem)
    except msgspec.DecodeError:
        return Problem()


def _milliseconds(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"
