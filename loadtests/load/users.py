"""Who makes the load: someone who takes turns.

A turn is one request: wait until it is due (`arrivals.py`), make it, and report it to locust under the name of its route;
locust tells its listeners, of which the recorder is one (`process.py`). The latency that is reported counts from the moment
the request was due. `users_http.py` and `users_sdk.py` have the kinds of users.
"""

from typing import ClassVar

from locust import User, task

from loadtests.documents import version_of
from loadtests.load.answers import Read
from loadtests.load.arrivals import Turn
from loadtests.load.shared import Shared

TOO_LATE = "no answer in time"
"""The reason of every request that was not answered while its caller waited."""


class UnansweredError(Exception):
    """A request that failed. The message is the reason to group by: it names no key and no instance."""


class Visitor(User):
    abstract = True
    kind: ClassVar[str]
    """As in `LOAD_MIX`."""
    route: ClassVar[tuple[str, str]]
    """Method and name of what it asks, for reports: never with a key in it."""
    shared: ClassVar[Shared]
    """Set before the first one is spawned."""

    @task
    def take_a_turn(self) -> None:
        turn = self.shared.turn(self.kind)
        if turn.lateness > self.shared.settings.timeout:
            self.report(turn, 0.0, UnansweredError("no user was free in time"))
        else:
            self.ask(turn)

    def ask(self, turn: Turn) -> None:
        """Make the request and report it."""
        raise NotImplementedError

    def report(self, turn: Turn, seconds: float, failure: Exception | None) -> None:
        """A request that locust's own client did not make."""
        failure = failure or self.too_late(turn.lateness + seconds)
        method, name = self.route
        self.environment.events.request.fire(
            request_type=method,
            name=name,
            response_time=(turn.lateness + seconds) * 1e3,
            response_length=0,
            exception=failure,
            context={"turn": turn},
        )

    def too_late(self, seconds: float) -> UnansweredError | None:
        """An answer to a caller who is gone is none."""
        return UnansweredError(TOO_LATE) if seconds > self.shared.settings.timeout else None

    def judged(self, key: str, value: bytes, answered_by: tuple[str, bool], asked_at: float) -> Read:
        """A value, from this tier, stale or not. Raises `OtherBytesError` if it is none of the key's."""
        return Read(*answered_by, self.shared.versions.is_too_stale(key, version_of(key, value), asked_at))
