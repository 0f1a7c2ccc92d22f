"""From YAML text to frozen structs, with the exact place of every mistake.

msgspec alone would do the conversion, but its errors name a mapping's value as `$.cells[...]`,
and an unknown field without a suggestion. So structs and mappings are walked here, field by
field, and msgspec converts the leaves.
"""

from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec
import yaml

from cachesvc.model.did_you_mean import did_you_mean
from cachesvc.model.errors import ConfigError
from cachesvc.model.units import Duration, Size

StructT = TypeVar("StructT", bound=msgspec.Struct)

Secret = Annotated[str, msgspec.Meta(extra={"is": "secret"})]
"""The type of a text that no message repeats."""

ROOT = "$"
QUANTITIES = (Duration, Size)
LARGEST = 1 << 52
"""The largest quantity, µs (142 years) or bytes. Sums of a few of them and a date stay
within 64 bits, and within the integers of Lua."""


def parse(path: Path) -> Any:
    """Returns the document's plain mappings, lists and scalars.

    Raises `ConfigError` for a file that cannot be read or is no YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"cannot be read: {error}") from error
    return parse_text(text, name=str(path))


def parse_text(text: str, *, name: str) -> Any:
    """Returns the same as `parse`, of a text; `name` stands in the messages of errors."""
    try:
        refuse_duplicates(yaml.compose(text, Loader=yaml.SafeLoader), ROOT, set())
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise ConfigError(place, f"is not YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(name, f"is not YAML: {error}") from error


def refuse_duplicates(node: yaml.Node | None, path: str, seen: set[int]) -> None:
    """Raises `ConfigError` for a key that stands twice in a mapping.

    YAML would keep the last one without a word, and a second `ttl:` is a mistake. `seen` holds the
    nodes that were visited, so that a cycle of aliases ends.
    """
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            refuse_duplicates(item, f"{path}[{index}]", seen)
    elif isinstance(node, yaml.MappingNode):
        first_line: dict[str, int] = {}
        for key, value in node.value:
            here = f"{path}.{key.value}"
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode):
                if key.value in first_line:
                    raise ConfigError(
                        here, f"stands here twice (lines {first_line[key.value]} and {line}): keep one"
                    )
                first_line[key.value] = line
            refuse_duplicates(value, here, seen)


def read_struct(data: Any, kind: type[StructT], path: str = ROOT) -> StructT:
    """Builds `kind` from a plain mapping.

    Raises `ConfigError` with the path of the first wrong field.
    """
    given = as_mapping(data, path)
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    for name in given:
        if name not in fields:
            raise ConfigError(f"{path}.{name}", f"unknown field{did_you_mean(name, fields)}")
    for name, field in fields.items():
        if field.required and name not in given:
            raise ConfigError(f"{path}.{name}", "is missing: it has no default")
    values = {
        fields[name].name: read_value(value, fields[name].type, f"{path}.{name}")
        for name, value in given.items()
    }
    return kind(**values)


def read_value(data: Any, kind: Any, path: str) -> Any:
    """Builds a field's value: structs, also in a mapping or tuple, or a leaf; each may be
    None.

    Raises `ConfigError`.
    """
    if get_origin(kind) in (Union, UnionType) and NoneType in get_args(kind):
        (inner,) = (arm for arm in get_args(kind) if arm is not NoneType)
        return None if data is None else read_value(data, inner, path)
    if get_origin(kind) is dict:
        value_kind = get_args(kind)[1]
        return {
            name: read_value(value, value_kind, f"{path}.{name}")
            for name, value in as_mapping(data, path).items()
        }
    if get_origin(kind) is tuple and _is_struct(get_args(kind)[0]) and isinstance(data, list):
        return tuple(
            read_struct(item, get_args(kind)[0], f"{path}[{index}]") for index, item in enumerate(data)
        )
    if _is_struct(kind):
        return read_struct(data, kind, path)
    return read_leaf(data, kind, path)


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def read_leaf(data: Any, kind: Any, path: str, *, strict: bool = True) -> Any:
    """Converts a scalar. Raises `ConfigError`.

    With `strict=False`, as for environment variables, a text such as `"9000"` is read as a number.
    """
    if kind in QUANTITIES and type(data) is kind:
        return data
    try:
        return msgspec.convert(data, kind, dec_hook=_quantity, strict=strict)
    except msgspec.ValidationError as error:
        allowed = get_args(kind) if get_origin(kind) is Literal else ()
        if allowed:
            raise ConfigError(
                path, f"{data!r} is none of {', '.join(map(repr, allowed))}{did_you_mean(data, allowed)}"
            ) from error
        why = str(error).split(" - at ")[0]
        if kind == Secret:
            raise ConfigError(path, f"{why}: put it in quotes") from None
        raise ConfigError(path, why if kind in QUANTITIES else f"{why} ({data!r})") from error


def as_mapping(data: Any, path: str) -> dict[str, Any]:
    """Returns the mapping; an empty one for an empty document or section (`l1:` alone).

    Raises `ConfigError` for anything else, and for a name that is not text.
    """
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(path, f"must be a mapping of names to values, not {data!r}")
    for name in data:
        if not isinstance(name, str):
            # YAML 1.1 reads the bare words no, on and 12 as booleans and numbers.
            raise ConfigError(f"{path}.{name}", f"the name {name!r} is not text: put it in quotes")
    return data


def _quantity(kind: type, value: object) -> object:
    if not (kind is Duration or kind is Size):
        raise NotImplementedError(f"no way to read a {kind}")
    if isinstance(value, str):
        return _parsed(kind, value)
    if value == 0 and type(value) is int:
        return kind(0)  # zero is the same in every unit
    example = "'5m'" if kind is Duration else "'4MiB'"
    raise ValueError(f"{value!r} has no unit: write a number and a unit, such as {example}")


def _parsed(kind: type[Duration] | type[Size], text: str) -> Duration | Size:
    try:
        quantity = kind.parse(text)
    except OverflowError:
        quantity = kind(LARGEST + 1)
    if quantity > LARGEST:
        raise ValueError(f"{text!r} is more than can be counted")
    return quantity


def require(holds: bool, path: str, why: str) -> None:
    """Raises `ConfigError` unless the rule `holds`."""
    if not holds:
        raise ConfigError(path, why)
