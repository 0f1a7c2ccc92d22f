"""The use of an origin's answer, its lifetimes, and its age on arrival (RFC 9111, 3, 4.2).

    Answer            | Tiers, near caches | Readers that joined | Callers are told
    ------------------|--------------------|---------------------|----------------------
    `no-store`        | do not keep it     | load for themselves | `no-store`
    `private`         | do not keep it     | load for themselves | `private, max-age=0`
    `Vary: *`         | do not keep it     | load for themselves | `no-store`, `Vary: *`
    tags unreadable   | do not keep it     | load for themselves | `no-store`
    or too many       |                    |                     |
    `no-cache`        | validate each time | have it             | `no-cache`
    every other       | keep it            | have it             | its lifetimes

Readers that joined may not have the first three because RFC 9111 (5.2.2.5, 5.2.2.7, 4.1) forbids it
for another request. They may not have the fourth because a fence on an unknown tag may have come
before they asked, and the rule on loaded values could not see it.

The headers are `Cache-Control`, `Expires`, `Date`, `Age`, `Vary` and `Retry-After`. The apparent
age (this process's clock less `Date`) is left out on purpose: `Date` counts whole seconds, so the
apparent age would push `as_of` up to a second before a fence that the load came after, and nothing
could be cached for a second after each write. An origin behind a cache has to send `Age`.
"""

from collections.abc import Collection

from msgspec import Struct
from multidict import CIMultiDictProxy

from cachesvc.model.cache_control import LONGEST_SECONDS, Lifetimes, delta_seconds, lifetimes_of, parse
from cachesvc.model.clock import SECONDS
from cachesvc.model.use import EVERY_USE, Use
from cachesvc.tiers.origin.http_date import http_date

LONGEST_RETRY_AFTER_SECONDS = 300
"""A longer `Retry-After` of an origin counts as this.

Callers obey it, so a mistake of the origin must end by itself.
"""


class Freshness(Struct, frozen=True, gc=False):
    """Lifetimes as they are on arrival: `age_us` is already taken off."""

    lifetimes: Lifetimes
    """All 0 if the answer may not be kept."""
    age_us: int
    use: Use = EVERY_USE


def freshness_of(headers: CIMultiDictProxy[str], now_us: int, *, is_taggable: bool = True) -> Freshness:
    """Returns the lifetimes and the use that these response headers allow.

    `is_taggable`: false if the answer has tags that are not known here. Never raises: a header that
    cannot be understood counts as stale.
    """
    directives = parse(headers.getall("Cache-Control", ()))
    lifetimes = lifetimes_of(directives)
    age_us = _age_us(headers)
    use = _use(
        {directive.name for directive in directives},
        varies=any("*" in value for value in headers.getall("Vary", ())),
        is_taggable=is_taggable,
    )
    if not use.keep:
        return Freshness(Lifetimes(0, 0, 0, storable=False), age_us, use)
    ttl_us = lifetimes.ttl_us
    if ttl_us is None:
        ttl_us = _expires_in_us(headers, now_us)
    return Freshness(_aged(lifetimes, ttl_us, age_us), age_us, use)


def _use(names: Collection[str], *, varies: bool, is_taggable: bool) -> Use:
    """Returns the use by the names of the directives; see the table above."""
    if "no-store" in names or varies or not is_taggable:
        is_private = ", private" if "private" in names else ""
        return Use(keep=False, share=False, directives=f"no-store{is_private}", varies=varies)
    if "private" in names:
        return Use(keep=False, share=False, directives="private, max-age=0")
    return Use(directives="no-cache") if "no-cache" in names else EVERY_USE


def retry_after_seconds(headers: CIMultiDictProxy[str], now_us: int) -> int | None:
    """Returns `Retry-After`, 1 to `LONGEST_RETRY_AFTER_SECONDS`; None if there is none.

    A text that is neither seconds nor an HTTP date counts as none (RFC 9110, 10.2.3).
    """
    text = headers.get("Retry-After", "").strip()
    seconds = delta_seconds(text)
    if seconds is None:
        now = now_us // SECONDS
        if (date := http_date(text, now)) is None:
            return None
        seconds = date - (http_date(headers.get("Date", ""), now) or now)
    return min(max(1, seconds), LONGEST_RETRY_AFTER_SECONDS)


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
    now = now_us // SECONDS
    expires = http_date(given.pop(), now)
    if given or expires is None:
        return 0
    date = http_date(headers.get("Date", ""), now)
    now = now if date is None else date
    return min(max(0, expires - now), LONGEST_SECONDS) * SECONDS


def _age_us(headers: CIMultiDictProxy[str]) -> int:
    """Returns the first member of `Age`; an invalid `Age` is ignored (RFC 9111, 5.1)."""
    return (delta_seconds(headers.get("Age", "").partition(",")[0].strip()) or 0) * SECONDS
