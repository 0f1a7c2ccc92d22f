"""How a row names keys and tags: the templates of a namespace's `sources`.

    template := (text | column | group)+
    column   := "{" name "}"  |  "{" name "?}"
    group    := "{" (text | column)+ "}"
    name     := a letter or `_`, then letters, digits, `_` and `$`
    text     := anything printable but braces

A column stands for its value in the row. With `?` the value may be null: then the row has no such
key. A group has one column at least. Its braces stay, because they enclose the partition. In
names, upper and lower case are different columns.

`{ws-{workspace_id}}:block:{id}` gives `{ws-7}:block:42`. There is no escape: a partition that is
the same for every row cannot be written, because it would put a whole table into one cell.
"""

import re
from collections.abc import Mapping, Sequence

from msgspec import Struct

from cachesvc.config.mistakes import Mistakes, collected
from cachesvc.config.topology import Source

TABLE_NAME = re.compile(r"[^.\s]+(\.[^.\s]+){1,2}")
_TOKEN = re.compile(r"\{([A-Za-z_][A-Za-z0-9_$]*)(\??)\}|([^{}]+)|([{}])")


class Column(Struct, frozen=True):
    """A column of the row, in a template."""

    name: str
    may_be_null: bool = False


class Template(Struct, frozen=True):
    """The template of a key or tag, parsed."""

    parts: tuple[str | Column, ...]
    """Text and columns in order; the braces of a group are text."""
    partition: tuple[str | Column, ...]
    """The parts in the first group; all parts if there is no group."""

    @property
    def is_placed(self) -> bool:
        """True if the template has a group. A tag without one is applied in every cell."""
        return self.partition != self.parts

    @property
    def columns(self) -> tuple[Column, ...]:
        return tuple(part for part in self.parts if isinstance(part, Column))

    @property
    def text(self) -> str:
        return "".join(part for part in self.parts if isinstance(part, str))

    def render(self, row: Mapping[str, str]) -> str:
        """Returns the key or tag of a row, which must have a value for each of `columns`."""
        return "".join(part if isinstance(part, str) else row[part.name] for part in self.parts)


def parse_template(text: str) -> Template:
    """Returns the template that `text` writes. Raises `ValueError` with mistake and place."""
    parts: list[str | Column] = []
    groups: list[tuple[int, int]] = []
    opened = None  # the places in `parts` and in `text` of a group that is not closed yet
    for match in _TOKEN.finditer(text):
        name, question, literal, brace = match.groups()
        if brace == "{":
            if opened is not None:
                raise ValueError(
                    f"the braces at {opened[1]} and {match.start()} nest too deep: "
                    "a group holds columns and text"
                )
            opened = len(parts), match.start()
        elif brace == "}":
            if opened is None:
                raise ValueError(f"the brace at {match.start()} closes nothing")
            first, at = opened
            if not any(isinstance(part, Column) for part in parts[first:]):
                raise ValueError(
                    f"{text[at : match.end()]!r} is neither a column, {{name}}, nor a partition around one"
                )
            groups.append((first + 1, len(parts)))
            opened = None
        parts.append(Column(name, question == "?") if name else literal or brace)
    if opened is not None:
        raise ValueError(f"the brace at {opened[1]} is not closed")
    if not any(isinstance(part, Column) for part in parts):
        raise ValueError("names no {column}: every row would have the same one")
    first, end = groups[0] if groups else (0, len(parts))
    return Template(tuple(parts), tuple(parts[first:end]))


def key_templates(source: Source) -> tuple[str, ...]:
    return (source.key, *source.keys) if source.key else source.keys


def check_sources(sources: Sequence[Source], path: str, found: Mistakes | None = None) -> None:
    """Raises `ConfigError` with the path of every template and table that is out of rule.

    With `found`, they are noted there.
    """
    with collected(found) as found:
        for index, source in enumerate(sources):
            _check_source(source, f"{path}[{index}]", found)


def _check_source(source: Source, path: str, found: Mistakes) -> None:
    named = bool(TABLE_NAME.fullmatch(source.source))
    found.require(
        named,
        f"{path}.source",
        f"{source.source!r} is no table: schema.table, or database.table if there are no schemas",
    )
    found.require(not (source.key and source.keys), f"{path}.key", "give `key` or `keys`, not both")
    found.require(
        bool(key_templates(source) or source.tags),
        path,
        "names neither keys nor tags: nothing would be invalidated",
        *(f"{path}.{field}" for field in ("key", "keys", "tags")),
    )
    keys = [_parsed(text, f"{path}.keys[{i}]", found) for i, text in enumerate(source.keys)]
    if source.key:
        keys.append(_parsed(source.key, f"{path}.key", found))
    for i, text in enumerate(source.tags):
        tag = _parsed(text, f"{path}.tags[{i}]", found)
        if tag is not None:
            _check_tag(tag, keys, f"{path}.tags[{i}]", found)


def _check_tag(tag: Template, keys: Sequence[Template | None], path: str, found: Mistakes) -> None:
    found.require(tag.text.isascii(), path, "a tag is printable ASCII")
    if None in keys:  # with a key's template unknown, nothing is known of its partition
        return
    found.require(
        not (tag.is_placed and keys)
        or _names(tag.partition) in [_names(key.partition) for key in keys if key],
        path,
        "its {partition} is not that of a key of this source, and an entry takes only tags of its own "
        "partition. If other entries have this tag, give it a source of its own for the same table",
    )


def _names(parts: Sequence[str | Column]) -> list[tuple[str, bool]]:
    """Returns the parts in a form that does not tell nullable columns from others."""
    return [(part.name, True) if isinstance(part, Column) else (part, False) for part in parts]


def _parsed(text: str, path: str, found: Mistakes) -> Template | None:
    """Returns the template; None, with a note, if it is out of rule."""
    if not text.isprintable():
        found.note(path, f"{text!r} holds a control character")
        return None
    try:
        return parse_template(text)
    except ValueError as error:
        found.note(path, f"{text!r}: {error}")
        return None
