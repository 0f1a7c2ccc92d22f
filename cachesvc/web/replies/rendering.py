"""Header lines as text and bytes: those of an entry, and those that end every answer."""

import re
from email.utils import formatdate
from functools import lru_cache

from cachesvc.model import cache_groups
from cachesvc.model.clock import MILLISECONDS, SECONDS
from cachesvc.model.entry import Entry
from cachesvc.model.etag import etag
from cachesvc.model.memo import memo
from cachesvc.model.requests import Answer, Outcome
from cachesvc.model.use import EVERY_USE, Use
from cachesvc.web.messages import OCTETS
from cachesvc.web.requests.limits import MAX_MEDIA_TYPE_LENGTH

_MEDIA_TYPE = re.compile(
    r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+[ \t]*(;[\x20-\x7e\t]*)?"
).fullmatch
_LONGEST_GROUPS_LINE = 4096
_TAIL_LIFE_US = 10 * MILLISECONDS
_VARY = "Vary: Cachesvc-Token, Cachesvc-Max-Lag, Prefer\r\n"
"""The headers of a read that decide which copies may answer it, `Cache-Control` aside.

Without the line, a cache on the way would answer a read that carries a token with what it kept from
a read without one.
"""
_VARY_ALL = "Vary: *\r\n"
NOSNIFF = "X-Content-Type-Options: nosniff\r\n"
"""A browser takes a stored value for its `Content-Type`, and never for HTML by its looks."""
SANDBOX = f"{NOSNIFF}Content-Security-Policy: sandbox\r\n"
"""And a browser that is led to a stored value runs no script of it."""
_LEASED = Use(keep=False, share=False, directives="no-store")
"""The use of an answer that carries a lease, which one caller may have."""


def is_media_type(text: str) -> bool:
    """True if the text is a media type that can stand in a header (RFC 9110, 8.3.1)."""
    return len(text) <= MAX_MEDIA_TYPE_LENGTH and _MEDIA_TYPE(text) is not None


def seconds_of(entry: Entry, now_us: int) -> tuple[int, int]:
    """Returns age and remaining freshness (negative when stale), whole seconds, rounded down."""
    return max(0, (now_us - entry.as_of) // SECONDS), (entry.fresh_until - now_us) // SECONDS


def use_of(answer: Answer) -> Use:
    """Returns what the caller, and caches on the way to it, may do with the answer."""
    return _LEASED if answer.lease else answer.use


def lives_of(answer: Answer, entry: Entry, now_us: int) -> tuple[int, int]:
    """Returns age and remaining freshness of an answer, whole seconds, rounded down.

    The freshness of a stale answer is negative also where a soft fence came before the end of its
    time: a cache on the way would keep it for the rest of that time.
    """
    age, ttl = seconds_of(entry, now_us)
    return age, min(ttl, -1) if answer.outcome is Outcome.STALE else ttl


def positive_head(entry: Entry, status: str, age: int, ttl: int, use: Use = EVERY_USE) -> str:
    """Returns the head of a 200 with this entry; `status` is the value of `Cache-Status`.

    `max-age` counts from the load, as RFC 9111 has it: `max-age` less `Age` gives the `ttl` seconds
    that remain.
    """
    return (
        f"HTTP/1.1 200 OK\r\nContent-Type: {_sendable(entry.content_type)}\r\n"
        f"Content-Length: {len(entry.value)}\r\n{_validators(entry, status, age, ttl, use)}"
    )


def not_modified_head(entry: Entry, status: str, age: int, ttl: int, use: Use) -> str:
    """Returns the head of a 304, with the freshness that a 200 would have (RFC 9110, 15.4.5)."""
    return f"HTTP/1.1 304 Not Modified\r\n{_validators(entry, status, age, ttl, use)}"


def absence_lines(entry: Entry, status: str, age: int, ttl: int, use: Use) -> str:
    """Returns the header lines of a 404 `known-absent` that are about its entry."""
    return f"Age: {age}\r\n{_lives(entry, status, age, ttl, use)}"


def _validators(entry: Entry, status: str, age: int, ttl: int, use: Use) -> str:
    return f"ETag: {etag(entry)}\r\nAge: {age}\r\n{_lives(entry, status, age, ttl, use)}"


def _lives(entry: Entry, status: str, age: int, ttl: int, use: Use) -> str:
    """Returns the lines that say how the answer came, and for how long it may be kept by whom."""
    if use is not EVERY_USE and use.directives:
        lives = use.directives
    else:
        windows = _windows(entry.stale_for, entry.error_for)
        lives = f"max-age={age + ttl if age + ttl > 0 else 0}{windows}"
    return (
        f"Cache-Control: {lives}\r\n{_VARY_ALL if use.varies else _VARY}"
        f"Cache-Status: {status}\r\n{_groups_line(entry.tags) if entry.tags else ''}"
    )


@lru_cache(maxsize=1024)
def _windows(stale_for_us: int, error_for_us: int) -> str:
    text = f", stale-while-revalidate={stale_for_us // SECONDS}" if stale_for_us >= SECONDS else ""
    return text + (f", stale-if-error={error_for_us // SECONDS}" if error_for_us >= SECONDS else "")


@memo
def _groups_line(tags: tuple[str, ...]) -> str:
    """Returns the line, or several lines if one would be too long for many clients.

    A list may be spread over lines of one name (RFC 9110, 5.3). Empty for tags that the header cannot
    carry: such tags have come from elsewhere than the web layer.
    """
    try:
        texts = [cache_groups.format((tag,)) for tag in tags]
    except ValueError:
        return ""
    lines: list[str] = []
    for text in texts:
        if lines and len(lines[-1]) + len(text) + 2 <= _LONGEST_GROUPS_LINE:
            lines[-1] += f", {text}"
        else:
            lines.append(text)
    return "".join(f"Cache-Groups: {line}\r\n" for line in lines)


@memo
def _sendable(content_type: str) -> str:
    """Returns the content type if it is a media type, else `application/octet-stream`.

    An entry may hold whatever an origin said, and nothing else may end up between the header lines.
    """
    return content_type if is_media_type(content_type) else OCTETS


class Tail:
    """The lines that end every head: `Date`, `Cachesvc-Lag`, and what browsers must heed.

    They are rendered again when they are 10 ms old, not for each answer.
    """

    def __init__(self, more: str = "") -> None:
        """`more`: complete header lines that every head has."""
        self._more = more
        self._rendered_at_us = -1 << 62
        self._lines = b""

    def is_old(self, now_us: int) -> bool:
        return not 0 <= now_us - self._rendered_at_us < _TAIL_LIFE_US

    def render(self, now_us: int, lag_us: int | None) -> None:
        # The bound grows while the lines are used.
        self._lines = self.lines_of(now_us, None if lag_us is None else lag_us + _TAIL_LIFE_US)
        self._rendered_at_us = now_us

    def lines_of(self, now_us: int, lag_us: int | None) -> bytes:
        """Returns the lines of one answer; the bound is rounded up to ms."""
        date = formatdate(now_us // SECONDS, usegmt=True)
        lag = f"Cachesvc-Lag: {-(-lag_us // MILLISECONDS) / 1000:.3f}\r\n" if lag_us is not None else ""
        return f"Date: {date}\r\n{lag}{self._more}".encode()

    @property
    def lines(self) -> bytes:
        return self._lines
