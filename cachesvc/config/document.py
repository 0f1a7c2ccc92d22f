"""From YAML text to frozen structs, with the exact place of every mistake.

msgspec alone would do the conversion, but its errors name a mapping's value as `$.cells[...]`, an
unknown field without a suggestion, and only the first of several mistakes. So structs and mappings
are walked here, field by field, and msgspec converts the leaves.

A file of somebody's hand may be anything: another encoding, a device that never ends, a few hundred
bytes of aliases that stand for 10^9 values. All of this is a mistake with a sentence of its own.
"""

import math
from datetime import date, datetime
from pathlib import Path
from reprlib import Repr
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec
import yaml

from cachesvc.config.mistakes import Mistakes, collected
from cachesvc.model.did_you_mean import did_you_mean
from cachesvc.model.errors import ConfigError
from cachesvc.model.units import Duration, Part, Size

StructT = TypeVar("StructT", bound=msgspec.Struct)

Secret = Annotated[str, msgspec.Meta(extra={"is": "secret"})]
"""The type of a text that no message repeats."""

ROOT = "$"
QUANTITIES = (Duration, Size, Part)
LARGEST = 1 << 52
"""The largest whole number, and the largest quantity, µs (142 years) or bytes.

Sums of a few of them and a date stay within 64 bits, and within the integers of Lua."""
LARGEST_FILE_BYTES = 16 << 20
MOST_VALUES = 1_000_000
"""The most values of a document, each counted as often as an alias repeats it."""

_BLANKS: dict[Any, Any] = {
    str: "",
    Secret: "",
    int: 0,
    float: 0.0,
    bool: False,
    Duration: Duration(0),
    Size: Size(0),
    Part: Part("0B"),
}

_SHORT = Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxlong, _SHORT.maxother = 2, 1000, 1000, 200


def shown(value: object) -> str:
    """Returns a value for a message, as Python writes it, and shortened if it is long."""
    return _SHORT.repr(value)


