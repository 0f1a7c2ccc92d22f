"""`Cache-Groups` (RFC 9875): the tags of an answer, as a list of quoted strings.

The form is a structured-field List of Strings (RFC 9651, 3.1 and 3.3.3). Parsing and formatting
are both strict. RFC 9651 would ignore a field that does not parse as a whole; but a tag that is
dropped in silence is an invalidation that does not arrive, so the caller of `parse` has to
decide.
"""

import re
from collections.abc import Iterable

MAX_TAG_BYTES = 256

_SPACE = re.compile(r"[ \t]*+")
_STRING = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*+)"')
_PARAMETER = re.compile(
    # a key, then perhaps a string, token, number, byte sequence, boolean, date or display string
    r"; *+[a-z*][a-z0-9_.*-]*+"
    r'(?:=(?:"(?:[ !#-\[\]-~]|\\["\\])*+"|[A-Za-z*][!#$%&\'*+.^_`|~0-9A-Za-z:/-]*+'
    r'|-?[0-9]{1,15}(?:\.[0-9]{1,3})?|:[A-Za-z0-9+/=]*+:|\?[01]|@-?[0-9]{1,15}|%"[ !#-~]*+"))?'
)
_ESCAPED = re.compile(r"\\(.)")
_TO_ESCAPE = re.compile(r'(["\\])')
_TAG = re.compile(r"[ -~]+")


def parse(value: str, *, max_tags: int | None = None) -> tuple[str, ...]:
    """Returns the tags, each once, in order; parameters are ignored.

    The lines of a field have to be joined with a comma first. Raises `ValueError`, naming the
    position, for a value that is not a List of Strings, an empty or too long tag, or too many tags.
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
    """Returns where the next member begins; `end` if there is none.

    Raises `ValueError` for a comma without a member behind it.
    """
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
    """Returns the field's value; empty for no tags.

    Raises `ValueError` for a text that is no tag.
    """
    return ", ".join(
        '"' + _TO_ESCAPE.sub(r"\\\1", check_tag(tag, index)) + '"' for index, tag in enumerate(tags)
    )


def check_tag(tag: str, index: int = 0) -> str:
    """Returns the tag itself.

    Raises `ValueError`, with `index` in its message, for a text that is no tag.

    A tag has 1 to 256 printable ASCII characters; the field can carry no others.
    """
    if not _TAG.fullmatch(tag) or len(tag) > MAX_TAG_BYTES:
        raise ValueError(f"tag {index}: a tag has 1 to {MAX_TAG_BYTES} printable ASCII characters")
    return tag
