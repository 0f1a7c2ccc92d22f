"""The users of the load: each takes one turn after the other.

A turn is one request: the user waits until it is due (`arrivals.py`), makes it, and reports it to
locust under the name of its route. Locust tells its listeners; the recorder is one of them
(`process.py`). The reported latency counts from the moment at which the request was due.
`users_http.py` and `users_sdk.py` have the kinds of users.
"""

from typing import ClassVar

from locust import User, task

from loadtests.documents import version_of
from loadtests.load.answers import Read
from loadtests.load.arrivals import Turn
from loadtests.load.shared import Shared

TOO_LATE = "no answer in time"
"""The reason of every request that was not answered within its caller's timeout."""


class UnansweredError(Exception):
    """A request failed.

    The message is the reason by which failures are grouped, so it names no key and no instance.
    """


class Visitor(User):
    """A user that takes turns."""

    abstract = True
    kind: ClassVar[str]
    """The kind's name in `LOAD_MIX`."""
    route: ClassVar[tuple[str, str]]
    """Method and name of the request, for reports. A key never stands in the name."""
    shared: ClassVar[Shared]
    """Set before the first user is spawned."""

    @task
    def take_a_turn(self) -> None:
        """Makes one request when it is due; fails it if that moment is too long ago."""
        turn = self.shared.turn(self.kind)
        if turn.lateness > self.shared.settings.timeout:
            self.report(turn, 0.0, UnansweredError("no user was free in time"))
        else:
            self.ask(turn)

    def ask(self, turn: Turn) -> None:
        """Makes the request and reports it."""
        raise NotImplementedError

    def report(self, turn: Turn, seconds: float, failure: Exception | None) -> None:
        """Reports a request that was not made by locust's own client."""
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
        """The failure of a request that took `seconds`, if its caller is gone by then."""
        return UnansweredError(TOO_LATE) if seconds > self.shared.settings.timeout else None

    def judged(self, key: str, value: bytes, answered_by: tuple[str, bool], asked_at: float) -> Read:
        """The read of a value that a tier answered.

        `answered_by` has the tier, and whether the copy was stale. Raises `OtherBytesError` if the value
        is not a document of the key.
        """
        return Read(*answered_by, self.shared.versions.is_too_stale(key, version_of(key, value), asked_at))
