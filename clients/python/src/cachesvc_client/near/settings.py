"""The settings and the statistics of a near cache, which callers of the SDK see."""

from msgspec import Struct

from cachesvc_client.values.durations import Duration, positive_seconds_of


class NearSettings(Struct, frozen=True):
    """The near cache of one namespace: `namespace(…, near=NearSettings())` turns it on."""

    max_entries: int = 10_000
    max_bytes: int = 64 << 20
    """The budget for everything that copies take.

    That is keys, values, tags, content types, about 1,100 bytes per entry, and the decoded objects
    that are kept beside the bytes of their values.
    """
    max_lag: Duration = "2s"
    """The longest delay with which invalidations may be known here.

    While the feed is down, or is further behind, reads go to the service.
    """

    def __post_init__(self) -> None:
        for field, least, what in (("max_entries", 1, "1"), ("max_bytes", 1 << 16, "64 KiB")):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool):
                raise ValueError(f"{field}: {value!r} is no whole number")
            if value < least:
                raise ValueError(f"{field}: {value!r} is less than {what}")
        positive_seconds_of(self.max_lag, "max_lag")


class NearStatistics(Struct, frozen=True):
    """Counters of one shelf since the shelf was made.

    If several threads read, `hits` and `passed` may miss a few.
    """

    hits: int
    passed: int
    """Reads that went on to the service, as nothing was held or the near cache was bypassed."""
    kept: int
    """Answers that became copies."""
    fenced: int
    """Copies that a fence or the floor took out."""
    refused: int
    """Answers that were not kept because a fence (or a collision with one) was newer."""
    evicted: int
    """Copies that were taken out to make room."""
    entries: int
    """Copies held now, expired ones included."""
    bytes: int
    """The cost of the copies held now, as `max_bytes` counts it."""
    is_trusted: bool
    """True if the feed vouches for the copies; if false, every read goes to the service."""
