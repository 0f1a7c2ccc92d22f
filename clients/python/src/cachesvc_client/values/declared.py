"""The types that a namespace may declare for its values.

msgspec reads and writes built-in types, its structs, dataclasses, attrs classes and more. Any other
class would fail at every read and write, so it is refused when it is declared. Models of pydantic,
and types with such a model in them, are pydantic's own affair: it validates what it reads.
"""

import dataclasses
import sys
import typing
from collections.abc import Callable
from typing import Any, get_args

import msgspec

from cachesvc_client.errors import DeclarationError


def check_declared(declared: Any) -> None:
    """Raises `DeclarationError` for a type that msgspec cannot read and write."""
    try:
        msgspec.json.Decoder(declared)
        info = msgspec.inspect.type_info(declared)
    except Exception as error:  # a string, an instance, a name that does not exist, …
        raise DeclarationError(f"type: {declared!r} is no type that values can have: {error}") from error
    if (unknown := _custom_in(info, set())) is not None:
        raise DeclarationError(
            f"type: {unknown.__qualname__} is unsupported: use built-in types, a dataclass, a msgspec.Struct,"
            " an attrs class or a pydantic model, or a codec= of your own"
        )


def _custom_in(info: Any, seen: set[int]) -> Any:
    """Returns a class inside the type that msgspec does not know; None if there is none."""
    if isinstance(info, msgspec.inspect.CustomType):
        return None if info.cls is object else info.cls
    if not isinstance(info, msgspec.inspect.Type | msgspec.inspect.Field) or id(info) in seen:
        return None
    seen.add(id(info))
    for name in info.__struct_fields__:
        part = getattr(info, name, None)
        for one in part if isinstance(part, tuple) else (part,):
            if (found := _custom_in(one, seen)) is not None:
                return found
    return None


def is_of_pydantic(declared: Any) -> bool:
    """True if there is a model of pydantic in the type, also as a field of a dataclass."""
    return "pydantic" in sys.modules and _has_model(declared, set())


def _has_model(declared: Any, seen: set[int]) -> bool:
    if id(declared) in seen:
        return False
    seen.add(id(declared))
    if isinstance(declared, type) and (
        issubclass(declared, sys.modules["pydantic"].BaseModel) or hasattr(declared, "__pydantic_fields__")
    ):
        return True
    parts = get_args(declared)
    if dataclasses.is_dataclass(declared) or hasattr(declared, "_fields"):
        try:
            parts = (*parts, *typing.get_type_hints(declared).values())
        except (NameError, TypeError):  # names that only a type checker knows
            return False
    return any(_has_model(part, seen) for part in parts)


def pydantic_json(declared: Any) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    """Returns pydantic's ways to write a type as JSON, and to read it."""
    try:
        adapter = sys.modules["pydantic"].TypeAdapter(declared)
    except Exception as error:
        raise DeclarationError(f"type: {declared!r} is no type that values can have: {error}") from error

    def encode(value: Any) -> bytes:
        # Warnings would tell that a value does not fit; it will not come back either, which is told.
        encoded: bytes = adapter.dump_json(value, by_alias=True, round_trip=True, warnings=False)
        return encoded

    return encode, adapter.validate_json
