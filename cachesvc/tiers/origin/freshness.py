"""How long an origin's answer may be used, and how old it was on arrival (RFC 9111, 4.2).

The headers are `Cache-Control`, `Expires`, `Date`, `Age` and `Vary`. The apparent age (this
process's clock less `Date`) is left out on purpose: `Date` counts whole seconds, so the apparent
age would push `as_of` up to a second before a fence that the load came after, and nothing could be
cached for a second after each write. An origin behind a cache has to send `Age`.
"""

from datetime import UTC, datetime
from email.utils import parsedate_tz

from msgspec import Struct
from multidict import CIMultiDictProxy

from cachesvc.model.cache_control import LONGEST_SECONDS, Lifetimes, delta_seconds, lifetimes_of, parse
from cachesvc.model.clock import SECONDS


class Freshness(Struct, frozen=True, gc=False):
    """Lifetimes as they are on arrival: `age_us` is already taken off."""

    lifetimes: Lifetimes
    age_us: int


def freshness_of(headers: CIMultiDictProxy[str], now_us: int) -> Freshness:
    """Returns the lifetimes that these response headers allow.

    Never raises: a header that cannot be understood counts as stale.
    """
    lifetimes = lifetimes_of(parse(headers.getall("Cache-Control", ())))
    ttl_us = lifetimes.ttl_us
    if ttl_us is None:
        ttl_us = _expires_in_us(headers, now_us)
    if any("*" in value for value in headers.getall("Vary", ())):
        ttl_us = 0  # no other request matches, so the answer serves only the load it came for
    age_us = _age_us(headers)
    return Freshness(_aged(lifetimes, ttl_us, age_us), age_us)


def _aged(lifetimes: Lifetimes, ttl_us: int | None, age_us: int) -> Lifetimes:
    """Takes the age off the TTL.

    The part of the age that is beyond the TTL is taken off the windows that begin where the TTL ends.
    """
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
    """Returns `Expires` less `Date`, or None if there is no `Expires`.

    0 if `Expires` is no date (`0`, `-1`) or is given twice with different values.
    """
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
    """Returns the seconds since the epoch of an HTTP date; None if `text` is not one.

    All three formats are understood (RFC 9110, 5.6.7).
    """
    try:
        parts = parsedate_tz(text)
        if parts is None:
            return None
        # `datetime` refuses a 99 November, which the parser lets pass.
        return int(datetime(*parts[:6], tzinfo=UTC).timestamp()) - (parts[9] or 0)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _age_us(headers: CIMultiDictProxy[str]) -> int:
    """Returns the first member of `Age`; an invalid `Age` is ignored (RFC 9111, 5.1)."""
    return (delta_seconds(headers.get("Age", "").partition(",")[0].strip()) or 0) * SECONDS
