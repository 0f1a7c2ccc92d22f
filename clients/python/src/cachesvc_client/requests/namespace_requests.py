"""The calls of clients/PROTOCOL.md as requests to send and replies to read.

There is no I/O here, so that both flavours send the same bytes. Reads take along the fences of this
client's own writes and of the tokens handed to it; writes leave theirs behind.
"""

import math
import re
from collections.abc import Iterable, Sequence
from typing import TypeVar
from urllib.parse import quote

import msgspec

from cachesvc_client.errors import CacheError
from cachesvc_client.instances.region import Region
from cachesvc_client.near.near import Near, Shelf
from cachesvc_client.protocol.wire import (
    JSON,
    MSGPACK,
    OCTETS,
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
from cachesvc_client.requests.handed_tokens import Wanted, key_of
from cachesvc_client.requests.http import Reply, Request, error_of, problem_error
from cachesvc_client.requests.own_writes import MAX_PAIRS, OwnWrites, key_digest, pairs_of, token_of
from cachesvc_client.values.lifetimes import Lifetimes
from cachesvc_client.values.lookups import etag_of

S = TypeVar("S")

READ_TRIES, WRITE_TRIES = 3, 2
"""The instances that are asked at most, if they stay silent.

Writes take longer than reads, so each gets a larger share of its time.
"""

_INSTANCES = re.compile(r"[0-9]{1,6}", re.ASCII).fullmatch
_VERBS = (":explain", ":get", ":put")
"""The path of a key that ends with one of these could be read as another call."""

_PACKED = {"Content-Type": MSGPACK}
_pack = msgspec.msgpack.Encoder().encode
_got_many = msgspec.msgpack.Decoder(GotMany)
_put_results = msgspec.msgpack.Decoder(PutResults)
_receipt = msgspec.json.Decoder(Receipt)
_receipt_state = msgspec.json.Decoder(ReceiptState)


class _WithToken(msgspec.Struct):
    """A receipt or a problem, as far as its token goes."""

    token: str = ""


_with_token = msgspec.json.Decoder(_WithToken)


class NamespaceRequests:
    """The requests of one namespace, and the readings of their replies."""

    def __init__(
        self,
        namespace: str,
        own_writes: OwnWrites,
        near: Near | None = None,
        *,
        shelf: Shelf | None = None,
        max_lag: str = "",
        caller: str = "",
        region: Region | None = None,
    ) -> None:
        """`shelf` keeps the answers, if the namespace has a near cache.

        `region` is told of hot keys.
        """
        self.namespace = namespace
        self._own = own_writes
        self._near = near
        self._shelf = shelf
        self._region = region
        self._max_lag = max_lag
        self._caller = {"Cachesvc-Caller": caller} if caller else {}
        self._get_path = f"/v1/{namespace}:get"
        self._put_path = f"/v1/{namespace}:put"

    # reading --------------------------------------------------------------------------------------

    def parts(self, wanted: list[Wanted]) -> list[tuple[list[Wanted], str]]:
        """The keys that are asked for together, and the token of each of these parts.

        One part, unless the tokens from other clients exceed what a request takes.
        """
        if all(isinstance(one, str) for one in wanted):
            return [(wanted, self._own.token_for(self.namespace, map(key_of, wanted)))]
        parts: list[tuple[list[Wanted], dict[int, int]]] = [([], {})]
        for one in wanted:
            pairs = self._pairs_of(one)
            together, merged = parts[-1]
            if together and len(merged.keys() | pairs.keys()) > MAX_PAIRS:
                together, merged = [], {}
                parts.append((together, merged))
            together.append(one)
            for digest, at in pairs.items():
                merged[digest] = max(at, merged.get(digest, 0))
        return [(together, token_of(merged.items())) for together, merged in parts]

    def _pairs_of(self, wanted: Wanted) -> dict[int, int]:
        pairs = dict(self._own.pairs_for(self.namespace, [key_of(wanted)]))
        for digest, at in pairs_of("" if isinstance(wanted, str) else wanted.token):
            pairs[digest] = max(at, pairs.get(digest, 0))
        return pairs

    def read(self, wanted: Sequence[Wanted], token: str, turn: float = math.inf) -> Request:
        return self._get(GetMany(_keys(wanted), token, self._max_lag), turn=turn)

    def lease(
        self, wanted: Sequence[Wanted], token: str, wait: float = 0.0, *, over: bool = False
    ) -> Request:
        """A read that is granted the leases of keys that are not fresh; `over`: fresh ones, too.

        It waits up to `wait` seconds for the fills of other holders.
        """
        asked = GetMany(_keys(wanted), token, self._max_lag, lease=True, wait=wait)
        request = self._get(asked, is_repeatable=False)
        return request._replace(headers={**_PACKED, "Cache-Control": "no-cache"}) if over else request

    def _get(self, asked: GetMany, *, is_repeatable: bool = True, turn: float = math.inf) -> Request:
        return Request(
            "POST",
            self._get_path,
            _pack(asked),
            _PACKED,
            is_repeatable,
            True,
            turn,
            READ_TRIES,
            operation="cache.get",
            items=len(asked.keys),
        )

    def got(self, reply: Reply, wanted: Sequence[Wanted], asked_at: float = 0.0) -> list[Got | CacheError]:
        """Returns the answer for each key. `asked_at`: monotonic, not later than the request."""
        answer = _decoded(_got_many, reply)
        _check_count(answer.results, wanted)
        lag, queues = answer.lag, answer.queues
        for one, got in zip(wanted, answer.results, strict=True):
            got.lag, got.queues = lag, queues
            got.is_moved = reply.is_moved
            if got.spread or got.early:
                self._heed_spread(reply, one, got, asked_at)
        if self._shelf is not None:
            for one, got in zip(wanted, answer.results, strict=True):
                self._shelf.keep(key_of(one), got, asked_at)
        return [error_of(got.problem) if got.outcome == "error" else got for got in answer.results]

    def _heed_spread(self, reply: Reply, wanted: Wanted, got: Got, asked_at: float) -> None:
        """Notes a hot key. Of one that is spread, only its own instance says that it is due early.

        A fill goes there, and ends what is said there. The copy at another instance lives on, and
        would be due at every read.
        """
        region = self._region
        if region is None:
            return
        if got.spread > 1:
            region.heed_spread(self.digest(wanted), got.spread, asked_at)
        if got.early and region.is_elsewhere(self.digest(wanted), reply.endpoint, asked_at):
            got.early = False

    def read_alone(self, wanted: Wanted, token: str) -> Request:
        """A read of one key, by `GET`."""
        headers = {"Cachesvc-Token": token} if token else {}
        if self._max_lag:
            headers["Cachesvc-Max-Lag"] = self._max_lag
        path = self._path(key_of(wanted))
        return Request("GET", path, headers=headers, tries=READ_TRIES, operation="cache.get")

    def read_stale(self, wanted: Wanted, token: str, beyond: float) -> Request:
        """A read of a copy that may be stale for `beyond` seconds, of which no load is begun."""
        request = self.read_alone(wanted, token)
        said = {"Cache-Control": f"only-if-cached, max-stale={math.ceil(beyond)}"}
        return request._replace(headers={**request.headers, **said})

    def got_alone(self, reply: Reply, wanted: Wanted, asked_at: float = 0.0) -> Got:
        """The answer to `read_alone`: the value, and as much besides as a plain read needs.

        `asked_at`: monotonic, not later than the request.
        """
        if reply.status == 200:
            got = Got("hit", reply.body, content_type=reply.headers.get("Content-Type", OCTETS))
            instances = reply.headers.get("Cachesvc-Spread", "")
            if _INSTANCES(instances):
                got.spread = int(instances)
                self._heed_spread(reply, wanted, got, asked_at)
            return got
        error = problem_error(reply)
        if error.type in ("cache-miss", "known-absent"):
            return Got("miss" if error.type == "cache-miss" else "absent")
        raise error

    # writing --------------------------------------------------------------------------------------

    def put(self, items: Sequence[PutItem]) -> Request:
        is_repeatable = not any(item.lease for item in items)
        tries = WRITE_TRIES if all(item.lease for item in items) else 1
        body = _pack(PutMany(list(items)))
        return Request(
            "POST",
            self._put_path,
            body,
            _PACKED,
            is_repeatable,
            is_fixed=True,
            tries=tries,
            operation="cache.set",
            items=len(items),
        )

    def put_results(self, reply: Reply, items: Sequence[PutItem]) -> list[Put | CacheError]:
        answer = _decoded(_put_results, reply)
        _check_count(answer.results, items)
        self._learn(answer.token, [item.key for item in items])
        return [error_of(put.problem) if put.outcome == "error" else put for put in answer.results]

    def touch(self, key: str, got: Got, lifetimes: Lifetimes) -> Request:
        """A write that stores the value that was read once more, if it is still the stored one."""
        headers = {"Content-Type": got.content_type, "If-Match": etag_of(got.value, got.content_type)}
        if lives := _cache_control(lifetimes):
            headers["Cache-Control"] = lives
        if got.tags:
            headers["Cache-Groups"] = ", ".join(map(_structured_string, got.tags))
        return Request("PUT", self._path(key), got.value, headers, is_repeatable=False, operation="cache.set")

    def touched(self, reply: Reply, key: str) -> bool:
        """False if another value is stored by now, or none."""
        self._learn(reply.headers.get("Cachesvc-Token", ""), [key])
        if reply.status in (202, 204):  # 202: the other instances hear of it later
            return True
        error = problem_error(reply)
        if error.type == "precondition-failed":
            return False
        raise error

    # invalidating ---------------------------------------------------------------------------------

    def invalidate(self, asked: Invalidation) -> Request:
        headers = {"Content-Type": JSON, **self._caller}
        body = msgspec.json.encode(asked)
        return Request(
            "POST",
            "/v1/invalidations",
            body,
            headers,
            is_fixed=True,
            tries=WRITE_TRIES if asked.wait == "none" else 1,  # a wait may take all of the time
            operation="cache.invalidate",
        )

    def delete(self, key: str) -> Request:
        path = self._path(key)
        return Request("DELETE", path, headers=self._caller, tries=WRITE_TRIES, operation="cache.invalidate")

    def receipt(self, reply: Reply, keys: Iterable[str], *, lenient: bool = False) -> Receipt:
        """Returns the receipt of an invalidation, and remembers the fences it announces.

        A soft or paced invalidation allows stale answers, so nothing has to be remembered of it. An
        invalidation that was accepted but is not out yet (503 with a token) has to be remembered:
        the write that it announces has happened.
        """
        if not lenient:
            self._learn(_token_in(reply), keys)
        return _decoded(_receipt, reply)

    def _learn(self, token: str, keys: Iterable[str]) -> None:
        try:
            self._own.learn(self.namespace, token, keys)
            if self._near is not None:
                self._near.merge(pairs_of(token))
        except ValueError as error:
            raise CacheError("bad-answer", str(error)) from error

    def _path(self, key: str) -> str:
        """The path of a key, with few escapes: the service is fastest with a path that has none."""
        path = quote(key, safe="" if key.endswith(_VERBS) else "~!$&'()*+,;=:@")
        # A proxy would take a path of dots for a relative one.
        return f"/v1/{self.namespace}/{path.replace('.', '%2E') if key in ('.', '..') else path}"

    def digest(self, wanted: Wanted) -> int:
        """The digest of a key, as the service has it; it decides which instance is asked."""
        return key_digest(self.namespace, key_of(wanted))


def receipt_request(id_: str) -> Request:
    return Request("GET", f"/v1/invalidations/{id_}", tries=READ_TRIES)


def receipt_state(reply: Reply) -> ReceiptState:
    """Reads a receipt. Raises `CacheError` (`no-such-receipt`) if it is unknown or forgotten."""
    return _decoded(_receipt_state, reply)


def _decoded(decoder: "msgspec.msgpack.Decoder[S] | msgspec.json.Decoder[S]", reply: Reply) -> S:
    if reply.status not in (200, 202):
        raise problem_error(reply)
    try:
        return decoder.decode(reply.body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CacheError("bad-answer", f"not what the protocol says: {error}") from error


def _token_in(reply: Reply) -> str:
    """The token of an answer: in the header, or in the body alone if it is long."""
    if token := reply.headers.get("Cachesvc-Token", ""):
        return token
    try:
        return _with_token.decode(reply.body).token
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""


def _keys(wanted: Sequence[Wanted]) -> list[str]:
    return [one if isinstance(one, str) else one.key for one in wanted]


def _check_count(results: Sequence[Got] | Sequence[Put], asked: Sequence[object]) -> None:
    if len(results) != len(asked):
        raise CacheError("bad-answer", f"{len(results)} results to {len(asked)} keys")


def _cache_control(lifetimes: Lifetimes) -> str:
    """The header for these lifetimes in whole seconds.

    They are rounded up: a touch must not make a value's life shorter than was asked.
    """
    named = (
        ("max-age", lifetimes.ttl),
        ("stale-while-revalidate", lifetimes.stale),
        ("stale-if-error", lifetimes.stale_if_error),
    )
    return ", ".join(f"{name}={math.ceil(seconds)}" for name, seconds in named if seconds is not None)


def _structured_string(tag: str) -> str:
    """The tag as a String of RFC 9651, section 3.3.3."""
    return '"' + tag.replace("\\", "\\\\").replace('"', '\\"') + '"'
