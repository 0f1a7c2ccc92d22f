"""Parked targets as the queue's server keeps them: a name and a text for each.

The name is a letter and the target's canonical bytes: `k` a key, `t` a tag, `n` a namespace, each
as a capital if the change was soft; or `*`, everything in the cell. The text is `at` and placement,
decimal. `lua/prelude.lua` merges them.
"""

from cachesvc.changes.contract import Parked
from cachesvc.changes.redis import fence_items
from cachesvc.model.change import Target, TargetKind
from cachesvc.model.fence import Fence

EVERYTHING = "*"
_LETTERS = {TargetKind.KEY: "k", TargetKind.TAG: "t", TargetKind.NAMESPACE: "n"}


def name_of(parked: Parked) -> str:
    """Returns the name under which a target is parked for its cell."""
    if parked.target is None:
        return EVERYTHING
    letter = _LETTERS[parked.target.kind]
    return (letter.upper() if parked.soft else letter) + parked.target.id.decode()


def text_of(parked: Parked) -> str:
    return f"{parked.at} {parked.placement}"


def parse(cell: str, name: str, text: str) -> Parked:
    """Returns what is parked for a cell under this name. Raises `ValueError`, or `TypeError`."""
    at, placement = text.split(" ")
    letter = name[0].lower()
    if letter == "k":
        target = Target.key(*name[1:].split("/", 1))
    elif letter == "t":
        target = Target.tag(*name[1:].split("#", 1))
    else:
        target = Target.whole(name[1:])
    whole = name == EVERYTHING
    return Parked(cell, int(at), int(placement), None if whole else target, soft=name[0].isupper())


def applied_pair(parked: Parked) -> bytes:
    """Returns the field (a letter) and the value of the fence that says it is applied.

    Empty for what was never marked as unapplied: soft fences, and everything in a cell.
    """
    if parked.target is None or parked.soft:
        return b""
    named = parked.target.namespace if parked.target.kind is TargetKind.NAMESPACE else ""
    (item,) = fence_items.encode([Fence(parked.target.digest, parked.at, namespace=named)])
    return item[0] + item[1]


def servers_of(parked: Parked) -> str:
    """Returns the servers that have applied the target, as the fence names them."""
    return fence_items.servers(parked.issuers)
