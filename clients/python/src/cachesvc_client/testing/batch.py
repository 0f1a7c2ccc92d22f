"""The calls `:get` and `:put` of the fake service."""

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from cachesvc_client.protocol.wire import JSON, MSGPACK, OCTETS
from cachesvc_client.requests.own_writes import token_of as packed
from cachesvc_client.testing.asking import (
    Headers,
    asked_of,
    check_lease,
    check_partition,
    checked_tags,
    duration_of,
    key_of,
    token_of,
)
from cachesvc_client.testing.clock import FakeClock
from cachesvc_client.testing.contract import EPOCH, REGION, SECONDS, Contract
from cachesvc_client.testing.home import Draft, Fenced, Home, digest
from cachesvc_client.testing.http import Refused, Request, Response
from cachesvc_client.testing.reading import Asked, Found, Reader
from cachesvc_client.values.lifetimes import MAX_LAG_SECONDS

MAX_KEYS = 1000

T = TypeVar("T")
_Seconds = Annotated[float, Meta(ge=0)]


class _GetMany(Struct, forbid_unknown_fields=True):
    keys: list[str]
    token: str = ""
    max_lag: str = ""
    lease: bool = False
    wait: _Seconds = 0.0


class _Item(Struct, forbid_unknown_fields=True):
    key: str
    value: bytes = b""
    content_type: str = OCTETS
    tags: tuple[str, ...] = ()
    ttl: _Seconds | None = None
    stale_while_revalidate: _Seconds | None = None
    stale_if_error: _Seconds | None = None
    absent: bool = False
    lease: str = ""
    source_lag: Annotated[float, Meta(ge=0, le=MAX_LAG_SECONDS)] = 0.0
    release: Literal["failed", "unkept"] | None = None


class _PutMany(Struct, forbid_unknown_fields=True):
    items: list[_Item]


