"""The audit record of an invalidation."""

from collections.abc import Sequence

from cachesvc.changes.contract import Audit
from cachesvc.model.change import Change
from cachesvc.model.printable import printable, shortened
from cachesvc.model.requests import Author

MOST_CHARACTERS = 256
"""Characters of one text of a record, of those that come from elsewhere."""


def audit_of(changes: Sequence[Change], author: Author, instance: str) -> Audit:
    """Returns the audit record of changes that `author` made through `instance`.

    The record counts targets and does not name them: keys may be personal data. Nothing in it moves
    the cursor of a terminal or a reader's eye.
    """
    first = changes[0]
    counts = (
        (sum(len(change.keys) for change in changes), "keys"),
        (sum(len(change.tags) for change in changes), "tags"),
    )
    named = [f"{count} {what if count > 1 else what[:-1]}" for count, what in counts if count]
    whole = ["all"] if any(change.all for change in changes) else []
    namespaces = ",".join(dict.fromkeys(change.namespace for change in changes))
    return Audit(
        harmless(author.says),
        instance,
        namespaces,
        ", ".join(whole + named),
        first.soft,
        first.over,
        harmless(author.identity),
        harmless(author.address),
    )


def harmless(text: str) -> str:
    """Returns a text from elsewhere, made printable and at most `MOST_CHARACTERS` long."""
    return shortened(printable(text[:MOST_CHARACTERS]), MOST_CHARACTERS)
