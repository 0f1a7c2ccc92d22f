from collections.abc import Callable
from typing import Protocol

from cachesvc_client.testing.clock import FakeClock
from cachesvc_client.testing.feed import Subscription
from cachesvc_client.testing.http import Request, Response


class Responder(Protocol):
    """The part of a `FakeService` that the two sessions use; explained there."""

    @property
    def clock(self) -> FakeClock: ...

    def respond(
        self, request: Request, *, is_first: bool = True, is_patient: bool = True
    ) -> Response | None: ...

    def wait_of(self, request: Request) -> float: ...

    def subscribe(self, request: Request) -> Subscription: ...

    def beat(self) -> None: ...

    def listen(self, listener: Callable[[], object]) -> Callable[[], None]: ...
