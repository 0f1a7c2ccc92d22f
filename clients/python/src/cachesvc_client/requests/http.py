"""A request as it is sent, a reply as it arrives, and the error that a reply stands for; no I/O."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from cachesvc_client.errors import CacheError
from cachesvc_client.protocol.wire import PROBLEM_TYPES, Problem

_problem = msgspec.json.Decoder(Problem)


class Request(NamedTuple):
    method: str
    path: str
    """Percent-encoded."""
    body: bytes | None = None
    headers: Mapping[str, str] = {}
    is_repeatable: bool = True
    """Asking twice has the effect of asking once, also when it was answered: it may be retried after a failure that passes.

    Not so: what may have granted or used up a lease, and what has a condition. Those are only sent anew if no answer came at all.
    """
    is_fixed: bool = False
    """The path is one of few: what is made of it is worth keeping."""
    turn: float = math.inf
    """Seconds after which the service is to answer with what is there, if that is before the deadline (turns.py)."""
    operation: str = ""
    """What its span is called; without one it has none."""
    items: int = 1


class Reply(NamedTuple):
    status: int
    headers: Mapping[str, str]
    """Names in any case."""
    body: bytes


def problem_error(reply: Reply) -> CacheError:
    """The error that a reply other than 2xx stands for."""
    try:
        problem = _problem.decode(reply.body)
    except msgspec.MsgspecError:
        problem = Problem(
            detail=f"status {reply.status} without a problem document", retryable=reply.status >= 500
        )
    error = error_of(problem, reply.status)
    error.retry_after = _seconds_or_none(reply.headers.get("Retry-After"))
    error.request_id = problem.request_id or reply.headers.get("X-Request-Id", "")
    return error


def passing_failure(reply: Reply) -> CacheError | None:
    """What may be retried after a pause, if the reply says so. A miss says `retryable` as well, and is none."""
    return problem_error(reply) if reply.status == 429 or reply.status >= 500 else None


def error_of(problem: Problem | None, status: int = 0) -> CacheError:
    problem = problem or Problem(detail="an error without a problem document", status=500)
    return CacheError(
        problem.type.removeprefix(PROBLEM_TYPES) or "bad-answer",
        problem.detail or problem.title,
        status=status or problem.status,
        retryable=problem.retryable,
        request_id=problem.request_id,
        field=problem.field,
    )


def told(seconds: float) -> float:
    """What the service is told of the time that is left: a little less, so that its partial answer still arrives in time."""
    return max(seconds * 0.9, seconds - 0.05)


def _seconds_or_none(text: str | None) -> float | None:
    return float(text) if text is not None and text.isascii() and text.isdigit() else None
