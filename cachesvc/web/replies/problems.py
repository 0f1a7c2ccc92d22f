"""RFC 9457 problem documents: the body of every answer that is an error, and of a miss."""

import os
import re
from http import HTTPStatus

import msgspec
from multidict import CIMultiDictProxy

from cachesvc.model.errors import RequestError
from cachesvc.model.problems import ProblemKind
from cachesvc.web.messages import Problem
from cachesvc.web.replies.reply import Reply
from cachesvc.web.requests.tokens import token_line, write_token

TYPE_PREFIX = "https://cachesvc.dev/problems/"

UNEXPLAINED = RequestError(ProblemKind.LOAD_FAILED, "the value could not be loaded")
"""The problem of an answer that failed without a reason."""

_CHALLENGES = {
    ProblemKind.NO_IDENTITY: 'WWW-Authenticate: Bearer realm="cachesvc"\r\n',
    ProblemKind.UNKNOWN_IDENTITY: 'WWW-Authenticate: Bearer realm="cachesvc", error="invalid_token"\r\n',
}
"""The line that a 401 has (RFC 6750, 3)."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._~+/=:@-]{1,128}").fullmatch
_encode = msgspec.json.Encoder().encode


def request_id_of(headers: CIMultiDictProxy[str]) -> str:
    """Returns the caller's request id if it is a plain word, else the empty text."""
    given = headers.get("X-Request-Id", "")
    return given if _REQUEST_ID(given) else ""


def problem_of(error: RequestError, request_id: str = "") -> Problem:
    return Problem(
        type=TYPE_PREFIX + error.kind.value,
        title=error.kind.summary,
        status=error.status,
        detail=error.detail,
        retryable=error.retryable,
        field=error.field or "",
        request_id=request_id,
        token=write_token(error.token),
        retry_after=error.retry_after or 0,
        scope=error.scope,
        identity=error.identity,
    )


def problem_reply(error: RequestError, request_id: str, *, lines: bytes = b"", outcome: str = "") -> Reply:
    """Returns the reply to a failed request; `lines` are further complete header lines.

    No cache may keep it, unless `lines` say otherwise. Without a request id the problem gets a new,
    random one.
    """
    request_id = request_id or os.urandom(12).hex()
    body = _encode(problem_of(error, request_id))
    head = (
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n"
        f"Content-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n"
    )
    if (seconds := error.retry_after_seconds) is not None:
        head += f"Retry-After: {seconds}\r\n"
    head += _CHALLENGES.get(error.kind, "") + token_line(error.token)
    if b"Cache-Control: " not in lines:  # a 404 or 405 may be kept by any cache that guesses a lifetime
        head += "Cache-Control: no-store\r\n"
    reply = Reply(
        error.status, head.encode("latin-1") + error.lines + lines, body, outcome=outcome or outcome_of(error)
    )
    reply.request_id = request_id
    reply.problem = error.kind.value
    return reply


HURRIED, LEFT, STOPPED = "hurried", "left", "stopped"
"""The outcomes of requests that their callers ended; they are no failures of this service.

A deadline that was shorter than the time in which an answer is promised; a peer that had gone when
it was answered; a body that did not come to its end."""

_ORIGIN_ANSWERS = (ProblemKind.ORIGIN_REFUSED, ProblemKind.ORIGIN_LIMITED)


def outcome_of(error: RequestError) -> str:
    """Returns `refused` if the caller is at fault (4xx) or the origin refuses, else `failed`.

    A refusal of the origin is its answer: it does not count as a failure of this service.
    """
    return "refused" if error.status < 500 or error.kind in _ORIGIN_ANSWERS else "failed"
