"""The statistics of a client."""

from msgspec import Struct


class Statistics(Struct, frozen=True):
    """Counters since the client was made."""

    requests: int
    """HTTP requests sent, failed requests and repeated attempts included."""
    failovers: int
    """Requests that reached no instance, or whose connection broke."""
    loads: int
    """Runs of loaders."""
    loads_without_cache: int
    """Loads without a lease, whether running or waiting for a turn.

    They happen when the cache is out of reach or another holder of the lease takes too long.
    """
    fenced_fills: int
    """Loaded values that were answered and not kept, as an invalidation came during the load."""
    failed_fills: int
    """Loaded values that could not be stored."""
    forgotten_writes: int
    """Own writes that later reads may not honour, as there were too many within a minute."""
    retries: int
    """Requests sent again, after a pause, because the failure may pass."""
    unreadable: int
    """Stored values of another version or type, which count as misses."""
    unkept_loads: int = 0
    """Loads without a lease and a wait, as values of the key could not be kept lately."""
    stale_on_error: int = 0
    """Stale values that were answered as their loads had failed (`stale_if_error`)."""
    unsent: int = 0
    """Invalidations of committed transactions that are being sent again, at this moment."""
    early_loads: int = 0
    """Loads that began before the value had expired, because the service asked for them."""
