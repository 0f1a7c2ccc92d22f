"""How long an origin's answer may be used, and how old it came: `Cache-Control`, `Expires`, `Date`, `Age`, `Vary`.

RFC 9111, 4.2. The apparent age (our clock less `Date`) is left out on purpose: `Date` counts whole seconds, so it would push
`as_of` up to a second before a fence that the load came after, and nothing could be cached for a second after each write.
`Age` is what an origin behind a cache has to send.
"""

from datetime import UTC, datetime
from email.utils import parsedate_tz

from msgspec import Struct
from multidict import CIMultiDictProxy

from cachesvc.model.cache_control import LONGEST_SECONDS, Lifetimes, delta_seconds, lifetimes_of, parse
from cachesvc.model.clock import SECONDS


class Freshness(Struct, frozen=True, gc=False):
    """Lifetimes as they are on arrival: the origin's `age_us` is already taken off."""

    lifetimes: Lifetimes
    age_us: int


def freshness_of(headers: CIMultiDictProxy[str], now_us: int) -> Freshness:
    """What these response headers allow. Never raises: what cannot be understood counts as stale."""
    lifetimes = lifetimes_of(parse(headers.getall("Cache-Control", ())))
    ttl_us = lifetimes.ttl_us
    if ttl_us is None:
        ttl_us = _expires_in_us(headers, now_us)
    if any("*" in value for value in headers.getall("Vary", ())):
        ttl_us = 0  # no two requests match, so it answers only the one it was loaded for
    age_us = _age_us(headers)
    return Freshness(_aged(lifetimes, ttl_us, age_us), age_us)


def _aged(lifetimes: Lifetimes, ttl_us: int | None, age_us: int) -> Lifetimes:
    """Take the age off the TTL, and what is left of the age off the windows that begin where the TTL ends."""
    if ttl_us is None:
        return lifetimes
    overdue_us = max(0, age_us - ttl_us)
    return Lifetimes(
        max(0, ttl_us - age_us),
        _less(lifetimes.stale_for_us, overdue_us),
        _less(lifetimes.error_for_us, overdue_us),
        lifetimes.storable,
    )


def _less(window_us: int | None, overdue_us: int) -> int | None:
    return None if window_us is None else max(0, window_us - overdue_us)


def _expires_in_us(headers: CIMultiDictProxy[str], now_us: int) -> int | None:
    """`Expires` less `Date`; 0 if it is no date (`0`, `-1`) or is given twice differently; None if it is not there."""
    given = set(headers.getall("Expires", ()))
    if not given:
        return None
    expires = http_date(given.pop())
    if given or expires is None:
        return 0
    date = http_date(headers.get("Date", ""))
    now = now_us // SECONDS if date is None else date
    return min(max(0, expires - now), LONGEST_SECONDS) * SECONDS


def http_date(text: str) -> int | None:
    """Seconds since the epoch of an HTTP date in any of its three formats (RFC 9110, 5.6.7); None if it is not one."""
    try:
        parts = parsedate_tz(text)
        if parts is None:
            return None
        return int(datetime(*parts[:6], tzinfo=UTC).timestamp()) - (
            parts[9] or 0
        )  # the parser itself lets 99 November pass
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _age_us(headers: CIMultiDictProxy[str]) -> int:
    """The first member, if it is one; an invalid `Age` is ignored (RFC 9111, 5.1)."""
    return (delta_seconds(headers.get("Age", "").partition(",")[0].strip()) or 0) * SECONDS
