"""What the fake service is told to get wrong."""

from collections import deque
from typing import TypeAlias

from msgspec import Struct

from cachesvc_client.durations import Duration, seconds_of
from cachesvc_client.testing.http import Refused, Request, Response


class Dropped(Exception):  # noqa: N818  what happens to a request
    """The connection breaks, or there was none."""


class TooLate(Exception):  # noqa: N818  what happens to a request
    """The answer would come after the caller's time."""


class Failing(Struct, frozen=True):
    """A request is answered with a problem."""

    kind: str
    status: int
    retryable: bool
    retry_after: int | None

    def response(self, request: Request) -> Response:
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return Refused(self.status, self.kind, "as the test asked", retryable=self.retryable).response(request, headers)


Fault: TypeAlias = Failing | Response | Dropped


class Faults:
    """A script: each request takes the first fault that is meant for it."""

    def __init__(self) -> None:
        self._script: deque[tuple[str, Fault]] = deque()
        self._is_down = False
        self._delay = 0.0

    def add(self, fault: Fault, count: int, on: str) -> None:
        self._script.extend([(on, fault)] * count)

    def down(self, is_down: bool) -> None:
        self._is_down = is_down

    def delay(self, by: Duration) -> None:
        self._delay = seconds_of(by, "by")

    def take(self, request: Request, timeout: float | None) -> Response | None:
        """The answer that a fault makes, if any. Raises `Dropped` or `TooLate`."""
        if self._delay and timeout is not None and self._delay > timeout:
            raise TooLate
        for nth, (on, fault) in enumerate(self._script):
            if on in f"{request.method} {request.target}":
                del self._script[nth]
                return self._happen(fault, request)
        return None

    def check_reach(self) -> None:
        """Raises `Dropped` while the service is down."""
        if self._is_down:
            raise Dropped("the service is down, as the test asked")

    @staticmethod
    def _happen(fault: Fault, request: Request) -> Response:
        if isinstance(fault, Dropped):
            raise fault
        return fault.response(request) if isinstance(fault, Failing) else fault