def parse(path: Path, found: Mistakes | None = None) -> Any:
    """Returns the document's plain mappings, lists and scalars.

    Raises `ConfigError` for a file that cannot be read or is no YAML. With `found`, keys that stand
    twice are noted there; without, they are raised, too.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror or error}") from error
    if len(content) > LARGEST_FILE_BYTES:
        raise ConfigError(str(path), f"is longer than {LARGEST_FILE_BYTES >> 20} MiB: is it the right file?")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path}:{line}", f"is not UTF-8 (byte 0x{content[error.start]:02x}): save the file as UTF-8"
        ) from None
    return parse_text(text, name=str(path), found=found)


def parse_text(text: str, *, name: str, found: Mistakes | None = None) -> Any:
    """Returns the same as `parse`, of a text; `name` stands in the messages of errors."""
    loader: yaml.SafeLoader | None = None
    try:
        with collected(found) as found:
            loader = yaml.SafeLoader(text)
            node = loader.get_single_node()
            if node is None:
                return None
            _check_size(node, name)
            note_duplicates(node, found)
            return loader.construct_document(node)
    except ConfigError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise ConfigError(place, f"is not YAML: {error.problem}") from error
    except RecursionError:
        raise ConfigError(name, "is not YAML: it is nested too deeply") from None
    except (yaml.YAMLError, ValueError, ArithmeticError, LookupError, AttributeError, TypeError) as error:
        # PyYAML raises any of these for a scalar that its tag does not fit, such as `!!timestamp soon`.
        why = " ".join(str(error).split()) if isinstance(error, (yaml.YAMLError, ValueError)) else ""
        raise ConfigError(name, f"is not YAML: {why or 'a value does not fit its !!tag'}") from error
    finally:
        if loader is not None:
            loader.dispose()


def _check_size(root: yaml.Node, name: str) -> None:
    """Raises `ConfigError` for a document that stands for too many values.

    A node that has several aliases is composed once and stands in many places. Ten lines, each with
    ten aliases of the line before it, are 10^10 values.
    """
    sizes: dict[int, int] = {}
    open_: set[int] = set()

    def size(node: yaml.Node) -> int:
        if id(node) in open_:
            raise ConfigError(
                f"{name}:{node.start_mark.line + 1}", "is not YAML: an anchor's value has its own alias in it"
            )
        if id(node) not in sizes:
            open_.add(id(node))
            if isinstance(node, yaml.MappingNode):
                children = [size(one) for pair in node.value for one in pair]
            else:
                children = [size(one) for one in node.value] if isinstance(node, yaml.SequenceNode) else []
            open_.discard(id(node))
            sizes[id(node)] = 1 + sum(children)
        return sizes[id(node)]

    if size(root) > MOST_VALUES:
        raise ConfigError(name, f"stands for more than {MOST_VALUES} values: use fewer aliases")


def note_duplicates(root: yaml.Node, found: Mistakes) -> None:
    """Notes each key that stands twice in a mapping.

    YAML would keep the last one without a word, and a second `ttl:` is a mistake.
    """
    seen: set[int] = set()

    def visit(node: yaml.Node, path: str) -> None:
        if id(node) in seen:
            return
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                visit(item, f"{path}[{index}]")
        elif isinstance(node, yaml.MappingNode):
            first_line: dict[str, int] = {}
            for key, value in node.value:
                here = f"{path}.{key.value if isinstance(key, yaml.ScalarNode) else '?'}"
                line = key.start_mark.line + 1
                if isinstance(key, yaml.ScalarNode):
                    if key.value in first_line:
                        lines = f"lines {first_line[key.value]} and {line}"
                        found.note(here, f"stands here twice ({lines}): keep one")
                    first_line.setdefault(key.value, line)
                visit(value, here)

    visit(root, ROOT)


def read_struct(data: Any, kind: type[StructT], path: str = ROOT, found: Mistakes | None = None) -> StructT:
    """Builds `kind` from a plain mapping.

    Raises `ConfigError` with the path of every wrong field; with `found`, they are noted there, and
    the field's default or an empty value stands in for a value that is wrong.
    """
    with collected(found) as found:
        return _struct(data, kind, path, found)


def _struct(data: Any, kind: type[StructT], path: str, found: Mistakes) -> StructT:
    given = as_mapping(data, path, found)
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    for name in given:
        if name not in fields:
            found.note(f"{path}.{name}", f"unknown field{did_you_mean(name, fields)}")
    values = {}
    for name, field in fields.items():
        here = f"{path}.{name}"
        if name in given:
            values[field.name] = _value(given[name], field, here, found)
        elif field.required:
            found.note_unread(here, "is missing: it has no default")
            values[field.name] = _blank(field.type)
    return kind(**values)


def _value(data: Any, field: msgspec.structs.FieldInfo, path: str, found: Mistakes) -> Any:
    """Returns the field's value; if it is wrong, the default or an empty value."""
    try:
        return read_value(data, field.type, path, found)
    except ConfigError as error:
        found.note_unread(path, error.why)
    if field.default is not msgspec.NODEFAULT:
        return field.default
    return _blank(field.type) if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def _blank(kind: Any) -> Any:
    """Returns an empty value of the type, which stands in for one that cannot be read."""
    if _is_struct(kind):
        return kind(**{one.name: _blank(one.type) for one in msgspec.structs.fields(kind) if one.required})
    return {} if get_origin(kind) is dict else () if get_origin(kind) is tuple else _BLANKS[kind]


def read_value(data: Any, kind: Any, path: str, found: Mistakes) -> Any:
    """Builds a field's value: structs, also in a mapping or tuple, or a leaf; each may be
    None.

    Raises `ConfigError` for a leaf; mistakes within structs and mappings are noted.
    """
    if get_origin(kind) in (Union, UnionType) and NoneType in get_args(kind):
        (inner,) = (arm for arm in get_args(kind) if arm is not NoneType)
        return None if data is None else read_value(data, inner, path, found)
    if get_origin(kind) is dict:
        return _mapping(data, get_args(kind)[1], path, found)
    if get_origin(kind) is tuple and _is_struct(get_args(kind)[0]) and isinstance(data, list):
        return tuple(
            _struct(item, get_args(kind)[0], f"{path}[{index}]", found) for index, item in enumerate(data)
        )
    if _is_struct(kind):
        return _struct(data, kind, path, found)
    return read_leaf(data, kind, path)


