"""The counters of a tier, and the state that a server reports of itself."""

from msgspec import Struct


class TierStatistics(Struct, frozen=True):
    """Counters since the start. `hits + misses + errors` is the number of keys asked for."""

    hits: int
    """Keys answered with an entry."""
    misses: int
    """Keys without a copy, and keys whose copy could not be read as one of ours."""
    errors: int
    """Keys without an answer: timed out, refused, reset."""
    batches: int
    """Exchanges of every kind."""
    batched_keys: int
    """Keys in the exchanges; `batched_keys / batches` is the mean size of an exchange."""
    dropped: int
    """Entries not kept because they were too large or already past their use."""
    failed_writes: int
    """Entries and deletes that should have been done and were not."""
    damaged: int = 0
    """Copies that had changed since they were written. Each is a miss."""
    unsealed: int = 0
    """Copies without a seal that fits, where copies are sealed. Each is a miss."""
    unreadable: int = 0
    """Answers out of the protocol. Each failed its exchange and closed the connection."""
    round_trip_seconds: float = 0
    """The estimate of the way there and back; 0 before the first exchange."""
    jitter_seconds: float = 0
    """The mean deviation of that."""
    timeout_seconds: float = 0
    """The time limit of an exchange now, without the time of large values."""


class Fullness(Struct, frozen=True):
    """The state that a server reports of itself; it counts since its own start."""

    items: int
    bytes: int
    """Bytes that the items take on the server."""
    limit: int
    """Bytes that the server may use for items."""
    evictions: int
    """Entries that the server dropped for room."""
