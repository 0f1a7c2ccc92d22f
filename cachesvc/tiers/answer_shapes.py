"""The parts of a server's answer, each taken only in the shape that it has to have.

A server may answer anything: it is of another release, another program, or in other hands. Each
script's answer is decoded in one place, out of these, so that a wrong shape is met there and not
where the value is used. What has another shape raises `ShapeError`.
"""

import re
from typing import Any, Final

MOST: Final = 1 << 53
"""The largest number of a script: Lua counts in doubles, which are exact up to here."""
LONGEST_TEXT: Final = 1 << 16
"""Bytes of the longest text: names, positions, reasons. Values are no texts."""

_ITEM_ID = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")


class ShapeError(ValueError):
    """An answer has another shape than its script's."""


def as_it_is(said: Any) -> Any:
    """Returns the answer, whatever its shape."""
    return said


def number(said: Any, *, least: int = 0) -> int:
    """Returns the whole number that was said, from `least` to 2^53."""
    if type(said) is not int or not least <= said <= MOST:
        raise ShapeError("not a number in range")
    return said


def data(said: Any) -> bytes:
    """Returns the bytes that were said."""
    if type(said) is not bytes:
        raise ShapeError("not bytes")
    return said


def text(said: Any) -> str:
    """Returns the text that was said, in UTF-8."""
    if type(said) is not bytes or len(said) > LONGEST_TEXT:
        raise ShapeError("not a text")
    try:
        return said.decode()
    except UnicodeDecodeError as error:
        raise ShapeError("not UTF-8") from error


def item_id(said: Any) -> str:
    """Returns the id of an item of a stream."""
    found = text(said)
    if not _ITEM_ID.fullmatch(found):
        raise ShapeError("not the id of an item")
    return found


def parts(said: Any, count: int | None = None) -> list[Any]:
    """Returns the list that was said; it has `count` parts if that is given."""
    if type(said) is not list or count not in (None, len(said)):
        raise ShapeError("not a list of so many parts")
    return said
