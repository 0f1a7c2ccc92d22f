"""What an answer says of where it came from: `Cache-Status` (RFC 9211) and `Cachesvc-Lag`, or the fields of a `:get` result."""

from collections.abc import Iterator
from dataclasses import dataclass

TIERS = ("near", "l1", "l2", "l3", "origin", "miss", "error")
"""Who answered a read. `near`: the SDK's own copy; `miss`: there is no value; `error`: one key of a batch failed."""


@dataclass(frozen=True)
class Read:
    """One key that was read."""

    tier: str
    is_stale: bool = False
    """Past its freshness, and answered all the same by policy."""
    is_too_stale: bool = False
    """Older than a version that was invalidated more than `max_lag` before the read began."""


def answered_by(cache_status: str) -> tuple[str, bool]:
    """The tier of the member that says `hit`, else the origin; and whether what it had was stale."""
    for tier, parameters in _members(cache_status):
        if "hit" in parameters:
            return tier, any(parameter.startswith("ttl=-") for parameter in parameters)
    return "origin", False


def lag_of(header: str) -> float | None:
    """Seconds; None if the instance does not know its bound, and so sends no header."""
    return float(header) if header else None


def _members(cache_status: str) -> Iterator[tuple[str, list[str]]]:
    for member in cache_status.split(","):
        name, *parameters = (part.strip() for part in member.split(";"))
        yield name.removeprefix("cachesvc-"), parameters
