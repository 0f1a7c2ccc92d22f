"""Finds the keys and tags that a changed row concerns, by the `sources` of the namespaces.

A change of a column that a template names moves the row from one key to another, and both keys have
to be invalidated. So an update renders each template twice, from the old row and from the new row.
The old row may be unknown: PostgreSQL sends only what its `REPLICA IDENTITY` says, by default the
primary key, and nothing for an update that leaves the key as it is. Then everything that can be
rendered is applied, and the event is a dead letter as well, because a copy under the old key may
still be there:

    a column, in the old row                      is
    absent, and part of the record's key          unchanged: a change of the key comes as a delete
                                                  and a create
    absent, or the placeholder of a large value   unknown
    null, on a delete                             unknown, unless the template says that it may be
                                                  null: `{column?}`
    0 or empty, on a delete or if it changed      rendered, and yet unknown: Debezium writes these
                                                  for a NOT NULL column that it was not sent
                                                  (JdbcValueConverters.convertValue). Not if it is
                                                  in the record's key

Of a producer that is exact (`RowChange.is_exact`), null, 0 and empty are what the row has.

A snapshot (`r`) says nothing about a change, and a message (`m`) nothing about a row.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from cachesvc.config.row_templates import Template, key_templates, parse_template
from cachesvc.config.topology import Namespace, Source
from cachesvc.model.change import Change
from cachesvc.model.did_you_mean import there_is
from cachesvc.telemetry.traces.trace import SpanContext

UNAVAILABLE = "__debezium_unavailable_value"
"""Stands for a large value that an update left as it was (TOAST)."""
REMEDY = "the table needs REPLICA IDENTITY FULL"

Row = Mapping[str, Any]
Image = Mapping[str, str | None]
"""The known columns of a row that templates name. Absent is unknown, None is null."""


class RowChange(Struct, frozen=True):
    """A change of one row, as a record tells it."""

    op: str
    """`c`, `u` or `d`; `r`, `t` or `m`."""
    tables: tuple[str, ...]
    """The names of the table: `schema.table` and `database.schema.table`, or `database.table`."""
    before: Row | None = None
    after: Row | None = None
    key: Row | None = None
    """The record's key: the columns that identify the row, normally its primary key."""
    source: str = ""
    """The producer, for the audit."""
    trace: SpanContext | None = None
    is_exact: bool = False
    """True if null, 0 and empty never stand for a value that the producer was not sent."""


class Concerned(Struct, frozen=True):
    """The changes that a row change leads to."""

    changes: tuple[Change, ...] = ()
    faults: tuple[str, ...] = ()
    """Reasons why more may have changed than `changes` says."""
    blind: tuple[str, ...] = ()
    """Namespaces with a key or tag that may have changed and that nobody can name."""


