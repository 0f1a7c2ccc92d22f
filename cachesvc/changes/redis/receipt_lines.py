"""A receipt as the queue's server keeps it.

It is a letter and four lines, so that a script can split it:

    p1700000000000-3        state and position
    eu-1,eu-2               home cells that took the change
    eu-3                    home cells that did not
    …                       why the change was buried
"""

from collections.abc import Sequence
from typing import Literal

from cachesvc.changes.contract import Done, Missing, ReceiptRecord

_STATES: dict[str, Literal["open", "parked", "done", "buried"]] = {
    "o": "open",
    "p": "parked",
    "d": "done",
    "b": "buried",
}


def cell_lines(done: Done) -> str:
    """Returns the two lines of home cells; the script puts state and position before them."""
    return f"{','.join(done.cells)}\n{','.join(done.missed)}\n"


def missing_text(done: Done) -> str:
    """Returns the text that says where a change is missing; empty if it is not parked.

    It is `at`, placement, and the cells that missed and that took it: words, the cells with commas.
    """
    if not (done.missed and done.at):
        return ""
    return f"{done.at} {done.placement} {','.join(done.missed)} {','.join(done.cells)}"


def missing_of(text: str) -> Missing | None:
    """Returns where a parked change is missing; None for an empty text."""
    if not text:
        return None
    at, placement, missed, took = text.split(" ")
    return Missing(int(at), int(placement), _names(missed), _names(took))


def parse(text: str) -> ReceiptRecord:
    """Returns the record of a receipt's text."""
    position, cells, missed, reason = [*text[1:].split("\n", 3), "", "", ""][:4]
    return ReceiptRecord(_STATES[text[0]], position, _names(cells), _names(missed), reason)


def _names(line: str) -> tuple[str, ...]:
    return tuple(line.split(",")) if line else ()


def audit_fields(done: Done) -> Sequence[str]:
    """Returns names and values of the audit item; empty if the change is not for the audit.

    The script adds the receipt's id, and the id of the item tells the time.
    """
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
