"""Chooses the instance for each request, for users that are plain HTTP clients.

This is what a load balancer in front of the instances would do.
"""

from collections.abc import Callable, Sequence

REST_SECONDS = 1.0
"""How long an instance that broke a connection gets no requests."""


class Balancer:
    """Takes the instances in turn. One balancer serves all users of a process."""

    def __init__(self, urls: Sequence[str], clock: Callable[[], float]) -> None:
        self._resting = dict.fromkeys(urls, 0.0)
        """For each instance the time until which it rests; in the order of the instances' turns."""
        self._clock = clock

    def pick(self) -> str:
        """The next instance that does not rest; if all do, the one whose rest ends first."""
        now = self._clock()
        awake = [url for url, until in self._resting.items() if until <= now]
        url = awake[0] if awake else min(self._resting, key=self._resting.__getitem__)
        self._resting[url] = self._resting.pop(url)  # its next turn comes after the others'
        return url

    def broke(self, url: str) -> None:
        """Lets an instance rest because it broke a connection."""
        self._resting[url] = self._clock() + REST_SECONDS
