"""A receipt as the queue's server keeps it.

It is a letter and four lines, so that a script can split it:

    p1700000000000-3        state and position
    eu-1,eu-2               home cells that took the change
    eu-3                    home cells that did not
    …                       why the change was buried; or, if something of it was parked, a number,
                            by which `receipt.lua` tells what is left of that
"""

import re
from collections.abc import Sequence
from typing import Literal

from cachesvc.changes.contract import Done, ReceiptRecord

_POSITION = re.compile(r"(?:[0-9]{1,20}-[0-9]{1,20})?")
_STATES: dict[str, Literal["open", "parked", "done", "buried"]] = {
    "o": "open",
    "p": "parked",
    "d": "done",
    "b": "buried",
}


def parse(text: str) -> ReceiptRecord:
    """Returns the record of a receipt's text. Raises `ValueError` for a text that is none."""
    position, cells, missed, reason = [*text[1:].split("\n", 3), "", "", ""][:4]
    state = _STATES.get(text[:1])
    if state is None or not _POSITION.fullmatch(position):
        raise ValueError("not a receipt")
    return ReceiptRecord(state, position, _names(cells), _names(missed), reason if state == "buried" else "")


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
        ("identity", audit.identity),
        ("address", audit.address),
        ("says", audit.says),
        ("instance", audit.instance),
        ("namespace", audit.namespace),
        ("targets", audit.targets),
    )
    return [part for pair in (*named, ("soft", soft), ("over", audit.over)) for part in pair]
