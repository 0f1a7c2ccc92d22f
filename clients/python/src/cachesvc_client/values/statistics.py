from msgspec import Struct


class Statistics(Struct, frozen=True):
    """Counters since the client was made."""

    requests: int
    """HTTP requests sent, failed ones and second tries included."""
    failovers: int
    """Requests that met no instance or a broken connection."""
    loads: int
    """Runs of loaders."""
    loads_without_cache: int
    """Loads, started or waiting for their turn, that had no lease: the cache was out of reach or a holder took too long."""
    fenced_fills: int
    """Loaded values that were answered and not kept, as an invalidation came between."""
    failed_fills: int
    """Loaded values that could not be stored."""
    forgotten_writes: int
    """Own writes that reads may no longer honour: there were too many within a minute."""
    retries: int
    """Requests sent again after a failure that may pass and a pause."""
    unreadable: int
    """Stored values of another version or type, counted as misses."""
