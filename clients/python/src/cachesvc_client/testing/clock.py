"""Time that stands still until it is turned."""

from collections.abc import Callable

from cachesvc_client.values.durations import Duration, positive_seconds_of

START_US = 1_700_000_000_000_000


class FakeClock:
    """Of a `FakeService`: ttl, leases and windows go by it. The client's own timeouts do not, but nothing here takes time."""

    def __init__(self) -> None:
        self._now_us = START_US
        self._stamp = START_US
        self._listeners: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"<FakeClock at +{(self._now_us - START_US) / 1e6:g} s>"

    def now_us(self) -> int:
        return self._now_us

    def stamp(self) -> int:
        """The time as µs that no other stamp has: what happens later has a later one, also while the clock stands."""
        self._stamp = max(self._stamp + 1, self._now_us)
        return self._stamp

    def advance(self, by: Duration) -> None:
        """Seconds, or `"5m"`."""
        self._now_us += round(positive_seconds_of(by, "by") * 1e6)
        for listener in self._listeners:
            listener()

    def on_advance(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)