class RowMapping:
    """Finds the keys and tags that a changed row concerns."""

    def __init__(self, namespaces: Mapping[str, Namespace]) -> None:
        """Takes the namespaces of a checked document: their templates parse."""
        self._rules: dict[str, list[Rule]] = {}
        for name, namespace in namespaces.items():
            for source in namespace.sources:
                self._rules.setdefault(source.source, []).append(Rule(name, source))

    def __repr__(self) -> str:
        return f"<RowMapping of {', '.join(sorted(self._rules)) or 'no tables'}>"

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables, as the `sources` name them."""
        return tuple(self._rules)

    def rules(self, tables: Iterable[str]) -> "list[Rule]":
        """Returns the entries of `sources` for a table with these names."""
        return [rule for table in tables for rule in self._rules.get(table, ())]

    def concerned(self, row: RowChange) -> Concerned:
        """Returns the changes of a row; none for a table that no namespace names."""
        return all_concerned(self.rules(row.tables), row)


def all_concerned(rules: "Iterable[Rule]", row: RowChange) -> Concerned:
    """Returns the changes of a row by all of these rules."""
    found = [rule.concerned(row) for rule in rules]
    return Concerned(
        tuple(change for concerned in found for change in concerned.changes),
        _distinct(fault for concerned in found for fault in concerned.faults),
        _distinct(namespace for concerned in found for namespace in concerned.blind),
    )


class Rule:
    """One entry of a namespace's `sources`."""

    def __init__(self, namespace: str, source: Source) -> None:
        self.namespace = namespace
        self.table = source.source
        """The table, as the document names it."""
        self.soft = source.soft
        self._source = source
        self._keys = [parse_template(text) for text in key_templates(source)]
        self._tags = [parse_template(text) for text in source.tags]
        columns = [column for template in (*self._keys, *self._tags) for column in template.columns]
        self.columns = _distinct(column.name for column in columns)
        """The columns that templates name."""
        self.templates = {text: parse_template(text) for text in (*key_templates(source), *source.tags)}
        """The templates by their text."""
        self._never_null = _distinct(column.name for column in columns if not column.may_be_null)

    def concerned(self, row: RowChange) -> Concerned:
        if row.op == "t":
            return Concerned((Change(self.namespace, all=True, soft=self._source.soft),))
        if row.op not in ("c", "u", "d"):
            return Concerned()
        try:
            old, new = self._old(row), self._image(row.after)
        except ValueError as error:
            return Concerned((), (f"{self._source.source}: {error}",), (self.namespace,))
        # A column that `after` leaves out is as it was.
        images = {"c": [new], "d": [old], "u": [old, {**old, **new}]}[row.op]
        keys, tags = _rendered(self._keys, images), _rendered(self._tags, images)
        changes = (Change(self.namespace, keys, tags, soft=self._source.soft),) if keys or tags else ()
        unknown, doubts = self._faults(row, images)
        return Concerned(
            changes,
            tuple(f"{self._source.source}: {fault}" for fault in (*unknown, *doubts)),
            (self.namespace,) if unknown else (),
        )

    def _old(self, row: RowChange) -> Image:
        """Returns the old row: the record's key completes the columns that were sent."""
        key, before = self._image(row.key), self._image(row.before)
        return {**before, **{name: text for name, text in key.items() if before.get(name) is None}}

    def _image(self, row: Row | None) -> Image:
        """Returns the known columns of a row.

        Raises `ValueError` for a value that no key can be made of.
        """
        there = row or {}
        return {
            name: _text(name, there[name])
            for name in self.columns
            if name in there and there[name] != UNAVAILABLE
        }

    def _faults(self, row: RowChange, images: Sequence[Image]) -> tuple[list[str], list[str]]:
        """Returns the reasons why a value is not known, and other reasons for a dead letter."""
        old, there = images[0], row.after or {}
        if row.op != "d" and (lacking := [name for name in self.columns if name not in there]):
            return [f"the row has no column {name!r}{there_is(there)}" for name in lacking], []
        unknown = [
            f"what {name!r} was is not in the event: {REMEDY}" for name in self.columns if name not in old
        ]
        nulls = [name for name in self._never_null if all(image.get(name, "") is None for image in images)]
        instead = "write" if row.is_exact else f"{REMEDY}, or"
        return unknown, [
            *(
                f"{name!r} was {old[name]!r}, which may also stand for unknown: {REMEDY}"
                for name in self._doubtful(row, images)
            ),
            *(f"{name!r} is null: {instead} the template {{{name}?}} if it may be null" for name in nulls),
        ]

    def _doubtful(self, row: RowChange, images: Sequence[Image]) -> list[str]:
        if row.op == "c" or row.is_exact:
            return []
        old, new, key = images[0], images[-1], row.key or {}
        blank = [name for name in self.columns if old.get(name) in ("0", "") and name not in key]
        return [name for name in blank if row.op == "d" or new.get(name) != old[name]]


def _rendered(templates: Iterable[Template], images: Sequence[Image]) -> tuple[str, ...]:
    """Renders each template for each image that has all of the template's columns."""
    return _distinct(
        template.render(values)
        for template in templates
        for image in images
        if len(values := _values(template, image)) == len({column.name for column in template.columns})
    )


def _values(template: Template, image: Image) -> dict[str, str]:
    return {column.name: text for column in template.columns if (text := image.get(column.name)) is not None}


def _text(name: str, value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    raise ValueError(
        f"column {name!r} holds a {type(value).__name__}: keys are made of text, whole numbers and booleans"
    )


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))
