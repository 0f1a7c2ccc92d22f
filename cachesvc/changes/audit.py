"""The audit record of an invalidation."""

from collections.abc import Sequence

from cachesvc.changes.contract import Audit
from cachesvc.model.change import Change


def audit_of(changes: Sequence[Change], who: str, instance: str) -> Audit:
    """Returns the audit record of changes that `who` made through `instance`.

    The record counts targets and does not name them: keys may be personal data.
    """
    first = changes[0]
    counts = (
        (sum(len(change.keys) for change in changes), "keys"),
        (sum(len(change.tags) for change in changes), "tags"),
    )
    named = [f"{count} {what if count > 1 else what[:-1]}" for count, what in counts if count]
    whole = ["all"] if any(change.all for change in changes) else []
    namespaces = ",".join(dict.fromkeys(change.namespace for change in changes))
    return Audit(who, instance, namespaces, ", ".join(whole + named), first.soft, first.over)
