"""The faults that a test asks the fake service for."""

import time
from collections import deque
from typing import TypeAlias

import msgspec
from msgspec import Struct

from cachesvc_client.protocol.wire import MSGPACK
from cachesvc_client.testing.http import Refused, Request, Response
from cachesvc_client.values.durations import Duration, seconds_of


class Dropped(Exception):  # noqa: N818  what happens to a request
    """The connection of a request breaks, or could not be made."""


class TooLate(Exception):  # noqa: N818  what happens to a request
    """The answer would come after the caller's deadline."""


class Failing(Struct, frozen=True):
    """A fault: the request is answered with a problem."""

    kind: str
    status: int
    retryable: bool
    retry_after: int | None

    def response(self, request: Request) -> Response:
        """Returns the problem as the answer to `request`."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return Refused(self.status, self.kind, "as the test asked", retryable=self.retryable).response(
            request, headers
        )


Fault: TypeAlias = Failing | Response | Dropped


class Faults:
    """The script of faults: each request takes the first fault that is meant for it."""

    def __init__(self) -> None:
        self._script: deque[tuple[str, Fault]] = deque()
        self._is_down = False
        self._delay = 0.0
        self._there_at: dict[str, float] = {}
        """Keys that were late for a batch, with the real time from which on they are there."""

    def add(self, fault: Fault, count: int, on: str) -> None:
        """Appends the fault `count` times, for requests whose method and target contain `on`."""
        self._script.extend([(on, fault)] * count)

    def down(self, is_down: bool) -> None:
        """Makes the service unreachable, or reachable again."""
        self._is_down = is_down

    def delay(self, by: Duration) -> None:
        """Lets every answer seem to take so long."""
        self._delay = seconds_of(by, "by")
        self._there_at.clear()

    def take(self, request: Request, timeout: float | None) -> Response | None:
        """Returns the answer of the request's fault, None if it has none.

        `timeout` is the request's `Cachesvc-Timeout` in seconds. Raises `Dropped` or `TooLate`.
        """
        if timeout is not None and self._delay > timeout:
            keys = self._keys_in_turns(request)
            if not keys:
                raise TooLate
            if self._are_late(keys, timeout):
                return _late(request, len(keys))
        for nth, (on, fault) in enumerate(self._script):
            if on in f"{request.method} {request.target}":
                del self._script[nth]
                return self._happen(fault, request)
        return None

    def _keys_in_turns(self, request: Request) -> list[str]:
        """Returns the keys of a read that is sent in turns, empty if it is not one.

        The timeout of such a read is shorter than its callers' time. It is a read of several keys, or
        of keys that were late in such a read.
        """
        document = request.document if request.target.endswith(":get") else None
        if not isinstance(document, dict) or document.get("lease"):
            return []
        keys: list[str] = document.get("keys", [])
        return keys if len(keys) > 1 or all(key in self._there_at for key in keys) else []

    def _are_late(self, keys: list[str], timeout: float) -> bool:
        """True if the keys will not be there within `timeout`.

        A key is there when the delay has passed since it was first asked for. The real clock
        counts, because callers wait by it.
        """
        now = time.monotonic()
        if max(self._there_at.setdefault(key, now + self._delay) for key in keys) > now + timeout:
            return True
        for key in keys:
            self._there_at.pop(key, None)
        return False

    def check_reach(self) -> None:
        """Raises `Dropped` while the service is down."""
        if self._is_down:
            raise Dropped("the service is down, as the test asked")

    @staticmethod
    def _happen(fault: Fault, request: Request) -> Response:
        if isinstance(fault, Dropped):
            raise fault
        return fault.response(request) if isinstance(fault, Failing) else fault


def _late(request: Request, count: int) -> Response:
    """Returns the answer at the end of a turn: each key is late."""
    problem = Refused(504, "deadline", "it takes so long, as the test asked", retryable=True).document()
    encode = msgspec.msgpack.encode if request.media_type == MSGPACK else msgspec.json.encode
    results = [{"outcome": "error", "problem": problem}] * count
    return Response(200, {"Content-Type": request.media_type}, encode({"results": results}))
