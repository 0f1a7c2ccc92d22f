"""What a tier counts, and what a server says of itself."""

from msgspec import Struct


class TierStatistics(Struct, frozen=True):
    """Counters since the start. `hits + misses + errors` is the number of keys asked for."""

    hits: int
    """Keys answered with an entry."""
    misses: int
    """Keys answered with nothing, and copies that could not be read as ours."""
    errors: int
    """Keys without an answer: timed out, refused, reset."""
    batches: int
    """Exchanges, of any kind."""
    batched_keys: int
    """Keys in them; `batched_keys / batches` is the mean size of an exchange."""
    dropped: int
    """Entries not kept because they were too large or already past their use."""
    failed_writes: int
    """Entries and deletes that should have been done and were not."""


class Fullness(Struct, frozen=True):
    """What a server says of itself, since its own start."""

    items: int
    bytes: int
    """What they take there."""
    limit: int
    """Bytes that bound them."""
    evictions: int
    """Entries that it dropped for room."""
