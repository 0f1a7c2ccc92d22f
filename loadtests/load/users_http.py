"""Users that are plain HTTP clients: a reader, a reader of 100 keys at once, a writer.

An instance is chosen for each request, as a load balancer would. If a connection breaks, the
request is made once more at another instance, and its latency covers both attempts. All requests
here may be repeated safely.
"""

from time import monotonic
from typing import Any
from urllib.parse import quote

import msgspec
from locust import FastHttpUser
from locust.contrib.fasthttp import ResponseContextManager

from loadtests.documents import OtherBytesError
from loadtests.load.answers import Read, answered_by, lag_of
from loadtests.load.arrivals import Turn
from loadtests.load.changes import ChangeError
from loadtests.load.users import TOO_LATE, UnansweredError, Visitor

MSGPACK = "application/msgpack"
BULK_KEYS = 100


class _Problem(msgspec.Struct):
    type: str = ""

    @property
    def kind(self) -> str:
        return self.type.rpartition("/")[2]


class _Got(msgspec.Struct):
    outcome: str
    value: bytes = b""
    tier: str = ""


class _GotMany(msgspec.Struct):
    results: list[_Got]
    lag: float | None = None


_got_many = msgspec.msgpack.Decoder(_GotMany).decode


class HttpVisitor(Visitor, FastHttpUser):
    """A user that makes HTTP requests."""

    abstract = True
    max_retries = 0  # with retries of locust's own, the caller's wait would begin anew each time

    def exchange(self, turn: Turn, path: str, **request: Any) -> ResponseContextManager:
        """The answer to a request, or its failure.

        If the first attempt meets a broken connection, this is the answer to the second attempt.
        """
        first = self._attempt(turn, path, request)
        if first.status_code or isinstance(broken_by(first), TimeoutError) or self._lateness_of(first):
            return first
        self.shared.recorder.failover()
        second = self._attempt(turn, path, request)
        second.request_meta["response_time"] += first.request_meta["response_time"] - turn.lateness * 1e3
        return second

    def _check_time(self, answer: ResponseContextManager) -> None:
        if late := self._lateness_of(answer):
            raise late

    def _lateness_of(self, answer: ResponseContextManager) -> UnansweredError | None:
        return self.too_late(answer.request_meta["response_time"] / 1e3)

    def _attempt(self, turn: Turn, path: str, request: dict[str, Any]) -> ResponseContextManager:
        """Makes one attempt. It is reported only when the answer is left as a context manager."""
        instance = self.shared.balancer.pick()
        method, name = self.route
        answer = self.client.request(
            method, instance + path, name=name, catch_response=True, context={"turn": turn}, **request
        )
        answer.request_meta["response_time"] += turn.lateness * 1e3
        if not answer.status_code:
            self.shared.balancer.broke(instance)
        return answer


class HttpReader(HttpVisitor):
    """Reads one key after the other."""

    abstract = True
    kind = "http"
    route = ("GET", "/v1/{ns}/{key}")

    def ask(self, turn: Turn) -> None:
        """Reads one key, judges the answer, and records it."""
        key, asked_at = self.shared.key(), monotonic()
        with self.exchange(turn, f"/v1/{self.shared.settings.namespace}/{quote(key, safe='')}") as answer:
            try:
                self._check_time(answer)
                read = self._read(key, answer, asked_at)
            except (UnansweredError, OtherBytesError) as error:
                answer.failure(error)
            else:
                answer.success()
                self.shared.recorder.reads([read], lag_of(header(answer, "Cachesvc-Lag")))

    def _read(self, key: str, answer: ResponseContextManager, asked_at: float) -> Read:
        """The read that the answer describes: a miss is an answer, a failure is an exception."""
        if answer.status_code == 404 and problem_of(answer).kind in ("cache-miss", "known-absent"):
            return Read("miss")
        if answer.status_code != 200:
            raise refusal(answer)
        return self.judged(key, answer.content, answered_by(header(answer, "Cache-Status")), asked_at)


class BulkReader(HttpVisitor):
    """Reads 100 keys in one request.

    A key that failed counts as a read that `error` answered; the request fails if all its keys
    failed.
    """

    abstract = True
    kind = "bulk"
    route = ("POST", "/v1/{ns}:get")

    def ask(self, turn: Turn) -> None:
        """Reads a batch, judges the answers, and records them."""
        keys, asked_at = self.shared.keys(BULK_KEYS), monotonic()
        headers = {"Content-Type": MSGPACK, "Accept": MSGPACK}
        body = msgspec.msgpack.encode({"keys": keys})
        path = f"/v1/{self.shared.settings.namespace}:get"
        with self.exchange(turn, path, data=body, headers=headers) as answer:
            try:
                self._check_time(answer)
                got = self._got(answer)
                reads = [self._read(key, one, asked_at) for key, one in zip(keys, got.results, strict=True)]
            except (UnansweredError, OtherBytesError) as error:
                answer.failure(error)
            else:
                answer.success()
                self.shared.recorder.reads(reads, got.lag)

    def _got(self, answer: ResponseContextManager) -> _GotMany:
        if answer.status_code != 200:
            raise refusal(answer)
        got = _got_many(answer.content)
        if all(one.outcome == "error" for one in got.results):
            raise UnansweredError("every key of a batch failed")
        return got

    def _read(self, key: str, got: _Got, asked_at: float) -> Read:
        if got.outcome == "error":
            return Read("error")
        if got.outcome in ("miss", "absent"):
            return Read("miss")
        tier = got.tier if got.outcome in ("hit", "stale") else "origin"
        return self.judged(key, got.value, (tier, got.outcome == "stale"), asked_at)


class Writer(HttpVisitor):
    """Changes a document at the origin, then invalidates it. Only the invalidation is timed."""

    abstract = True
    kind = "writer"
    route = ("POST", "/v1/invalidations")

    def ask(self, turn: Turn) -> None:
        """Changes a document and makes the invalidation."""
        key = self.shared.key()
        try:
            version = self.shared.changes.change(key)
        except ChangeError as error:
            self.report(turn, 0.0, UnansweredError(str(error)))
            return
        asked = {"namespace": self.shared.settings.namespace, "keys": [key]}
        with self.exchange(turn, "/v1/invalidations", json=asked) as answer:
            if answer.status_code not in (200, 202):
                answer.failure(refusal(answer))
                return
            # The invalidation was accepted now at the latest, however late that is.
            self.shared.versions.written(key, version)
            late = self._lateness_of(answer)
            answer.failure(late) if late else answer.success()


def refusal(answer: ResponseContextManager) -> UnansweredError:
    """The failure of a request without a usable answer."""
    if answer.status_code:
        return UnansweredError(f"{answer.status_code} {problem_of(answer).kind}".rstrip())
    broken = getattr(broken_by(answer), "original", None) or broken_by(answer)
    return UnansweredError(TOO_LATE if isinstance(broken, TimeoutError) else type(broken).__name__)


def broken_by(answer: ResponseContextManager) -> BaseException | None:
    """The error that locust met instead of an answer."""
    error: BaseException | None = getattr(answer, "error", None)
    return error


def problem_of(answer: ResponseContextManager) -> _Problem:
    """The problem in the answer's body; an empty one if the body is none."""
    try:
        return msgspec.json.decode(answer.content, type=_Problem)
    except msgspec.MsgspecError:
        return _Problem()


def header(answer: ResponseContextManager, name: str) -> str:
    """The header's value; empty if the answer has no such header."""
    return str(answer.headers.get(name, "")) if answer.headers is not None else ""
