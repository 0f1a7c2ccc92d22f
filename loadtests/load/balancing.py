"""Which instance is asked: what a balancer in front of them does, for users that are plain HTTP clients."""

from collections.abc import Callable, Sequence

REST_SECONDS = 1.0
"""For so long nobody is sent to an instance that broke a connection."""


class Balancer:
    """The instances in turn. One for all users of a process."""

    def __init__(self, urls: Sequence[str], clock: Callable[[], float]) -> None:
        self._resting = dict.fromkeys(urls, 0.0)
        """Until when, by instance; in the order of their turns."""
        self._clock = clock

    def pick(self) -> str:
        """The next one that is not resting; if all are, the one that has rested longest."""
        now = self._clock()
        awake = [url for url, until in self._resting.items() if until <= now]
        url = awake[0] if awake else min(self._resting, key=self._resting.__getitem__)
        self._resting[url] = self._resting.pop(url)  # its next turn comes after the others'
        return url

    def broke(self, url: str) -> None:
        self._resting[url] = self._clock() + REST_SECONDS
