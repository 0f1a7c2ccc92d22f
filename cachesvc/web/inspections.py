"""The rate of requests that cost far more than a read, and serve people.

An explanation costs 6 to 8 ms on every instance, an estimate (`dry_run`) up to 25 ms. Both are
meant for a person who looks, so a bound per second costs nobody anything, and keeps what they take
from others below a share of the loop's time.
"""

from collections.abc import Callable

from cachesvc.model.errors import RequestError
from cachesvc.model.problems import ProblemKind


class Inspections:
    """The explanations and estimates of this second."""

    def __init__(self, most_per_second: int, now: Callable[[], float]) -> None:
        """`now` is in seconds, from any moment."""
        self._most = most_per_second
        self._now = now
        self._second = 0
        self._begun = 0
        self.refused = 0
        """Explanations and estimates that were refused since the start."""

    def __repr__(self) -> str:
        return f"<Inspections [{self._begun} of {self._most} in this second, {self.refused} refused]>"

    def admit(self) -> None:
        """Counts one more. Raises `RequestError` (`overloaded`) if this second has had its number."""
        second = int(self._now())
        if second != self._second:
            self._second, self._begun = second, 0
        if self._begun >= self._most:
            self.refused += 1
            why = f"explanations and dry runs are answered {self._most} times a second here (max_inspections)"
            raise RequestError(ProblemKind.OVERLOADED, why)
        self._begun += 1
