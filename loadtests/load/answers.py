"""Reads where an answer came from.

The source is `Cache-Status` (RFC 9211) and `Cachesvc-Lag`, or the fields of a `:get` result.
"""

from collections.abc import Iterator
from dataclasses import dataclass

TIERS = ("near", "l1", "l2", "l3", "origin", "miss", "error")
"""The possible answerers of a read.

`near` is the SDK's own copy; `miss` means that there is no value; `error` means that one key of a
batch failed.
"""


@dataclass(frozen=True)
class Read:
    """The result of reading one key."""

    tier: str
    is_stale: bool = False
    """True if the copy was past its freshness, and was answered as the policy allows."""
    is_too_stale: bool = False
    """True if the copy was older than the rules allow.

    That is: older than a version that was invalidated more than `max_lag` before the read began.
    """


def answered_by(cache_status: str) -> tuple[str, bool]:
    """The tier that answered, and whether its copy was stale.

    The tier is that of the member with `hit`; without such a member it is the origin.
    """
    for tier, parameters in _members(cache_status):
        if "hit" in parameters:
            return tier, any(parameter.startswith("ttl=-") for parameter in parameters)
    return "origin", False


def lag_of(header: str) -> float | None:
    """The lag in seconds; None if the instance does not know its bound and so sent no header."""
    return float(header) if header else None


def _members(cache_status: str) -> Iterator[tuple[str, list[str]]]:
    for member in cache_status.split(","):
        name, *parameters = (part.strip() for part in member.split(";"))
        yield name.removeprefix("cachesvc-"), parameters
