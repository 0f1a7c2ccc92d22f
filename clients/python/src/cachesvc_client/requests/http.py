"""Requests as they are sent, replies as they arrive, and the errors that these stand for."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import msgspec
from yarl import URL

from cachesvc_client.errors import CacheError, ForbiddenError, UnauthenticatedError
from cachesvc_client.instances.endpoints import Endpoint
from cachesvc_client.protocol.wire import PROBLEM_TYPES, Problem
from cachesvc_client.values.durations import header_of

_problem = msgspec.json.Decoder(Problem)
_CLASSES: Mapping[int, type[CacheError]] = {401: UnauthenticatedError, 403: ForbiddenError}


class Request(NamedTuple):
    """One request of a client, to whichever instance it is sent."""

    method: str
    path: str
    """Percent-encoded."""
    body: bytes | None = None
    headers: Mapping[str, str] = {}
    is_repeatable: bool = True
    """True if asking twice has the effect of asking once, even if both were answered.

    Such a request may be retried after a failure that passes. A request that may have granted or
    used up a lease, or that has a condition, is not: it is only sent anew if no answer came at all.
    """
    is_fixed: bool = False
    """True if the path is one of few, so that the URL made of it is worth keeping."""
    turn: float = math.inf
    """Seconds after which the service answers with what is there (protocol/turns.py)."""
    tries: int = 1
    """The instances that may be asked, one after the other, if they leave it unanswered.

    Each has an equal share of the time, is told that share, and so answers within it if it is well.
    Only for requests of which one that was given up does no harm, however late an instance that was
    hung acts on it: reads, invalidations, fills and releases (their lease decides). A write without a
    lease could put back the value before a newer write.
    """
    operation: str = ""
    """The name of the request's span; a request without one has no span."""
    items: int = 1

    def url_at(self, endpoint: Endpoint) -> URL:
        return endpoint.fixed_url(self.path) if self.is_fixed else endpoint.url(self.path)

    def timeout_header(self, seconds_left: float) -> str:
        """The value of `Cachesvc-Timeout` for a caller that waits this long."""
        return header_of(min(self.turn, told(seconds_left)))

    def staying(self) -> Self:
        """The request, for one instance that has all the time left."""
        return self._replace(tries=1, turn=math.inf)

    def not_answered(self, asked: Sequence[Endpoint]) -> CacheError:
        """The error if no answer came in time from the instances that were asked."""
        whom = ", ".join(str(endpoint.base) for endpoint in asked)
        return CacheError("deadline", f"no answer to {self._name} in time from {whom}", retryable=True)

    def not_taken(self, failure: Exception | None) -> CacheError:
        """The error if no instance could be reached; `failure` is that of the last try."""
        return CacheError("unreachable", f"no instance took {self._name}: {failure}", retryable=True)

    @property
    def _name(self) -> str:
        return f"{self.method} {self.path[:200]}"


class Reply(NamedTuple):
    """The answer of one instance."""

    status: int
    headers: Mapping[str, str]
    """Looked up by names in any case."""
    body: bytes
    endpoint: Endpoint | None = None
    """The instance that gave it."""
    seconds: float = 0.0
    """The time until it began, since the request was sent."""
    is_moved: bool = False
    """True if another instance was asked before, and left the request unanswered.

    That one may have acted on it: a lease that it granted is held by nobody.
    """
    is_share: bool = False
    """True if the instance was told a share of the time, so that late is not the last word."""


def says_it_stops(headers: Mapping[str, str]) -> bool:
    """True if the answer with these headers is one of an instance that is about to stop."""
    return "Cachesvc-Stopping" in headers


def problem_error(reply: Reply) -> CacheError:
    """The error that a reply other than 2xx stands for."""
    try:
        problem = _problem.decode(reply.body)
    except msgspec.MsgspecError:
        problem = Problem(
            detail=f"status {reply.status} without a problem document", retryable=reply.status >= 500
        )
    error = error_of(problem, reply.status)
    if (seconds := _seconds_or_none(reply.headers.get("Retry-After"))) is not None:
        error.retry_after = seconds
    error.request_id = problem.request_id or reply.headers.get("X-Request-Id", "")
    return error


def passing_failure(reply: Reply) -> CacheError | None:
    """The failure that a reply stands for, if it may pass.

    A miss says `retryable` as well, and is no failure.
    """
    return problem_error(reply) if reply.status == 429 or reply.status >= 500 else None


def is_late_reply(reply: Reply) -> bool:
    """True if the key of a read was not there at the end of the time that was told."""
    return reply.status == 504 and problem_error(reply).type == "deadline"


def error_of(problem: Problem | None, status: int = 0) -> CacheError:
    """The error that a problem document stands for."""
    problem = problem or Problem(detail="an error without a problem document", status=500)
    error = _CLASSES.get(status or problem.status, CacheError)(
        problem.type.removeprefix(PROBLEM_TYPES) or "bad-answer",
        problem.detail or problem.title,
        status=status or problem.status,
        retryable=problem.retryable,
        retry_after=problem.retry_after or None,
        request_id=problem.request_id,
        field=problem.field,
    )
    if isinstance(error, ForbiddenError):
        error.scope, error.identity = problem.scope, problem.identity
    return error


def told(seconds: float) -> float:
    """The time that the service is told, of the seconds left.

    It is a little less, so that a partial answer still arrives in time.
    """
    return max(seconds * 0.9, seconds - 0.05)


def _seconds_or_none(text: str | None) -> float | None:
    return float(text) if text is not None and text.isascii() and text.isdigit() else None
