"""Makes docs/reference.md: settings, commands, environment variables and problem kinds.

    python -m cachesvc.commands.reference > docs/reference.md

Types and defaults are those of the structs in `config/service.py` and `config/topology.py`; the
meaning of a field is the docstring below it. Commands and flags are read from the parsers of
`command_line.py`, kinds from `model/problems.py`. A test compares the committed page with this
module's output.
"""

import argparse
import ast
import inspect
import json
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby, pairwise
from textwrap import TextWrapper
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, Struct

from cachesvc.commands.command_line import COMMANDS, parser
from cachesvc.config.environment import NOT_SETTINGS, settings
from cachesvc.config.service import Service
from cachesvc.config.topology import Topology
from cachesvc.model.problems import ProblemKind, Retry
from cachesvc.model.units import Duration, Part, Size

WIDTH = 120

NAMED_ELSEWHERE = {
    "OTEL_EXPORTER_OTLP_CERTIFICATE": "The certificate file that the OTLP receiver is checked against.",
    "OTEL_EXPORTER_OTLP_HEADERS": "Headers for the OTLP receiver, such as `authorization=Bearer%20…`.",
    "OTEL_RESOURCE_ATTRIBUTES": "Attributes that are added to the resource of exported traces and metrics.",
    "PATH": "Where the embedded set-up looks for memcached.",
    "XDG_RUNTIME_DIR": "Where embedded servers keep their sockets, if `CACHESVC_RUN_DIR` is not given.",
}
"""Variables of OpenTelemetry and of the system that cachesvc reads."""

_QUANTITIES: Mapping[Any, tuple[str, Mapping[str, int]]] = {
    Duration: (
        "duration",
        {unit: int(Duration.parse(f"1{unit}")) for unit in ("d", "h", "m", "s", "ms", "us")},
    ),
    Size: ("size", {unit: int(Size.parse(f"1{unit}")) for unit in ("GiB", "MiB", "KiB", "B")}),
}
"""The name and the units of each type of quantity, largest unit first."""
_PLAIN = {datetime: "date and time", str: "text", int: "integer", float: "number", bool: "true or false"}


class Field(NamedTuple):
    """One field of a document."""

    path: str
    kind: str
    default: str
    """`required`, or `default` and the value; empty for a section that may be left out."""
    meaning: str


class Section(NamedTuple):
    """One struct of a document, at its place."""

    path: str
    """Empty for the document itself."""
    meaning: str
    fields: Sequence[Field]


def sections(kind: type[Struct], path: str = "") -> Iterator[Section]:
    """Yields the section of a document and those inside it, parents first."""
    meanings = docstrings(kind)
    within = f"{path}." if path else ""
    fields, inner = [], []
    for field in msgspec.structs.fields(kind):
        here = f"{within}{field.encode_name}"
        struct, place = struct_in(field.type)
        if struct is not None:
            inner.append((struct, here + place))
        if struct is None or field.name in meanings:
            fields.append(Field(here, type_name(field.type), default_of(field), meanings.get(field.name, "")))
    yield Section(path, inspect.cleandoc(kind.__doc__ or ""), fields)
    for struct, place in inner:
        yield from sections(struct, place)


def docstrings(kind: type[Struct]) -> dict[str, str]:
    """The text below each field, by the field's name; also of fields that are inherited."""
    sources = (one for one in kind.__mro__ if issubclass(one, Struct) and one is not Struct)
    statements = [
        statement
        for source in sources
        for definition in ast.parse(inspect.getsource(source)).body
        if isinstance(definition, ast.ClassDef)
        for statement in definition.body
    ]
    found = {}
    for field, below in pairwise(statements):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            found[field.target.id] = inspect.cleandoc(str(below.value.value))
    return found


def struct_in(kind: Any) -> tuple[type[Struct] | None, str]:
    """The struct in a field (or None) and its place: `.NAME` in a mapping, `[]` in a list."""
    for candidate in (kind, *get_args(kind)):
        if isinstance(candidate, type) and issubclass(candidate, Struct):
            return candidate, {dict: ".NAME", tuple: "[]"}.get(get_origin(kind), "")
    return None, ""


def type_name(kind: Any) -> str:
    """The type of a field as a person writes it in the document."""
    if kind in _QUANTITIES:
        return _QUANTITIES[kind][0]
    if kind in _PLAIN:
        return _PLAIN[kind]
    if kind is Part:
        return "size or percentage"
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return type_name(arguments[0])
    if origin is Literal:
        return "one of " + ", ".join(f"`{choice}`" for choice in arguments)
    if origin is dict:
        return f"mapping of names to {type_name(arguments[1])}"
    if origin is tuple:
        return f"list of {type_name(arguments[0])}"
    if origin in (types.UnionType, Union):
        return " or ".join(type_name(one) for one in arguments if one is not types.NoneType)
    return "section"


def default_of(field: msgspec.structs.FieldInfo) -> str:
    """Whether the field is required, and else its default as a person would write it."""
    if field.required:
        return "required"
    if field.default_factory is not NODEFAULT:
        value = field.default_factory()
        return "" if isinstance(value, Struct) else f"default `{written(value)}`"
    return "default none" if field.default is None else f"default `{written(field.default)}`"


