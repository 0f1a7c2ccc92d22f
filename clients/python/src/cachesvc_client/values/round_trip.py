"""Finds where a value that was decoded from its own bytes differs from what was encoded.

JSON and MessagePack know few types: a UUID comes back as a str, a tuple as a list, NaN as None. If
such a value were stored, the caller whose load brought it would get another value than the callers
that find it stored.

    difference(given, back)  →  ""                                            it came back
                                "$.user.id: UUID comes back as str"           it did not
"""

import dataclasses
import datetime
import marshal
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from msgspec import Struct

_PLAIN = frozenset((str, int, bool, bytes, type(None)))
_DEEPEST = 64
"""The nesting down to which the place of a value that cannot be encoded is looked for."""


class _Missing:
    pass


_MISSING = _Missing()


def difference(given: object, back: object, *, exact: bool, has_bytes: bool = False) -> str:
    """Returns the place at which `back` differs from `given`, and how; empty if it does not.

    `exact`: every part has to be of the very type that it was of. Otherwise a part may come back as
    an equal one of another type: 1 as 1.0, a member of a `StrEnum` as its text. NaN counts as equal
    to NaN. `has_bytes`: there may be bytes in `back`. Raises `RecursionError` if the value is nested
    more deeply than Python calls can be.
    """
    if not (exact and has_bytes) and _are_written_alike(given, back):
        return ""
    why = _difference(given, back, exact)
    return f"${why}" if why else ""


def _are_written_alike(given: Any, back: Any) -> bool:
    """True if both values are made of the same built-in types; a quick answer for most values.

    `marshal` writes exactly these types and no subclass of them, and it writes them in C: this takes
    about as long as encoding them. Version 2 of its format writes equal values alike, whichever of
    their parts are one object. It writes all buffers as it writes bytes, so a bytearray is not told
    from bytes. False says nothing.
    """
    try:
        return marshal.dumps(given, 2) == marshal.dumps(back, 2)
    except ValueError:  # a part is of another type, or is nested too deeply
        return False


def _difference(given: Any, back: Any, exact: bool) -> str:
    """Returns the difference with its place relative to `given`, such as `.user.id: …`."""
    if given is back:
        return ""
    kind = type(given)
    if kind is not type(back):
        if exact or not (isinstance(given, dict) and isinstance(back, dict)):
            return "" if not exact and _is_equal(given, back) else _told(given, back)
    elif kind is float:
        return "" if repr(given) == repr(back) else _told(given, back)
    if isinstance(given, dict):
        return _difference_of_dicts(given, back, exact)
    if isinstance(given, list | tuple):
        return _difference_of_parts(given, back, exact)
    if (names := _fields_of(kind)) is not None:  # type: ignore[arg-type]  # every class is hashable
        return _difference_of_fields(given, back, names, exact)
    if not _is_equal(given, back):
        return _told(given, back)
    if exact and isinstance(given, datetime.datetime) and given.utcoffset() != back.utcoffset():
        return f": {kind.__name__} comes back in another time zone"
    return ""


# Most parts are texts and whole numbers. These loops see to them without a call for each.


def _difference_of_dicts(given: dict[Any, Any], back: dict[Any, Any], exact: bool) -> str:
    if len(given) != len(back):
        return f": {len(given)} keys come back as {len(back)}"
    for (key, part), (back_key, back_part) in zip(given.items(), back.items(), strict=True):
        if (type(key) is not str or type(back_key) is not str or key != back_key) and (
            why := _difference(key, back_key, exact)
        ):
            return f"{_step(key)} (the key itself){why}"
        kind = type(part)
        if (kind not in _PLAIN or kind is not type(back_part) or part != back_part) and (
            why := _difference(part, back_part, exact)
        ):
            return _step(key) + why
    return ""


def _difference_of_parts(given: Any, back: Any, exact: bool) -> str:
    if len(given) != len(back):
        return f": {len(given)} parts come back as {len(back)}"
    for place, (part, back_part) in enumerate(zip(given, back, strict=True)):
        kind = type(part)
        if (kind not in _PLAIN or kind is not type(back_part) or part != back_part) and (
            why := _difference(part, back_part, exact)
        ):
            return f"[{place}]{why}"
    return ""


def _difference_of_fields(given: object, back: object, names: tuple[str, ...], exact: bool) -> str:
    for name in names:
        part, back_part = getattr(given, name, _MISSING), getattr(back, name, _MISSING)
        kind = type(part)
        if (kind not in _PLAIN or kind is not type(back_part) or part != back_part) and (
            why := _difference(part, back_part, exact)
        ):
            return f".{name}{why}"
    return ""


def _is_equal(given: Any, back: Any) -> bool:
    try:
        return bool(given == back) or bool(given != given and back != back)
    except Exception:  # noqa: BLE001  the comparison may be the caller's own code
        return False


def _told(given: object, back: object) -> str:
    return f": {_name(given)} comes back as {_name(back)}"


def _name(value: object) -> str:
    """Returns the name of the value's type; values are not named, because messages are logged."""
    if value is None or isinstance(value, float):
        return repr(value)
    if value is _MISSING:
        return "nothing"
    return type(value).__name__


def _step(key: object) -> str:
    return f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r}]"


@lru_cache(maxsize=1024)
def _fields_of(kind: type) -> tuple[str, ...] | None:
    if issubclass(kind, Struct):
        return kind.__struct_fields__
    if dataclasses.is_dataclass(kind):
        return tuple(one.name for one in dataclasses.fields(kind))
    attributes = getattr(kind, "__attrs_attrs__", None)
    return None if attributes is None else tuple(one.name for one in attributes)


def place_of_failure(value: object, encode: Callable[[Any], bytes]) -> str:
    """Returns the place of the innermost part that cannot be encoded, such as `$.user.id`."""
    place = "$"
    for _ in range(_DEEPEST):
        found = next(((step, part) for step, part in _parts(value) if _fails(part, encode)), None)
        if found is None:
            break
        place += found[0]
        value = found[1]
    return place


def _parts(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        yield from ((_step(key), part) for key, part in value.items())
    elif isinstance(value, list | tuple):
        yield from ((f"[{place}]", part) for place, part in enumerate(value))
    else:
        for name in _fields_of(type(value)) or ():  # type: ignore[arg-type]  # every class is hashable
            yield f".{name}", getattr(value, name, None)


def _fails(value: object, encode: Callable[[Any], bytes]) -> bool:
    try:
        encode(value)
    except Exception:  # noqa: BLE001  whatever it is, it is what is looked for
        return True
    return False
