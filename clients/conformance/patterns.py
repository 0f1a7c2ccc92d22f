"""Patterns: JSON values in which objects with a `$…` member have a meaning of their own.

Such an object stands for a value that JSON cannot express, or for one that may vary. A pattern is
rendered (`rendered`), which makes a request to send or an example of an answer, or it is matched
against a value (`mismatch`). Both use bindings: the values that `as` has captured so far, by name.
"""

import base64
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from xxhash import xxh3_64_intdigest

Bindings: TypeAlias = dict[str, Any]

_PAIR = struct.Struct(">QQ")
_MISSING = object()


def digest(target: str) -> int:
    """Returns the digest of `ns/key`, `ns#tag` or `ns`."""
    return xxh3_64_intdigest(target.encode())


def packed(pairs: Sequence[tuple[int, int]]) -> str:
    """Returns the token of these `(digest, at)` pairs."""
    return base64.urlsafe_b64encode(b"".join(_PAIR.pack(*pair) for pair in pairs)).rstrip(b"=").decode()


def unpacked(token: str) -> dict[int, int]:
    """Returns the pairs of the token: digest → `at`."""
    return dict(_PAIR.iter_unpack(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))))


def rendered(pattern: Any, bindings: Bindings) -> Any:
    """Returns the value of the pattern, with the example of each part that may vary.

    Members whose pattern is `$left_out` are left out.
    """
    if isinstance(pattern, list):
        return [rendered(item, bindings) for item in pattern]
    if not isinstance(pattern, dict):
        return pattern
    marker = _marker(pattern)
    if marker is None:
        return {
            name: rendered(item, bindings) for name, item in pattern.items() if item != {"$left_out": True}
        }
    return _RENDER[marker](pattern, bindings)


def _like(pattern: dict[str, Any], bindings: Bindings) -> Any:
    example = rendered(pattern["$like"], bindings)
    return bindings.setdefault(pattern["as"], example) if "as" in pattern else example


def _ref(pattern: dict[str, Any], bindings: Bindings) -> Any:
    value = bindings[pattern["$ref"]]
    return value + pattern["plus"] if "plus" in pattern else value


def _repeat(pattern: dict[str, Any], bindings: Bindings) -> Any:
    what, times = pattern["$repeat"]
    return rendered(what, bindings) * times


_RENDER: Mapping[str, Callable[[dict[str, Any], Bindings], Any]] = {
    "$like": _like,
    "$ref": _ref,
    "$repeat": _repeat,
    "$bytes": lambda pattern, bindings: rendered(pattern["$bytes"], bindings).encode(),
    "$base64": lambda pattern, _: base64.b64decode(pattern["$base64"]),
    "$join": lambda pattern, bindings: "".join(str(rendered(part, bindings)) for part in pattern["$join"]),
    "$token": lambda pattern, bindings: packed(
        [(digest(pair["target"]), rendered(pair["at"], bindings)) for pair in pattern["$token"]]
    ),
}


def mismatch(pattern: Any, value: Any, bindings: Bindings, at: str = "$") -> str:
    """Returns a text that tells where `value` differs from `pattern`; empty if it matches.

    `at` is the path of `value`, for the text. Values of patterns with `as` are captured in `bindings`.
    """
    if isinstance(pattern, dict):
        marker = _marker(pattern)
        if marker is None:
            return _object_mismatch(pattern, value, bindings, at)
        if marker == "$like":
            return _like_mismatch(pattern, value, bindings, at)
        if marker == "$token":
            return _token_mismatch(pattern["$token"], value, bindings, at)
        if marker == "$left_out":
            return f"{at}: {value!r} where nothing should be"
        pattern = rendered(pattern, bindings)
    if isinstance(pattern, list) and isinstance(value, list | tuple):
        if len(pattern) != len(value):
            return f"{at}: {len(value)} items, expected {len(pattern)}"
        found = (mismatch(item, value[i], bindings, f"{at}[{i}]") for i, item in enumerate(pattern))
        return next(filter(None, found), "")
    return "" if pattern == value else f"{at}: {value!r}, expected {pattern!r}"


def _object_mismatch(pattern: dict[str, Any], value: Any, bindings: Bindings, at: str) -> str:
    """Compares the members that the pattern names; further members are not looked at."""
    if not isinstance(value, dict):
        return f"{at}: {value!r}, expected an object"
    for name, item in pattern.items():
        found = value.get(name, _MISSING)
        if found is _MISSING:
            if item != {"$left_out": True}:
                return f"{at}.{name}: missing, expected {item!r}"
        elif wrong := mismatch(item, found, bindings, f"{at}.{name}"):
            return wrong
    return ""


def _like_mismatch(pattern: dict[str, Any], value: Any, bindings: Bindings, at: str) -> str:
    example = rendered(pattern["$like"], bindings)
    if isinstance(example, bool) is not isinstance(value, bool) or not isinstance(value, _kin(example)):
        return f"{at}: {value!r}, expected something like {example!r}"
    if "matching" in pattern and not re.fullmatch(pattern["matching"], value):
        return f"{at}: {value!r} does not match {pattern['matching']!r}"
    if ("from" in pattern and value < pattern["from"]) or ("to" in pattern and value > pattern["to"]):
        return f"{at}: {value!r} is not from {pattern.get('from')} to {pattern.get('to')}"
    if "as" in pattern:
        bindings[pattern["as"]] = value
    return ""


def _kin(example: Any) -> Any:
    return int | float if isinstance(example, int | float) else type(example)


def _token_mismatch(pairs: list[dict[str, Any]], value: Any, bindings: Bindings, at: str) -> str:
    """Compares a token that must have the same targets, in any order."""
    found = unpacked(value)
    wanted = {digest(pair["target"]): pair for pair in pairs}
    if found.keys() != wanted.keys():
        return f"{at}: a token of {len(found)} other targets than {[pair['target'] for pair in pairs]}"
    wrong = (
        mismatch(pair["at"], found[key], bindings, f"{at}({pair['target']})") for key, pair in wanted.items()
    )
    return next(filter(None, wrong), "")


def _marker(pattern: dict[str, Any]) -> str | None:
    return next((name for name in pattern if name.startswith("$")), None)
