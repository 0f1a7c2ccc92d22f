"""How long a place is waited for that may be near, far or dead.

    no answer in time   → the next wait is twice as long, up to `most_seconds`
    a quick answer      → the next wait is the first one again

So a dead place costs a person who asks little, and a place that is far answers the second or third
question. Nobody needs to know how far it is.
"""

from collections.abc import Awaitable, Hashable
from time import perf_counter
from typing import TypeVar

from cachesvc.tiers.fair_timeout import FairTimeout

T = TypeVar("T")


class NoAnswerError(Exception):
    """The place gave no answer in time; the text says how long that was."""


class Waits:
    """The waits for several places. On one event loop; any number of waits at once."""

    def __init__(self, first_seconds: float, most_seconds: float) -> None:
        self._first = first_seconds
        self._most = most_seconds
        self._longer: dict[Hashable, float] = {}

    def __repr__(self) -> str:
        return f"<Waits [{self._first:g} s, longer for {len(self._longer)}]>"

    async def within(self, place: Hashable, asking: Awaitable[T]) -> T:
        """Returns the answer of a place. Raises `NoAnswerError`, and then the asking is cancelled."""
        seconds = self._longer.get(place, self._first)
        began = perf_counter()
        try:
            async with FairTimeout(seconds):
                answer = await asking
        except TimeoutError as error:
            self._longer[place] = min(2 * seconds, self._most)
            raise NoAnswerError(f"no answer within {seconds * 1000:g} ms") from error
        if perf_counter() - began < self._first:
            self._longer.pop(place, None)
        return answer
