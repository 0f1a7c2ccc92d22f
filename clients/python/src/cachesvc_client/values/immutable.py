"""Tells whether objects of a type can be shared by many callers, as none can change them.

Only then does a near cache keep the decoded object. Otherwise it keeps the bytes, and every hit
decodes an object of its own.
"""

import dataclasses
import datetime
import decimal
import enum
import types
import typing
import uuid
from typing import Any, get_args, get_origin

import msgspec

_PLAIN = (
    *(bytes, str, int, float, bool, complex, types.NoneType),
    *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta, decimal.Decimal, uuid.UUID),
)
_HOLDERS = (tuple, frozenset)


def is_immutable(kind: Any) -> bool:
    """True if the annotation alone proves that no object of the type can be changed.

    `Any`, `object` and every type that is not handled here give false.
    """
    return _is_immutable(kind, frozenset())


def _is_immutable(kind: Any, inside: frozenset[Any]) -> bool:
    # `inside`: a type that holds itself is judged by its other fields.
    if kind in _PLAIN or kind is None or kind in inside:
        return True
    origin = get_origin(kind)
    if origin is typing.Literal:
        return True
    if origin is typing.Annotated:
        return _is_immutable(get_args(kind)[0], inside)
    if origin in (typing.Union, types.UnionType, *_HOLDERS):
        return all(part is Ellipsis or _is_immutable(part, inside) for part in get_args(kind))
    return isinstance(kind, type) and _is_frozen_class(kind, inside | {kind})


def _is_frozen_class(kind: type, inside: frozenset[Any]) -> bool:
    if issubclass(kind, enum.Enum):
        return True
    if not _is_frozen(kind):
        return False
    try:
        hints = typing.get_type_hints(kind, include_extras=True)
    except (NameError, TypeError):  # names that only a type checker knows
        return False
    return all(
        _is_immutable(hint, inside) for hint in hints.values() if get_origin(hint) is not typing.ClassVar
    )


def _is_frozen(kind: type) -> bool:
    if issubclass(kind, msgspec.Struct):
        return kind.__struct_config__.frozen
    if dataclasses.is_dataclass(kind):
        return bool(kind.__dataclass_params__.frozen)  # type: ignore[attr-defined]  # typeshed lacks it
    return issubclass(kind, tuple) and hasattr(kind, "_fields")  # a NamedTuple
