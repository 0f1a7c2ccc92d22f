"""A clock that stands still until a test turns it."""

from collections.abc import Callable

from cachesvc_client.values.durations import Duration, positive_seconds_of

START_US = 1_700_000_000_000_000
"""µs since the epoch: the time of a new clock."""


class FakeClock:
    """The clock of a `FakeService`: lifetimes, leases and paced invalidations go by it.

    The client's own timeouts go by the real clock, but nothing in the fake service takes time.
    """

    def __init__(self) -> None:
        self._now_us = START_US
        self._stamp = START_US
        self._listeners: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"<FakeClock at +{(self._now_us - START_US) / 1e6:g} s>"

    def now_us(self) -> int:
        return self._now_us

    def stamp(self) -> int:
        """Returns the time in µs, made unique: a later stamp is greater, also while time stands."""
        self._stamp = max(self._stamp + 1, self._now_us)
        return self._stamp

    def advance(self, by: Duration) -> None:
        """Turns the clock forward by seconds, or by a text such as `"5m"`; listeners are called."""
        self._now_us += round(positive_seconds_of(by, "by") * 1e6)
        for listener in self._listeners:
            listener()

    def on_advance(self, listener: Callable[[], None]) -> None:
        """Calls `listener` after every `advance`."""
        self._listeners.append(listener)