def written(value: Any) -> str:
    """A value as it stands in a document."""
    if type(value) not in _QUANTITIES:
        return value if isinstance(value, str) and value else json.dumps(value)
    units = _QUANTITIES[type(value)][1]
    zero = "s" if isinstance(value, Duration) else "B"
    unit = next((unit for unit, size in units.items() if value and value % size == 0), zero)
    return f"{value // units[unit]}{unit}"


def page() -> str:
    """The whole document, in Markdown."""
    parts = [
        "# Reference",
        _wrapped(
            "Every setting, command, environment variable and kind of problem. This page is made from "
            "the code; do not edit it: change the code, then run `python -m "
            "cachesvc.commands.reference > docs/reference.md`."
        ),
        _wrapped(
            "Durations are written as a number and one of `us`, `ms`, `s`, `m`, `h`, `d` (`250ms`); "
            "sizes as a number and one of `B`, `KiB`, `MiB`, `GiB` (`4MiB`). A field that is not "
            "known, or a value out of range, stops the start with a message that names the field."
        ),
        "## The service document",
        _wrapped(
            "Settings of one instance: YAML for `cachesvc serve --config FILE`. Each of them can be "
            "given by the environment variable named beside it, which comes before the document."
        ),
        *_document(Service, {".".join(path): name for name, (path, _) in settings(Service)}),
        "## The topology document",
        _wrapped(
            "What all instances share: YAML for `--topology FILE`. `NAME` stands for a name of your choice."
        ),
        *_document(Topology, {}),
        "## Commands",
        *_commands(),
        "## Environment variables",
        _wrapped(
            "Besides the settings of the service document. Another name that begins with `CACHESVC_` "
            "stops the start, unless Kubernetes made it for a service (`CACHESVC_PORT=tcp://…`)."
        ),
        "\n".join(
            _item(f"`{name}`", meaning)
            for name, meaning in sorted({**NOT_SETTINGS, **NAMED_ELSEWHERE}.items())
        ),
        "## Problem kinds",
        _wrapped(
            "A failure is answered as `application/problem+json` (RFC 9457). Its `type` ends with one "
            "of these kinds. In a batch, a key's own problem has the same kinds and statuses. The "
            "same request would fail again, unless the kind is marked."
        ),
        *_kinds(),
    ]
    return "\n\n".join(parts) + "\n"


def _document(kind: type[Struct], variables: Mapping[str, str]) -> Iterator[str]:
    for section in sections(kind):
        if section.path:
            yield f"### `{section.path}`"
        if section.meaning:
            yield "\n\n".join(_wrapped(_one_line(text)) for text in section.meaning.split("\n\n"))
        if section.fields:
            yield "\n".join(_field(field, variables.get(field.path)) for field in section.fields)


def _field(field: Field, variable: str | None) -> str:
    facts = (field.kind, field.default, f"`{variable}`" if variable else "")
    return _item(f"`{field.path}` ({'; '.join(filter(None, facts))})", field.meaning)


def _commands() -> Iterator[str]:
    whole = parser({})
    for name, command in _subparsers(whole).items():
        yield f"### `cachesvc {name}`"
        yield _wrapped(f"{COMMANDS[name].purpose} Exit codes: {COMMANDS[name].exit_codes}")
        yield "\n".join(_argument(action) for action in _arguments(command))
        for what, inner in _subparsers(command).items():
            yield f"#### `cachesvc {name} {what}`"
            yield _wrapped(inner.description or "")
            yield "\n".join(_argument(action) for action in _arguments(inner))


def _subparsers(whole: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    found = [action.choices for action in whole._actions if isinstance(action, argparse._SubParsersAction)]
    return found[0] if found else {}


def _arguments(command: argparse.ArgumentParser) -> list[argparse.Action]:
    beside = (argparse._HelpAction, argparse._SubParsersAction)
    return [action for action in command._actions if not isinstance(action, beside)]


def _argument(action: argparse.Action) -> str:
    value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
    if action.option_strings:
        name = ", ".join(action.option_strings) + value
    else:
        name = f"[{value.strip()}]" if action.nargs == "?" else value.strip()
    return _item(f"`{name}`", (action.help or "") % vars(action))


def _kinds() -> Iterator[str]:
    retries = {
        Retry.NO: "",
        Retry.YES: " (may be sent again)",
        Retry.AFTER_A_SECOND: " (may be sent again, after `Retry-After`)",
    }
    ordered = sorted(ProblemKind, key=lambda kind: (kind.status, kind.value))
    for status, kinds in groupby(ordered, key=lambda kind: kind.status):
        yield f"### {status}"
        yield "\n".join(
            _item(f"`{kind.value}`{retries[kind.retry]}", f"{kind.summary}. {kind.advice}") for kind in kinds
        )


def _item(name: str, meaning: str) -> str:
    text = _one_line(meaning.replace("\n\n", " "))
    return _wrapped(f"- {name}: {text}" if text else f"- {name}", indent="  ")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _wrapped(text: str, indent: str = "") -> str:
    return TextWrapper(WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False).fill(
        text
    )


if __name__ == "__main__":
    sys.stdout.write(page())
