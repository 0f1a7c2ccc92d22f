"""The replies of a cell's scripts, read into `Reply` and `CellKeyState`."""

from collections.abc import Sequence
from typing import Any

from cachesvc.model.entry import Key
from cachesvc.tiers.l3.contract import CellKeyState, Reply
from cachesvc.tiers.l3.record import from_record, is_damaged_record

HELD, FENCED, SOFT = 1, 2, 4
"""Flags of a reply, as in `read.lua`."""
NOT_LOOKED_AT = -1
"""The reply of `read.lua` for a key that its answer had no room for."""


PLAIN_MISS = Reply(None, exact=False)
"""A miss of which nothing else is known."""


UNREADABLE = Reply(None, exact=False, fenced=False)
"""The miss for a record of another envelope version, or a damaged one.

It is told apart by identity, not by value.
"""


_MISSES = {
    flags: Reply(None, exact=False, held=bool(flags & HELD), fenced=bool(flags & FENCED))
    for flags in range(HELD + FENCED + 1)
}


def reply_from(key: Key, reply: Any, exact_from: int) -> Reply:
    """Returns the `Reply` for one key of a batch, as `read.lua` answered it.

    A copy with a later `as_of` than `exact_from` is exact.
    """
    if type(reply) is bytes:
        entry = from_record(key, reply)
        return UNREADABLE if entry is None else Reply(entry, entry.as_of > exact_from)
    if type(reply) is int:
        return _MISSES[reply]
    flags, record, token = reply
    entry = from_record(key, record) if record else None
    return Reply(
        entry=entry,
        exact=entry is not None and entry.as_of > exact_from,
        lease=token.decode() or None,
        held=bool(flags & HELD),
        soft=bool(flags & SOFT),
        fenced=bool(flags & FENCED),
    )


def is_damaged(answered: Any) -> bool:
    """True if `read.lua` answered with a record that has changed since it was written.

    `answered`: the answer of an item that gave no entry.
    """
    if type(answered) is list:
        answered = answered[1] if len(answered) > 1 else b""
    return type(answered) is bytes and bool(answered) and is_damaged_record(answered)


def state_from(key: Key, tags: Sequence[str], answer: list[Any]) -> CellKeyState:
    """Returns the `CellKeyState` of a key, as `inspect.lua` answered it.

    `tags` are the tags that were asked for. The tags of an unreadable record have no names here, so
    their fences are left out.
    """
    record, lease, lease_ms, broken_at, now_us, soft_fence, *fences = answer
    entry = from_record(key, record)
    (fence_at, _), (namespace_fence, soft_namespace_fence), *of_tags = zip(
        fences[::2], fences[1::2], strict=True
    )
    named = dict(zip((*tags, *(entry.tags if entry else ())), of_tags, strict=False))
    return CellKeyState(
        entry=entry,
        fence_at=fence_at,
        tag_fences={tag: hard for tag, (hard, _) in named.items()},
        namespace_fence=namespace_fence,
        lease_held=bool(lease),
        lease_as_of=int(lease.rpartition(b":")[2] or 0),
        broken_at=broken_at,
        now_us=now_us,
        lease=lease.decode(),
        lease_until=now_us + 1000 * lease_ms if lease else 0,
        soft_fence=soft_fence,
        soft_tag_fences={tag: soft for tag, (_, soft) in named.items()},
        soft_namespace_fence=soft_namespace_fence,
    )
