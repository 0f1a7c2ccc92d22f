"""The calls of clients/PROTOCOL.md for one namespace, each as one method. Deadlines are times on the loop's clock.

Reads take along the fences of this client's own writes; writes leave theirs behind.
"""

from collections.abc import Iterable, Sequence
from typing import TypeVar
from urllib.parse import quote

import msgspec

from cachesvc_client.errors import CacheError
from cachesvc_client.own_writes import OwnWrites
from cachesvc_client.transport import Reply, Transport, error_of, problem_error
from cachesvc_client.wire import (
    JSON,
    MSGPACK,
    GetMany,
    Got,
    GotMany,
    Invalidation,
    Put,
    PutItem,
    PutMany,
    PutResults,
    Receipt,
    ReceiptState,
)

S = TypeVar("S")

_VERBS = (":explain", ":get", ":put")
"""With these at its end the path of a key could be read as another call."""

_pack = msgspec.msgpack.Encoder().encode
_got_many = msgspec.msgpack.Decoder(GotMany)
_put_results = msgspec.msgpack.Decoder(PutResults)
_receipt = msgspec.json.Decoder(Receipt)
_receipt_state = msgspec.json.Decoder(ReceiptState)


class Calls:
    def __init__(self, namespace: str, transport: Transport, own_writes: OwnWrites, *, max_lag: str, caller: str) -> None:
        self.namespace = namespace
        self._transport = transport
        self._own = own_writes
        self._max_lag = max_lag
        self._caller = {"Cachesvc-Caller": caller} if caller else {}
        self._get_path = f"/v1/{namespace}:get"
        self._put_path = f"/v1/{namespace}:put"

    async def read(self, keys: list[str], deadline: float) -> Sequence[Got | CacheError]:
        return await self._read(GetMany(keys, self._own.token_for(self.namespace, keys), self._max_lag), deadline)

    async def lease(self, keys: list[str], deadline: float, wait: float = 0.0) -> Sequence[Got | CacheError]:
        """Read, and be granted the leases of what is not fresh; wait up to `wait` seconds for the fills of other holders."""
        token = self._own.token_for(self.namespace, keys)
        return await self._read(GetMany(keys, token, self._max_lag, lease=True, wait=wait), deadline)

    async def _read(self, asked: GetMany, deadline: float) -> Sequence[Got | CacheError]:
        reply = await self._transport.post(self._get_path, _pack(asked), MSGPACK, deadline)
        results = _decoded(_got_many, reply).results
        _check_count(results, asked.keys)
        return [error_of(got.problem) if got.outcome == "error" else got for got in results]

    async def read_alone(self, keys: list[str], deadline: float) -> Sequence[Got | CacheError]:
        """One key, by `GET`."""
        headers = {}
        if token := self._own.token_for(self.namespace, keys):
            headers["Cachesvc-Token"] = token
        if self._max_lag:
            headers["Cachesvc-Max-Lag"] = self._max_lag
        reply = await self._transport.send("GET", self._path(keys[0]), deadline, headers)
        if reply.status == 200:
            return [Got("hit", reply.body)]
        error = problem_error(reply)
        if error.type in ("cache-miss", "known-absent"):
            return [Got("miss" if error.type == "cache-miss" else "absent")]
        raise error

    async def put(self, items: list[PutItem], deadline: float) -> Sequence[Put | CacheError]:
        reply = await self._transport.post(self._put_path, _pack(PutMany(items)), MSGPACK, deadline)
        answer = _decoded(_put_results, reply)
        _check_count(answer.results, items)
        self._learn(answer.token, [item.key for item in items])
        return [error_of(put.problem) if put.outcome == "error" else put for put in answer.results]

    async def invalidate(self, asked: Invalidation, deadline: float) -> Receipt:
        body = msgspec.json.encode(asked)
        reply = await self._transport.post("/v1/invalidations", body, JSON, deadline, self._caller)
        return self._receipt_of(reply, asked.keys, lenient=asked.is_lenient)

    async def delete(self, key: str, deadline: float) -> Receipt:
        return self._receipt_of(await self._transport.send("DELETE", self._path(key), deadline, self._caller), [key])

    def _receipt_of(self, reply: Reply, keys: list[str], *, lenient: bool = False) -> Receipt:
        """A soft or paced invalidation allows stale answers, so nothing has to be remembered of it. One that was accepted but is
        not out yet (503 with a token) has to be: the write that it announces has happened.
        """
        if not lenient:
            self._learn(reply.headers.get("Cachesvc-Token", ""), keys)
        return _decoded(_receipt, reply)

    def _learn(self, token: str, keys: Iterable[str]) -> None:
        try:
            self._own.learn(self.namespace, token, keys)
        except ValueError as error:
            raise CacheError("bad-answer", str(error)) from error

    def _path(self, key: str) -> str:
        """As few escapes as may be: the service is quickest with a path that needs none."""
        path = quote(key, safe="" if key.endswith(_VERBS) else "~!$&'()*+,;=:@")
        # Dots alone would be taken for a relative path on the way.
        return f"/v1/{self.namespace}/{path.replace('.', '%2E') if key in ('.', '..') else path}"


async def receipt_state(transport: Transport, id_: str, deadline: float) -> ReceiptState:
    """Raises `CacheError` `no-such-receipt` if it is unknown, or was forgotten."""
    return _decoded(_receipt_state, await transport.send("GET", f"/v1/invalidations/{id_}", deadline))


def _decoded(decoder: "msgspec.msgpack.Decoder[S] | msgspec.json.Decoder[S]", reply: Reply) -> S:
    if reply.status not in (200, 202):
        raise problem_error(reply)
    try:
        return decoder.decode(reply.body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CacheError("bad-answer", f"not what the protocol says: {error}") from error


def _check_count(results: Sequence[Got] | Sequence[Put], asked: Sequence[object]) -> None:
    if len(results) != len(asked):
        raise CacheError("bad-answer", f"{len(results)} results to {len(asked)} keys")
