"""An estimate of how far a server is: its round trip and the jitter of that.

It is the estimate by which TCP sets its own time limits (RFC 6298, 2): a mean that takes an eighth
of each new sample, and a mean deviation that takes a quarter. A sample is the time of a small
exchange, or of the greeting of a new connection.

A time limit for a server has two parts:

    limit = timeout + way
    way   = 3 × round trip + 4 × jitter, `at_most`

`timeout` is the time that the server itself has, and so the limit of a near one. One of the three
round trips is that of the exchange. The other two are for a packet that is lost: TCP sends it again
after a round trip and 200 ms (Linux), and the answer takes another one. So with a `timeout` of
100 ms an exchange outlives a loss from 100 ms on; a nearer one fails, and connects anew in no time.
"""

LOST_ROUND_TRIPS = 2
"""Round trips for a packet that is lost."""
SMALL_BYTES = 1 << 14
"""An exchange of more bytes than this measures their way, too, and is no sample."""


class RoundTrip:
    """The round trip to one server. Belongs to one writer; others may read its numbers."""

    __slots__ = ("at_most", "jitter_seconds", "samples", "seconds", "way_seconds")

    def __init__(self, at_most: float) -> None:
        """`at_most` is the most that the way adds to a time limit, in seconds.

        A server that was slow for a while looks far, and must not be waited for longer.
        """
        self.at_most = at_most
        self.seconds = 0.0
        """The mean; 0 before the first sample."""
        self.jitter_seconds = 0.0
        self.way_seconds = 0.0
        """The time for the way in a time limit of an exchange of one round trip."""
        self.samples = 0

    def saw(self, seconds: float) -> None:
        """Takes in one sample."""
        self.samples += 1
        sample = min(seconds, self.at_most)
        if self.seconds:
            self.jitter_seconds += (abs(sample - self.seconds) - self.jitter_seconds) / 4
            self.seconds += (sample - self.seconds) / 8
        else:
            self.seconds, self.jitter_seconds = sample, sample / 2
        way_seconds = (1 + LOST_ROUND_TRIPS) * self.seconds + 4 * self.jitter_seconds
        self.way_seconds = min(way_seconds, self.at_most)

    def way_of(self, round_trips: int) -> float:
        """Returns what a time limit has for the way of an exchange of so many round trips."""
        return self.way_seconds + (round_trips - 1) * self.seconds

    def __repr__(self) -> str:
        return f"<RoundTrip {self.seconds * 1000:.1f} ± {self.jitter_seconds * 1000:.1f} ms>"