def _mapping(data: Any, kind: Any, path: str, found: Mistakes) -> dict[str, Any]:
    values = {}
    for name, value in as_mapping(data, path, found).items():
        try:
            values[name] = read_value(value, kind, f"{path}.{name}", found)
        except ConfigError as error:
            found.note_unread(f"{path}.{name}", error.why)
            values[name] = _blank(kind)
    return values


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def read_leaf(data: Any, kind: Any, path: str, *, strict: bool = True) -> Any:
    """Converts a scalar. Raises `ConfigError`.

    With `strict=False`, as for environment variables, a text such as `"9000"` is read as a number.
    """
    if kind in QUANTITIES and type(data) is kind:
        return data
    if kind is datetime and type(data) is date:
        raise ConfigError(path, f"is a day: write the time, too, such as {data}T00:00:00Z")
    if not _is_utf8(data):
        raise ConfigError(path, f"{'it' if kind == Secret else shown(data)} is not UTF-8")
    try:
        value = msgspec.convert(data, kind, dec_hook=_quantity, strict=strict)
    except msgspec.ValidationError as error:
        allowed = get_args(kind) if get_origin(kind) is Literal else ()
        if allowed:
            raise ConfigError(
                path, f"{shown(data)} is none of {', '.join(map(repr, allowed))}{did_you_mean(data, allowed)}"
            ) from error
        why = str(error).split(" - at ")[0]
        if kind == Secret:
            raise ConfigError(path, f"{why}: put it in quotes") from None
        raise ConfigError(path, why if kind in QUANTITIES else f"{why} ({shown(data)})") from error
    if (kind is int and abs(value) > LARGEST) or (kind is float and math.isinf(value)):
        raise ConfigError(path, f"{shown(data)} is more than can be counted")
    return value


def as_mapping(data: Any, path: str, found: Mistakes) -> dict[str, Any]:
    """Returns the mapping; an empty one for an empty document or section (`l1:` alone).

    Anything else, and a name that is not text, is noted and left out.
    """
    if data is None:
        return {}
    if not isinstance(data, dict):
        found.note_unread(path, f"must be a mapping of names to values, not {shown(data)}")
        return {}
    for name in data:
        if not isinstance(name, str):
            # YAML 1.1 reads the bare words no, on and 12 as booleans and numbers.
            found.note(f"{path}.{shown(name)}", f"the name {shown(name)} is not text: put it in quotes")
        elif not _is_utf8(name):
            found.note(f"{path}.{name}", "the name is not UTF-8")
    return {name: value for name, value in data.items() if isinstance(name, str)}


def _is_utf8(data: object) -> bool:
    r"""False if a text in it has a surrogate, as `"\ud800"` in YAML gives one."""
    if isinstance(data, list):
        return all(map(_is_utf8, data))
    return not isinstance(data, str) or not any("\ud800" <= sign <= "\udfff" for sign in data)


def _quantity(kind: type, value: object) -> object:
    if not (kind is Duration or kind is Size or kind is Part):
        raise NotImplementedError(f"no way to read a {kind}")
    if isinstance(value, str):
        return _parsed(kind, value)
    if value == 0 and type(value) is int:
        return _BLANKS[kind]  # zero is the same in every unit
    example = "'5m'" if kind is Duration else "'4MiB'"
    raise ValueError(f"{shown(value)} has no unit: write a number and a unit, such as {example}")


def _parsed(kind: type[Duration] | type[Size] | type[Part], text: str) -> Duration | Size | Part:
    try:
        quantity = kind.parse(text)
        amount = quantity.of(LARGEST) if isinstance(quantity, Part) else quantity
    except OverflowError:
        amount = LARGEST + 1
    if amount > LARGEST:
        raise ValueError(f"{text!r} is more than can be counted")
    return quantity
