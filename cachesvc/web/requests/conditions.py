"""`If-Match` and `If-None-Match` (RFC 9110, 13.1): lists of entity tags, or `*`."""

import re
from collections.abc import Sequence

from msgspec import Struct
from multidict import CIMultiDictProxy

from cachesvc.model.errors import RequestError
from cachesvc.model.problems import ProblemKind

ANY = "*"
_ETAG = re.compile(r'[ \t]*((?:W/)?"[\x21\x23-\x7e\x80-\xff]*")[ \t]*(?:,|\Z)')


def etags_of(headers: CIMultiDictProxy[str], field: str) -> tuple[str, ...]:
    """Returns the tags of all lines of the field; `("*",)` for any, empty if it was not sent.

    Raises `RequestError` (`bad-header`).
    """
    if field not in headers:
        return ()
    value = ", ".join(headers.getall(field)).strip()
    if value == ANY:
        return (ANY,)
    tags, at = [], 0
    while at < len(value):
        match = _ETAG.match(value, at)
        if match is None:
            raise RequestError(
                ProblemKind.BAD_HEADER, f'not a list of quoted ETags, such as "abc", nor {ANY}', field=field
            )
        tags.append(match[1])
        at = match.end()
    if not tags:
        raise RequestError(ProblemKind.BAD_HEADER, f"empty: send quoted ETags, or {ANY}", field=field)
    return tuple(tags)


def matches_weakly(tags: Sequence[str], etag: str) -> bool:
    """True if a tag of `If-None-Match` is that ETag: strong and weak tags of equal text match."""
    return any(tag == ANY or tag.removeprefix("W/") == etag for tag in tags)


def matches_strongly(tags: Sequence[str], etag: str) -> bool:
    """True if a tag of `If-Match` is that ETag, which is strong: a weak tag matches nothing."""
    return any(tag in (ANY, etag) for tag in tags)


class Conditions(Struct, frozen=True, gc=False):
    """The ETags of both headers; empty where a header was not sent."""

    if_match: tuple[str, ...] = ()
    if_none_match: tuple[str, ...] = ()


NONE = Conditions()
_EXCLUSIVE = (
    ("If-Match", "If-None-Match"),
    ("Cachesvc-Lease", "If-Match"),
    ("Cachesvc-Lease", "If-None-Match"),
)


def conditions_of(headers: CIMultiDictProxy[str]) -> Conditions:
    """Returns the conditions of a request.

    Raises `RequestError`: `bad-header` if one is malformed, `contradiction` for two headers that
    exclude each other.
    """
    if "If-Match" not in headers and "If-None-Match" not in headers:
        return NONE
    for one, other in _EXCLUSIVE:
        if one in headers and other in headers:
            raise RequestError(ProblemKind.CONTRADICTION, f"{one} and {other} exclude each other", field=one)
    return Conditions(etags_of(headers, "If-Match"), etags_of(headers, "If-None-Match"))
