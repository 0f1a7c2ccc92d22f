"""The options that the headers of a read ask for, as `ReadOptions`.

A header that is out of rule is refused by name, because no guess at its meaning is safe.
"""

import math
import re
from collections.abc import Sequence, Set

from msgspec.structs import replace
from multidict import CIMultiDictProxy

from cachesvc.model import cache_control
from cachesvc.model.clock import SECONDS
from cachesvc.model.errors import RequestError
from cachesvc.model.problems import ProblemKind
from cachesvc.model.requests import PLAIN, ReadOptions
from cachesvc.model.units import Duration
from cachesvc.web.requests.limits import MAX_SOURCE_LAG_SECONDS
from cachesvc.web.requests.tokens import merged, read_token

LONGEST_LAG_US = 10**15
"""A longer `Cachesvc-Max-Lag` counts as this (31 years)."""

UNLEASED_LAG = (
    "a value without a lease is the writer's, who vouches for it: a source that lags belongs to a fill"
)
"""The reason why the lag of a source is refused beside a value without a lease."""

_ASKING = ("Cache-Control", "Cachesvc-Token", "Cachesvc-Max-Lag", "Cachesvc-Timeout", "Prefer")
# Possessive: each member of the list is read in one pass, whatever it holds.
_PREFERENCE = re.compile(r'[ \t]*+([A-Za-z0-9_-]++)[ \t]*+(?:=[ \t]*+"?([^",; \t]*+))?').match
_WAIT = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,3})?").fullmatch

_INERT = frozenset(
    spelling.encode()
    for name in (
        "Accept",
        "Accept-Encoding",
        "Accept-Language",
        "User-Agent",
        "Connection",
        "Tracestate",
    )
    for spelling in (name, name.lower())
)
"""Headers that change nothing about a read, as clients spell them. Others need a look."""
_TRACEPARENT = (b"traceparent", b"Traceparent")
_AUTHORIZATION = (b"Authorization", b"authorization")
_HOST = (b"Host", b"host")


def plain_headers(
    raw_headers: Sequence[tuple[bytes, bytes]], hosts: Set[bytes] | None = None
) -> tuple[bytes, bytes] | None:
    """Returns `traceparent` and `Authorization`, each empty without one.

    None if a header might change the read, and for a host that is not among `hosts`. One walk over the
    headers finds all of this.
    """
    traceparent = authorization = b""
    for name, value in raw_headers:
        if name in _HOST:
            if hosts is not None and value not in hosts:
                return None
        elif name not in _INERT:
            if name in _TRACEPARENT:
                traceparent = value
            elif name in _AUTHORIZATION and not authorization:
                authorization = value
            else:
                return None
    return traceparent, authorization


def is_below(options: ReadOptions, seconds: float) -> bool:
    """True if the caller's deadline is shorter than this."""
    return options.timeout_seconds is not None and options.timeout_seconds < seconds


def options_of(headers: CIMultiDictProxy[str], longest_seconds: float) -> ReadOptions:
    """Returns the options of a read; `PLAIN` itself if nothing is asked.

    Timeouts are capped at `longest_seconds`. Raises `RequestError`.
    """
    asked = [name for name in _ASKING if name in headers]
    if not asked:
        return PLAIN
    options = PLAIN
    if "Cache-Control" in asked:
        options = cache_control.read_options_of(", ".join(headers.getall("Cache-Control")))
    if "Prefer" in asked:
        options = _preferring(options, ", ".join(headers.getall("Prefer")), longest_seconds)
    return replace(
        options,
        token=token_of(headers),
        max_lag_us=lag_us_of(headers["Cachesvc-Max-Lag"], "Cachesvc-Max-Lag")
        if "Cachesvc-Max-Lag" in asked
        else None,
        timeout_seconds=timeout_of(headers, longest_seconds),
    )


def is_answered_by_any_fresh_copy(options: ReadOptions) -> bool:
    """True if any fresh copy that a plain read may have is an answer.

    A lease and a deadline matter only on a miss.
    """
    if options is PLAIN:
        return True
    return replace(options, lease=False, wait_seconds=0.0, timeout_seconds=None) == PLAIN


def token_of(headers: CIMultiDictProxy[str]) -> tuple[tuple[int, int], ...]:
    """Returns the pairs of all tokens of a request. Raises `RequestError` (`bad-token`)."""
    field = "Cachesvc-Token"
    lines = headers.getall(field, [])
    return (
        merged((pair for line in lines for pair in read_token(line.strip(), field)), field) if lines else ()
    )


def timeout_of(headers: CIMultiDictProxy[str], longest_seconds: float) -> float | None:
    """Returns the seconds that the caller waits, capped; None if it does not say.

    Raises `RequestError` (`bad-header`).
    """
    field = "Cachesvc-Timeout"
    if field not in headers:
        return None
    seconds = duration_us_of(headers[field], field) / SECONDS
    if seconds <= 0:
        raise RequestError(ProblemKind.BAD_HEADER, "a timeout is longer than 0", field=field)
    return min(seconds, longest_seconds)


def source_lag_us_of(headers: CIMultiDictProxy[str]) -> int:
    """Returns the µs by which the source of a fill may have been late; 0 unless said.

    Raises `RequestError`: `bad-header` for what is no duration or too long, `contradiction` without
    a lease.
    """
    field = "Cachesvc-Source-Lag"
    if field not in headers:
        return 0
    lag_us = duration_us_of(headers[field], field)
    if lag_us > MAX_SOURCE_LAG_SECONDS * SECONDS:
        why = f"the source of a fill may lag by {MAX_SOURCE_LAG_SECONDS} s at most"
        raise RequestError(ProblemKind.BAD_HEADER, why, field=field)
    if lag_us and "Cachesvc-Lease" not in headers:
        raise RequestError(ProblemKind.CONTRADICTION, UNLEASED_LAG, field=field)
    return lag_us


def lag_us_of(text: str, field: str) -> int:
    """Returns the accepted staleness bound, capped. Raises `RequestError` (`bad-header`)."""
    return min(duration_us_of(text, field), LONGEST_LAG_US)


def duration_us_of(text: str, field: str) -> int:
    """Returns µs. Raises `RequestError` (`bad-header`) for a text that is no duration."""
    try:
        return Duration.parse(text.strip()[:32])
    except (ValueError, OverflowError):
        why = f"{text[:32]!r} is not a duration: write a number and one of us, ms, s, m, h, d, such as 250ms"
        raise RequestError(ProblemKind.BAD_HEADER, why, field=field) from None


def wait_of(seconds: float, longest_seconds: float) -> float:
    """Returns how long to wait for another's fill, capped; the cap for infinity and NaN."""
    return min(seconds, longest_seconds) if math.isfinite(seconds) else longest_seconds


def _preferring(options: ReadOptions, prefer: str, longest_seconds: float) -> ReadOptions:
    """Returns the options with `Prefer: lease, wait=2` (RFC 7240) applied.

    Preferences that are not known are ignored, as RFC 7240 wants.
    """
    members = map(_PREFERENCE, prefer.split(","))
    preferences = {member[1].lower(): member[2] for member in members if member}
    if "lease" not in preferences:
        return options
    wait = preferences.get("wait") or "0"
    if not _WAIT(wait):
        raise RequestError(
            ProblemKind.BAD_HEADER, f"wait takes seconds, such as wait=2, not {wait[:32]!r}", field="Prefer"
        )
    return replace(options, lease=True, wait_seconds=wait_of(float(wait), longest_seconds))
