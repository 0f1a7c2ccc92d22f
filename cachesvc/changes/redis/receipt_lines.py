"""A receipt as the queue's server keeps it: a letter and four lines, so that a script can take them apart.

p1700000000000-3        state and position
eu-1,eu-2               home cells that took it
eu-3                    home cells that did not
…                       why it was buried
"""

from collections.abc import Sequence
from typing import Literal

from cachesvc.changes.contract import Done, ReceiptRecord

_STATES: dict[str, Literal["open", "parked", "done", "buried"]] = {
    "o": "open",
    "p": "parked",
    "d": "done",
    "b": "buried",
}


def cell_lines(done: Done) -> str:
    """The script that publishes puts state and position before them."""
    return f"{','.join(done.cells)}\n{','.join(done.missed)}\n"


def parse(text: str) -> ReceiptRecord:
    position, cells, missed, reason = [*text[1:].split("\n", 3), "", "", ""][:4]
    return ReceiptRecord(_STATES[text[0]], position, _names(cells), _names(missed), reason)


def _names(line: str) -> tuple[str, ...]:
    return tuple(line.split(",")) if line else ()


def audit_fields(done: Done) -> Sequence[str]:
    """Names and values; the script adds the receipt's id, and the item's id says when. Nothing, if it is not for the audit."""
    if (audit := done.audit) is None:
        return ()
    soft = "true" if audit.soft else "false"
    named = (
        ("who", audit.who),
        ("instance", audit.instance),
        ("namespace", audit.namespace),
        ("targets", audit.targets),
    )
    return [part for pair in (*named, ("soft", soft), ("over", audit.over)) for part in pair]
