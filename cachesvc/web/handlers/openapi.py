"""`/openapi.json` (OpenAPI 3.1).

Schemas come from the very structs that decode requests and encode answers, problem kinds from their
register. The paths have to agree with the table of calls in `server.py`; a test compares them.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec

from cachesvc.config.topology_rules import NAMESPACE_NAME
from cachesvc.explain.answer import Explanation, Seen
from cachesvc.model.key_text import MAX_KEY_BYTES
from cachesvc.model.problems import ProblemKind
from cachesvc.model.requests import Estimate, ReceiptState, Release
from cachesvc.web.messages import (
    AuditPage,
    ChangeEvent,
    GetMany,
    GotMany,
    HotKeys,
    Invalidation,
    InvalidationReceipt,
    Problem,
    PutMany,
    PutResults,
)
from cachesvc.web.requests.bodies import CLOUDEVENT, JSON, MSGPACK
from cachesvc.web.requests.limits import MAX_CALLER_LENGTH, MOST_RECORDS
from cachesvc.web.routing import RECEIPT_ID

Json: TypeAlias = Mapping[str, object]

_STRUCTS = (
    Problem,
    GetMany,
    GotMany,
    PutMany,
    PutResults,
    Invalidation,
    ChangeEvent,
    InvalidationReceipt,
    ReceiptState,
    Estimate,
    Explanation,
    Seen,
    HotKeys,
    AuditPage,
)
_OCTETS: Json = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
_ANY_OBJECT: Json = {JSON: {"schema": {"type": "object"}}}
_TEXT: Json = {"text/plain": {"schema": {"type": "string"}}}

_DURATION = {"type": "string", "pattern": r"^\d{1,6}(us|ms|s|m|h|d)$"}
_ETAGS = {"type": "string"}


def document() -> Json:
    """Returns the OpenAPI document as plain values."""
    _, schemas = msgspec.json.schema_components(_STRUCTS, ref_template="#/components/schemas/{name}")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "cachesvc",
            "version": "1",
            "description": "A multi-tier cache. Keys are percent-encoded path segments: write `/` as %2F, "
            "and a key's own ending `:explain` as %3Aexplain.",
        },
        "paths": _paths(),
        "components": {
            "schemas": schemas,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"bearer": []}],
        "x-problem-kinds": {kind.value: _described(kind) for kind in ProblemKind},
    }


def _described(kind: ProblemKind) -> Json:
    described: dict[str, object] = {
        "status": kind.status,
        "title": kind.summary,
        "retryable": kind.retryable,
        "description": kind.advice,
    }
    if (seconds := kind.retry_after_seconds) is not None:
        described["retryAfter"] = seconds
    return described


def _paths() -> Json:
    return {
        "/v1/{namespace}/{key}": {
            "parameters": [_NAMESPACE, _KEY],
            "get": _call(
                "readEntry", "The value, from the nearest tier that has it.", _READ, parameters=_READ_HEADERS
            ),
            "head": _call("headEntry", "As GET, without the value.", _READ, parameters=_READ_HEADERS),
            "put": _call(
                "writeEntry",
                "Store the body as the value.",
                _WRITTEN,
                parameters=_WRITE_HEADERS,
                body=_OCTETS,
            ),
            "post": _call(
                "releaseEntry",
                "Give a lease back without a fill; also one that is not in force any more.",
                _RELEASED,
                parameters=_RELEASE_HEADERS,
            ),
            "delete": _call(
                "invalidateEntry",
                "Invalidate the key in every tier and region.",
                _RECEIPT,
                parameters=[_CALLER, _TIMEOUT],
            ),
        },
        "/v1/{namespace}/{key}:explain": {
            "parameters": [_NAMESPACE, _KEY],
            "get": _call(
                "explainEntry",
                "Where the key lives, what every tier of every region holds of it, which fences touch it, "
                "and what a read with these headers would do now, by which rule. Changes nothing; a server "
                "or instance that does not answer within 50 ms is named.",
                _EXPLAINED,
                parameters=[_SCOPE, *_COPY_HEADERS],
            ),
        },
        "/v1/{namespace}:get": {
            "parameters": [_NAMESPACE],
            "post": _call(
                "getMany",
                "Read many keys.",
                _ok(_of("GotMany")),
                parameters=_BATCH_HEADERS,
                body=_of("GetMany"),
            ),
        },
        "/v1/{namespace}:put": {
            "parameters": [_NAMESPACE],
            "post": _call(
                "putMany",
                "Write many keys.",
                _ok(_of("PutResults")),
                parameters=[_TIMEOUT],
                body=_of("PutMany"),
            ),
        },
        "/v1/invalidations": {
            "post": _call(
                "invalidate",
                "Invalidate keys, tags or a namespace; or, with dry_run, say what that would touch.",
                _INVALIDATED,
                parameters=[_CALLER, _WAIT_TIMEOUT],
                body=_CHANGES,
            )
        },
        "/v1/invalidations/{id}": {
            "parameters": [_RECEIPT_ID],
            "get": _call("receipt", "How far an invalidation has got by now.", _STATE),
        },
        "/v1/fences": {
            "get": _call(
                "fences",
                "What this instance has merged, as endless server-sent events: `fences`, `reset`, and "
                "`heartbeat` at least every 500 ms. For near caches; see clients/PROTOCOL.md.",
                _EVENTS,
                parameters=[_LAST_EVENT_ID],
            )
        },
        "/v1/relay": {
            "get": _call(
                "relay",
                "For other instances, at a relay: the items of a region's fences that follow a position, "
                "as an endless answer in frames of msgpack.",
                _ok({"application/octet-stream": {}}),
                parameters=_RELAYED,
            )
        },
        "/v1/topology": {
            "get": _call(
                "topology",
                "Regions, cells, pools and namespaces, without credentials; `here`: the instance that "
                "answers; `masters`: the addresses that sentinels name.",
                _TOPOLOGY,
            )
        },
        "/v1/hotkeys": {
            "get": _call(
                "hotKeys",
                "The keys that this instance was asked for most in the last minute or two, and the largest "
                "values.",
                _HOT_KEYS,
                parameters=[_NAMESPACE_QUERY, _DEBUG],
            )
        },
        "/v1/audit": {
            "get": _call(
                "audit",
                "What callers of this instance changed and were refused; the newest first.",
                _ok({JSON: {"schema": {"$ref": "#/components/schemas/AuditPage"}}}),
                parameters=_AUDIT_FILTERS,
            )
        },
        "/livez": {"get": _call("livez", "The process runs.", _ok(_TEXT))},
        "/readyz": {"get": _call("readyz", "It may be sent requests.", _READY, parameters=[_VERBOSE])},
        "/metrics": {
            "get": _call(
                "metrics", "Prometheus text, or OpenMetrics by Accept.", _ok({**_TEXT, **_OPENMETRICS})
            )
        },
        "/openapi.json": {"get": _call("openapi", "This document.", _DOCUMENT)},
    }


def _call(
    name: str, summary: str, responses: Json, *, parameters: Sequence[Json] = (), body: Json | None = None
) -> dict[str, object]:
    call: dict[str, object] = {
        "operationId": name,
        "summary": summary,
        "responses": {**responses, "default": _PROBLEM},
    }
    if parameters:
        call["parameters"] = list(parameters)
    if body is not None:
        call["requestBody"] = {"required": True, "content": body}
    return call


def _ok(content: Json) -> Json:
    return {"200": {"description": "Done.", "content": content}}


def _of(name: str) -> Json:
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {JSON: {"schema": schema}, MSGPACK: {"schema": schema}}


def _header(name: str, description: str, schema: Json | None = None) -> Json:
    return {"name": name, "in": "header", "description": description, "schema": schema or {"type": "string"}}


def _query(name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema}


_OPENMETRICS: Json = {"application/openmetrics-text": {"schema": {"type": "string"}}}
_PROBLEM_CONTENT: Json = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
_PROBLEM: Json = {
    "description": "A problem (RFC 9457). The last segment of its `type` is one of `x-problem-kinds`.",
    "content": _PROBLEM_CONTENT,
}


def _problems(*kinds: ProblemKind) -> dict[str, Json]:
    """Returns a response for each status of the kinds, which names them with their titles."""
    told: dict[str, list[str]] = {}
    for kind in kinds:
        told.setdefault(str(kind.status), []).append(f"`{kind.value}`: {kind.summary}.")
    return {
        status: {"description": " ".join(lines), "content": _PROBLEM_CONTENT}
        for status, lines in told.items()
    }


_DOCUMENT = _ok(_ANY_OBJECT)
_EXPLAINED: Json = {
    **_ok(
        {
            JSON: {
                "schema": {
                    "anyOf": [
                        {"$ref": "#/components/schemas/Explanation"},
                        {"$ref": "#/components/schemas/Seen"},
                    ]
                }
            }
        }
    ),
    **_problems(ProblemKind.OVERLOADED),
}
_HERE = {
    "type": "object",
    "required": ["region", "instance"],
    "properties": {"region": {"type": "string"}, "instance": {"type": "string"}},
}
_TOPOLOGY = _ok({JSON: {"schema": {"type": "object", "required": ["here"], "properties": {"here": _HERE}}}})
_RECEIPT = _ok({JSON: {"schema": {"$ref": "#/components/schemas/InvalidationReceipt"}}})
_INVALIDATED: Json = {
    "200": {
        "description": "Done, as far as `wait` asked for; or the estimate of a dry run.",
        "content": {
            JSON: {
                "schema": {
                    "anyOf": [
                        {"$ref": "#/components/schemas/InvalidationReceipt"},
                        {"$ref": "#/components/schemas/Estimate"},
                    ]
                }
            }
        },
    },
    "202": {
        "description": "Its fence is out, and the instances in `missing` had not merged it at the deadline; or it "
        "is not `announced`: the instance keeps it until the region's queue is back.",
        "content": {JSON: {"schema": {"$ref": "#/components/schemas/InvalidationReceipt"}}},
    },
}
_STATE: Json = {
    **_ok({JSON: {"schema": {"$ref": "#/components/schemas/ReceiptState"}}}),
    **_problems(ProblemKind.NO_SUCH_RECEIPT),
}
_EVENTS: Json = {
    **_ok({"text/event-stream": {"schema": {"type": "string"}}}),
    **_problems(ProblemKind.TOO_MANY_SUBSCRIBERS, ProblemKind.STOPPING),
}
_READ: Json = {
    "200": {
        "description": "The value. `Cache-Status` says which tier had it.",
        "headers": {
            "Cache-Status": {"schema": {"type": "string"}},
            "Age": {"schema": {"type": "integer"}},
            "ETag": {"schema": {"type": "string"}},
            "Cache-Control": {"schema": {"type": "string"}},
            "Vary": {"schema": {"type": "string"}},
            "Server-Timing": {"schema": {"type": "string"}},
        },
        "content": _OCTETS,
    },
    "304": {"description": "`If-None-Match` has its ETag."},
    **_problems(
        ProblemKind.CACHE_MISS,
        ProblemKind.KNOWN_ABSENT,
        ProblemKind.NO_SUCH_NAMESPACE,
        ProblemKind.PRECONDITION_FAILED,
        ProblemKind.ORIGIN_FAILED,
        ProblemKind.ORIGIN_REFUSED,
        ProblemKind.ORIGIN_LIMITED,
        ProblemKind.ORIGIN_BUSY,
        ProblemKind.OVERLOADED,
        ProblemKind.OVERTAKEN,
        ProblemKind.NOT_CACHED,
        ProblemKind.DEADLINE,
        ProblemKind.ORIGIN_TIMEOUT,
    ),
}
_WRITTEN: Json = {
    "202": {
        "description": "Stored; the instance keeps its fence until the region's queue is back.",
        "content": {JSON: {"schema": {"$ref": "#/components/schemas/InvalidationReceipt"}}},
    },
    "204": {
        "description": "Stored.",
        "headers": {
            "Cachesvc-Token": {"schema": {"type": "string"}},
            "Server-Timing": {"schema": {"type": "string"}},
        },
    },
    **_problems(
        ProblemKind.FENCED,
        ProblemKind.PRECONDITION_FAILED,
        ProblemKind.VALUE_TOO_LARGE,
        ProblemKind.BODY_TIMEOUT,
        ProblemKind.BODY_TOO_LARGE,
        ProblemKind.HOME_UNAVAILABLE,
        ProblemKind.QUEUE_UNAVAILABLE,
        ProblemKind.FENCE_NOT_PUBLISHED,
        ProblemKind.OVERLOADED,
    ),
}
_RELEASED: Json = {
    "204": {"description": "The lease is not in force any more."},
    **_problems(ProblemKind.BAD_LEASE, ProblemKind.BAD_HEADER, ProblemKind.HOME_UNAVAILABLE),
}
_HOT_KEYS: Json = {
    **_ok({JSON: {"schema": {"$ref": "#/components/schemas/HotKeys"}}}),
    **_problems(ProblemKind.NO_DEBUG, ProblemKind.NO_SUCH_NAMESPACE),
}
_READY: Json = {
    "200": {"description": "Ready.", "content": {**_TEXT, **_ANY_OBJECT}},
    "503": {"description": "Not ready.", "content": {**_TEXT, **_ANY_OBJECT, **_PROBLEM_CONTENT}},
}
_NAMESPACE: Json = {
    "name": "namespace",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": f"^{NAMESPACE_NAME.pattern}$"},
}
_KEY: Json = {
    "name": "key",
    "in": "path",
    "required": True,
    "description": f"1 to {MAX_KEY_BYTES} bytes of UTF-8 without control characters.",
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_KEY_BYTES},
}
_NAMESPACE_QUERY: Json = {**_NAMESPACE, "in": "query"}
_DEBUG = _header(
    "Cachesvc-Debug", "The instance's telemetry.debug_token: key text is shown, and not only digests."
)
_RECEIPT_ID: Json = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "As a receipt says it.",
    "schema": {"type": "string", "pattern": f"^{RECEIPT_ID.pattern}$"},
}
_AUDIT_FILTERS: Sequence[Json] = (
    _query("namespace", "Only records of this namespace.", {"type": "string"}),
    _query("identity", "Only records of this proved identity.", {"type": "string"}),
    _query("since", "How far back, such as 5m.", _DURATION),
    _query("limit", "The most records.", {"type": "integer", "minimum": 1, "maximum": MOST_RECORDS}),
)
_RELAYED: Sequence[Json] = (
    {**_query("region", "The region whose fences are asked for.", {"type": "string"}), "required": True},
    {
        **_query("after", "The position that the items are to follow.", {"type": "string"}),
        "required": True,
    },
)
_VERBOSE: Json = {
    "name": "verbose",
    "in": "query",
    "description": "Give the reasons, as JSON.",
    "allowEmptyValue": True,
    "schema": {"type": "string", "enum": [""]},
}
_SCOPE: Json = {
    "name": "scope",
    "in": "query",
    "description": "Only what the instance that is asked sees (`Seen`): how instances ask each other.",
    "schema": {"type": "string", "enum": ["instance"]},
}
_TIMEOUT = _header("Cachesvc-Timeout", "How long the caller will wait, such as 250ms.", _DURATION)
_WAIT_TIMEOUT = _header(
    "Cachesvc-Timeout", "How long the caller will wait; with `wait`, 5s if it is not said.", _DURATION
)
_CALLER = _header(
    "Cachesvc-Caller",
    "Who does this, for the audit.",
    {"type": "string", "minLength": 1, "maxLength": MAX_CALLER_LENGTH},
)
_LAST_EVENT_ID = _header(
    "Last-Event-ID",
    "Resume after this event, of whichever instance; if that cannot be, a reset comes first: so if this "
    "instance reads another server of a region's queue than the one that the id names.",
)
_COPY_HEADERS = (
    _header("Cache-Control", "no-cache, no-store, max-age, max-stale, min-fresh, only-if-cached"),
    _header("Cachesvc-Token", "A token of a write: nothing older is answered."),
    _header("Cachesvc-Max-Lag", "The longest staleness bound that is accepted, such as 500ms.", _DURATION),
)
_BATCH_HEADERS = (*_COPY_HEADERS, _TIMEOUT)
_READ_HEADERS = (
    *_BATCH_HEADERS,
    _header("If-None-Match", "ETags: 304 if the value has one of them.", _ETAGS),
    _header("If-Match", "ETags: 412 if the value has none of them.", _ETAGS),
    _header("Prefer", "`lease` and `wait=N`: on a miss, grant one caller the lease to fill."),
)
_RELEASE_HEADERS = (
    _header("Cachesvc-Lease", "The lease token, as a miss was answered with it."),
    _header(
        "Cachesvc-Release",
        "`failed`: the load brought no value. `unkept`: the value cannot be kept.",
        {"type": "string", "enum": [reason.value for reason in Release]},
    ),
    _TIMEOUT,
)
_WRITE_HEADERS = (
    _header("Cache-Control", "max-age, stale-while-revalidate, stale-if-error"),
    _header("Cache-Groups", "Tags (RFC 9875): quoted strings."),
    _header("Cachesvc-Lease", "Fill under this lease."),
    _header(
        "Cachesvc-Source-Lag",
        "With a lease: how far the source of the value may have been behind its commits, at most 60s.",
        _DURATION,
    ),
    _header("If-None-Match", "`*`: only if there is none.", _ETAGS),
    _header("If-Match", "ETags: only over one of these.", _ETAGS),
    _TIMEOUT,
)
_CHANGES: Json = {
    **_of("Invalidation"),
    CLOUDEVENT: {"schema": {"$ref": "#/components/schemas/ChangeEvent"}},
}
