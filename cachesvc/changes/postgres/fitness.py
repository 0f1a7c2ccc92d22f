"""Tells whether the rows of a table say what the templates of a namespace need to know.

a column of a template        what is wrong
is not sent                   the table has no such column, it is generated, or the publication
                              leaves it out
is of a type without a        its text depends on settings (dates, floats, bytes), or is of
lasting text                  several values (arrays, rows, ranges)
its old value is not sent     it is not in the replica identity: an update or delete would leave
                              the copy under the old key
"""

from collections.abc import Collection, Iterator, Mapping

from cachesvc.changes.events.rows import RowMapping, Rule
from cachesvc.model.did_you_mean import there_is

BOOLEAN = 16
"""The oid of `boolean`, whose text is `t` or `f`; in keys it is `true` or `false`."""
UNUSABLE_TYPES: Mapping[int, str] = {
    17: "bytea",
    700: "real",
    701: "double precision",
    790: "money",
    1082: "date",
    1083: "time",
    1114: "timestamp",
    1184: "timestamptz",
    1186: "interval",
    1266: "timetz",
}
"""Built-in types, by oid, whose text depends on settings of the server or the connection."""


def unusable(rule: Rule, types: Mapping[str, int]) -> str:
    """Returns why no key can be made by this rule of columns of these types; empty if one can."""
    for name in rule.columns:
        if (found := UNUSABLE_TYPES.get(types.get(name, 0))) is not None:
            return (
                f"{rule.table}: column {name!r} is of type {found}, whose text depends on settings: keys are "
                "made of text, whole numbers and booleans"
            )
    return ""


def faults(
    rule: Rule, sent: Collection[str], identity: Collection[str], types: Mapping[str, int]
) -> Iterator[str]:
    """Yields what keeps a rule from being right about every row, in sentences.

    `sent`: the columns that the publication sends. `identity`: those whose old values are sent.
    """
    for text, template in rule.templates.items():
        for name in dict.fromkeys(column.name for column in template.columns):
            if name not in sent:
                yield f"the template {text!r} needs column {name!r}, which is not sent{there_is(sent)}"
            elif name not in identity:
                yield (
                    f"the template {text!r} needs the old value of column {name!r}, which is not in the "
                    f"table's replica identity: ALTER TABLE {rule.table} REPLICA IDENTITY FULL"
                )
    if why := unusable(rule, types):
        yield why


def own_table(name: str, database: str) -> tuple[str, str] | None:
    """Returns schema and table of a source; None if it is of another database."""
    *before, schema, table = name.split(".")
    return (schema, table) if before in ([], [database]) else None


def fed_namespaces(mapping: RowMapping, database: str) -> list[str]:
    """Returns the namespaces with a source in this database."""
    tables = [name for name in mapping.tables if own_table(name, database) is not None]
    return list(dict.fromkeys(rule.namespace for rule in mapping.rules(tables)))
