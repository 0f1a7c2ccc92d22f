"""A token bucket whose rate may change: with the share of its limit."""


class Bucket:
    """Tokens that come in at `rate` per second, up to `burst`. `now` is in seconds throughout.

    It may be overdrawn: a charge whose size is known only afterwards is made in full, and later ones
    wait until it is paid. Over any time the charges are at most `rate` times that time, plus
    `burst`, plus what one charge overdraws.
    """

    __slots__ = ("at", "burst", "level", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self.level = burst
        """The tokens at the time `at`; below 0 if it is overdrawn."""
        self.at = now

    def __repr__(self) -> str:
        return f"<Bucket [{self.level:g} of {self.burst:g}, {self.rate:g}/s]>"

    def change(self, rate: float, burst: float, now: float) -> None:
        """Changes rate and burst. Tokens above the new burst are lost, and none are added."""
        self.charge(0, now)
        self.rate, self.burst = rate, burst
        self.level = min(self.level, burst)

    def charge(self, tokens: float, now: float) -> None:
        """Takes out so many tokens, also if there are fewer."""
        level = self.level + (now - self.at) * self.rate - tokens
        self.level = level if level < self.burst else self.burst
        self.at = now

    def has_one(self, now: float) -> bool:
        """True if a charge may be made: there is a token, or a full burst of less than one."""
        self.charge(0, now)
        return self.level >= min(1.0, self.burst) and self.burst > 0

    def seconds_until_one(self, now: float) -> float:
        """The seconds until `has_one`; infinite while the rate is 0."""
        if self.has_one(now):
            return 0.0
        return (min(1.0, self.burst) - self.level) / self.rate if self.rate > 0 else float("inf")