class Batches:
    """The handler of requests for many keys; `told` is called with every new fence."""

    def __init__(
        self,
        home: Home,
        reader: Reader,
        clock: FakeClock,
        contract_of: Callable[[str], Contract],
        told: Callable[[list[Fenced]], None],
    ) -> None:
        self._home = home
        self._reader = reader
        self._clock = clock
        self._contract_of = contract_of
        self._told = told

    def get(self, request: Request, namespace: str, *, is_patient: bool) -> Response | None:
        """Answers `:get`; None if the request has to wait for other callers' fills.

        Before it waits no lease is granted (`_waits`). `is_patient` is false when the time to wait is
        over. Raises `Refused`.
        """
        body = document_of(request, _GetMany, MSGPACK, JSON)
        _check_count(len(body.keys))
        asked = _asked(request.headers, body)
        keys = [key_of(key, f"$.keys[{nth}]") for nth, key in enumerate(body.keys)]
        if asked.wait and is_patient and any(self._waits(namespace, key, asked) for key in keys):
            return None
        results = [self._got(self._reader.read(namespace, key, asked)) for key in keys]
        return _response(
            request, {"results": results, "lag": self._reader.lag, "queues": f"{REGION}@{EPOCH}"}
        )

    def _waits(self, namespace: str, key: str, asked: Asked) -> bool:
        """True if the key misses and another caller holds its lease.

        The key is read without asking for a lease: none may be granted to an answer that is not sent yet.
        """
        found = self._reader.read(namespace, key, msgspec.structs.replace(asked, lease=False))
        is_held = self._home.is_leased(namespace, key) and not self._home.is_unkept(namespace, key)
        return found.outcome == "miss" and is_held

    def _got(self, found: Found) -> dict[str, Any]:
        entry, lease = found.entry, {"lease": found.lease} if found.lease else {}
        if found.outcome == "failed":
            return {
                "outcome": "error",
                "problem": Refused(502, "load-failed", "the origin failed", retryable=True).document(),
            }
        if entry is None:
            return {"outcome": "miss", **lease, **({"unkept": True} if found.unkept else {})}
        now = self._clock.now_us()
        named = {
            "content_type": entry.draft.content_type,
            "tags": entry.draft.tags,
            "value": entry.draft.value,
        }
        defaults = {"content_type": OCTETS, "tags": (), "value": b""}
        ttl = (entry.fresh_until - now) // SECONDS
        if found.outcome == "stale":
            ttl = min(ttl, -1)
        unkept = {} if entry.draft.keep else {"keep": False}
        early = {"early": True} if found.early else {}
        return {
            "outcome": found.outcome,
            "tier": "origin" if found.outcome == "loaded" else "l1",
            "age": max(0, (now - entry.as_of) // SECONDS),
            "ttl": ttl if entry.draft.keep else min(ttl, 0),
            "as_of": entry.as_of,
            **{name: value for name, value in named.items() if value != defaults[name]},
            **unkept,
            **early,
            **lease,
        }

    def put(self, request: Request, namespace: str) -> Response:
        """Answers `:put`; raises `Refused`."""
        body = document_of(request, _PutMany, MSGPACK, JSON)
        _check_count(len(body.items))
        contract = self._contract_of(namespace)
        drafts = [_draft(item, nth, contract) for nth, item in enumerate(body.items)]
        pairs: dict[int, int] = {}
        results = [
            self._put(namespace, item, draft, pairs) for item, draft in zip(body.items, drafts, strict=True)
        ]
        return _response(request, {"results": results, **({"token": packed(pairs.items())} if pairs else {})})

    def _put(self, namespace: str, item: _Item, draft: Draft, pairs: dict[int, int]) -> dict[str, Any]:
        try:
            _check_size(draft, self._contract_of(namespace))
            check_partition(item.key, draft.tags)
            check_lease(item.lease)
        except Refused as refused:
            if item.lease:
                self._home.release(namespace, item.key, item.lease, unkept=True)
            return {"outcome": "error", "problem": refused.document()}
        if item.release is not None:
            self._home.release(namespace, item.key, item.lease, unkept=item.release == "unkept")
            return {"outcome": "released"}
        if item.lease:
            return {
                "outcome": "stored" if self._home.fill(namespace, item.key, draft, item.lease) else "fenced"
            }
        fenced = self._home.put(namespace, item.key, draft)
        self._told([fenced])
        pairs[digest(fenced.target)] = fenced.at
        return {"outcome": "stored"}


def document_of(request: Request, type_: type[T], *taken: str) -> T:
    """Returns the body decoded as `type_`.

    `taken` are the content types that are accepted. Raises `Refused` with the path at fault if the
    body does not fit.
    """
    if request.media_type not in taken:
        raise Refused(415, "content-type", f"send {' or '.join(taken)}", "Content-Type")
    decode = msgspec.msgpack.decode if request.media_type == MSGPACK else msgspec.json.decode
    try:
        return decode(request.body, type=type_)
    except msgspec.ValidationError as error:
        raise Refused(400, "invalid-body", str(error), _field(str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(400, "bad-body", str(error)) from None


def _field(why: str) -> str:
    """Returns the path at fault, from msgspec's message."""
    what, _, at = why.partition(" - at `")
    place = at.rstrip("`") or "$"
    unnamed = "Object contains unknown field `", "Object missing required field `"
    return f"{place}.{what.split('`')[1]}" if what.startswith(unnamed) else place


def _asked(headers: Headers, body: _GetMany) -> Asked:
    asked = asked_of(headers)
    if body.max_lag:
        asked = msgspec.structs.replace(asked, max_lag=duration_of(body.max_lag, "$.max_lag", "bad-header"))
    token = {**asked.token, **token_of(body.token, "$.token")}
    return msgspec.structs.replace(
        asked, token=token, lease=body.lease, wait=body.wait if body.lease else 0.0
    )


def _draft(item: _Item, nth: int, contract: Contract) -> Draft:
    key_of(item.key, f"$.items[{nth}].key")
    checked_tags(item.tags, f"$.items[{nth}].tags")
    if len(item.tags) > contract.tags_max:
        raise Refused(400, "bad-tag", f"more than {contract.tags_max} tags", f"$.items[{nth}].tags")
    if item.absent and item.value:
        raise Refused(400, "contradiction", "what is absent has no value", f"$.items[{nth}].absent")
    if item.source_lag and not item.lease:
        raise Refused(
            400, "contradiction", "a source that lags belongs to a fill", f"$.items[{nth}].source_lag"
        )
    if item.release is not None and (not item.lease or item.value or item.absent):
        raise Refused(400, "contradiction", "a release has a lease, and no value", f"$.items[{nth}].release")
    lives = (item.ttl, item.stale_while_revalidate, item.stale_if_error)
    return Draft(
        item.value, item.content_type, item.tags, *lives, absent=item.absent, source_lag=item.source_lag
    )


def _check_size(draft: Draft, contract: Contract) -> None:
    if len(draft.value) > contract.max_value:
        raise Refused(
            413,
            "value-too-large",
            f"a value of this namespace has at most {contract.max_value} bytes",
            "value",
        )


def _check_count(count: int) -> None:
    if count > MAX_KEYS:
        raise Refused(413, "too-many-keys", f"{count} keys, at most {MAX_KEYS}", "$.keys")


def _response(request: Request, document: dict[str, Any]) -> Response:
    encode = msgspec.msgpack.encode if request.media_type == MSGPACK else msgspec.json.encode
    return Response(200, {"Content-Type": request.media_type}, encode(document))
