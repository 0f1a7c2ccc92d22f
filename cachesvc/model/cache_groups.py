"""`Cache-Groups` (RFC 9875): the tags of an answer, as a structured-field List of Strings (RFC 9651, 3.1 and 3.3.3).

Strict both ways. RFC 9651 would have a field that does not parse ignored as a whole; a tag that is dropped in silence is an
invalidation that does not arrive, so whoever parses has to decide what to do with the answer.
"""

import re
from collections.abc import Iterable

MAX_TAG_BYTES = 256

_SPACE = re.compile(r"[ \t]*+")
_STRING = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*+)"')
_PARAMETER = re.compile(
    r"; *+[a-z*][a-z0-9_.*-]*+"  # a key, then perhaps a string, token, number, byte sequence, boolean, date, display string
    r'(?:=(?:"(?:[ !#-\[\]-~]|\\["\\])*+"|[A-Za-z*][!#$%&\'*+.^_`|~0-9A-Za-z:/-]*+'
    r'|-?[0-9]{1,15}(?:\.[0-9]{1,3})?|:[A-Za-z0-9+/=]*+:|\?[01]|@-?[0-9]{1,15}|%"[ !#-~]*+"))?'
)
_ESCAPED = re.compile(r"\\(.)")
_TO_ESCAPE = re.compile(r'(["\\])')
_TAG = re.compile(r"[ -~]+")


def parse(value: str, *, max_tags: int | None = None) -> tuple[str, ...]:
    """The tags, each once, in order; parameters are ignored. Lines of a field are joined with a comma first.

    Raises `ValueError`, naming the position, for what is not a List of Strings, an empty or too long tag, or too many.
    """
    tags: dict[str, None] = {}
    at, end = _skip(value, 0), len(value.rstrip(" "))
    while at < end:
        tag, at = _tag(value, at)
        tags[tag] = None
        if max_tags is not None and len(tags) > max_tags:
            raise ValueError(f"at {at}: more than {max_tags} tags")
        at = _next(value, at, end)
    return tuple(tags)


def _tag(value: str, at: int) -> tuple[str, int]:
    string = _STRING.match(value, at)
    if string is None:
        raise ValueError(f"at {at}: not a quoted string of printable ASCII")
    tag = _ESCAPED.sub(r"\1", string[1])
    if not 0 < len(tag) <= MAX_TAG_BYTES:
        raise ValueError(f"at {at}: a tag has 1 to {MAX_TAG_BYTES} bytes, not {len(tag)}")
    at = string.end()
    while parameter := _PARAMETER.match(value, at):
        at = parameter.end()
    return tag, at


def _next(value: str, at: int, end: int) -> int:
    """Where the member after this one begins; `end` if there is none. A comma has to have one behind it."""
    at = _skip(value, at)
    if at >= end:
        return end
    if value[at] != ",":
        raise ValueError(f"at {at}: a comma expected, not {value[at]!r}")
    following = _skip(value, at + 1)
    if following >= end:
        raise ValueError(f"at {at}: nothing follows the comma")
    return following


def _skip(value: str, at: int) -> int:
    return _SPACE.match(value, at).end()  # type: ignore[union-attr] # it matches the empty string everywhere


def format(tags: Iterable[str]) -> str:  # noqa: A001 the pair of `parse`; always used as cache_groups.format
    """The field's value; empty for no tags. Raises `ValueError` for what is not a tag."""
    return ", ".join(
        '"' + _TO_ESCAPE.sub(r"\\\1", check_tag(tag, index)) + '"' for index, tag in enumerate(tags)
    )


def check_tag(tag: str, index: int = 0) -> str:
    """The tag itself, if the field can carry it: 1 to 256 printable ASCII characters. Else raises `ValueError`."""
    if not _TAG.fullmatch(tag) or len(tag) > MAX_TAG_BYTES:
        raise ValueError(f"tag {index}: a tag has 1 to {MAX_TAG_BYTES} printable ASCII characters")
    return tag
