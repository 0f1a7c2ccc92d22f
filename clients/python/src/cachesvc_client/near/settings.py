from msgspec import Struct

from cachesvc_client.values.durations import Duration, positive_seconds_of


class NearSettings(Struct, frozen=True):
    """Opting in, for one namespace."""

    max_entries: int = 10_000
    max_bytes: int = 64 << 20
    """Of keys, values and about 900 bytes an entry. A value counts twice where its object is kept beside its bytes."""
    max_lag: Duration = "2s"
    """How late invalidations may be known here. While the feed is down or later than this, reads go to the service."""

    def __post_init__(self) -> None:
        if self.max_entries < 1:
            raise ValueError(f"max_entries: {self.max_entries!r} is less than 1")
        if self.max_bytes < 1 << 16:
            raise ValueError(f"max_bytes: {self.max_bytes!r} is less than 64 KiB")
        positive_seconds_of(self.max_lag, "max_lag")


class NearStatistics(Struct, frozen=True):
    """Of one shelf, since it was made. Under several threads `hits` and `passed` may miss a few."""

    hits: int
    passed: int
    """Reads that went on to the service: nothing held, or bypassed."""
    kept: int
    fenced: int
    """Copies that a fence or the floor took out."""
    refused: int
    """Answers that were not kept because a fence (or a collision with one) was newer."""
    evicted: int
    """Copies that went for want of room."""
    entries: int
    """Held now, expired ones included."""
    bytes: int
    is_trusted: bool
    """The feed vouches for what is held; if not, every read goes to the service."""
