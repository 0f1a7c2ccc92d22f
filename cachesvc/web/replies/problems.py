"""RFC 9457 problem documents: the body of every answer that is an error, and of a miss."""

import os
import re
from http import HTTPStatus

import msgspec
from multidict import CIMultiDictProxy

from cachesvc.model.errors import RequestError
from cachesvc.web.messages import Problem
from cachesvc.web.replies.reply import Reply
from cachesvc.web.requests.tokens import write_token

TYPE_PREFIX = "https://cachesvc.dev/problems/"

_TITLES = {
    "bad-body": "The body cannot be read",
    "bad-cache-control": "Cache-Control is out of rule",
    "bad-caller": "The caller's name is out of rule",
    "bad-escape": "A percent-escape is malformed",
    "bad-header": "A header is out of rule",
    "bad-key": "The key is out of rule",
    "bad-lease": "The lease token is malformed",
    "bad-query": "There is a query where none belongs",
    "bad-receipt": "The id of the receipt is malformed",
    "bad-request": "The request is malformed",
    "bad-tag": "A tag is out of rule",
    "bad-token": "The token is malformed",
    "body-too-large": "The body is too large",
    "cache-miss": "Not cached",
    "confirm-needed": "The purge of a whole namespace needs a confirmation",
    "content-encoding": "Encoded bodies are not taken",
    "content-type": "The content type is not taken here",
    "contradiction": "Two parts of the request contradict each other",
    "deadline": "Not done in time",
    "expectation": "The expectation cannot be met",
    "fenced": "The lease was voided",
    "internal": "The service failed",
    "invalid-body": "The body does not fit its schema",
    "known-absent": "Known to be absent",
    "load-failed": "The value could not be loaded",
    "method": "The method is not allowed here",
    "no-debug": "Key text is not shown",
    "no-such-namespace": "No such namespace",
    "no-such-path": "No such path",
    "no-such-receipt": "No such receipt",
    "no-target": "Nothing to invalidate",
    "not-cached": "Not cached, and only the cache was asked",
    "overloaded": "Too much to do",
    "precondition-failed": "The precondition does not hold",
    "stopping": "The instance stops",
    "too-many-keys": "Too many keys",
    "too-many-subscribers": "Too many subscribers",
    "value-too-large": "The value is too large",
}
UNEXPLAINED = RequestError(502, "load-failed", "the value could not be loaded", retryable=True)
"""For an answer that failed without a reason."""

_TRY_LATER = (429, 503)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._~+/=:@-]{1,128}").fullmatch
_encode = msgspec.json.Encoder().encode


def request_id_of(headers: CIMultiDictProxy[str]) -> str:
    """The caller's request id if it is a plain word, else empty."""
    given = headers.get("X-Request-Id", "")
    return given if _REQUEST_ID(given) else ""


def problem_of(error: RequestError, request_id: str = "") -> Problem:
    return Problem(
        type=TYPE_PREFIX + error.kind,
        title=_TITLES.get(error.kind) or _phrase(error.status),
        status=error.status,
        detail=error.detail,
        retryable=error.retryable,
        field=error.field or "",
        request_id=request_id,
    )


def problem_reply(error: RequestError, request_id: str, *, lines: bytes = b"", outcome: str = "") -> Reply:
    """The reply of a failed request. `lines`: further complete header lines."""
    request_id = request_id or os.urandom(12).hex()
    body = _encode(problem_of(error, request_id))
    head = (
        f"HTTP/1.1 {error.status} {_phrase(error.status)}\r\nContent-Type: application/problem+json\r\n"
        f"Content-Length: {len(body)}\r\n"
    )
    if error.retry_after is not None or error.status in _TRY_LATER:
        head += f"Retry-After: {error.retry_after or 1}\r\n"
    if error.token:
        head += f"Cachesvc-Token: {write_token(error.token)}\r\n"
    reply = Reply(error.status, head.encode("latin-1") + lines, body, outcome=outcome or outcome_of(error))
    reply.request_id = request_id
    reply.problem = error.kind
    return reply


def outcome_of(error: RequestError) -> str:
    """`refused`: the caller's fault. `failed`: ours, or that of what stands behind us."""
    return "refused" if error.status < 500 else "failed"


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
