"""The answers of a cell's scripts: their shape, and what is made of it.

There is one function per script that takes its answer, or raises `ShapeError`. A lease that is
granted has the nonce of the batch that asked for it, so a token that goes into a header is ours in
every character.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from cachesvc.model.entry import Key
from cachesvc.tiers.answer_shapes import MOST, ShapeError, data, number, parts, text
from cachesvc.tiers.l3.contract import CellKeyState, Claimed, Reply
from cachesvc.tiers.l3.record import from_record, is_damaged_record
from cachesvc.tiers.redis_report import fields_of

HELD, FENCED, SOFT = 1, 2, 4
"""Flags of a reply, as in `read.lua`."""
ENOUGH_BYTES = 1 << 20
"""Bytes of records after which `read.lua` looks at small ones only."""
OUTCOMES_OF_FILLS, OUTCOMES_OF_LEASES, FENCE_TIMES = range(-1, 2), range(2), range(MOST + 1)
"""The numbers that `fill.lua`, `lease.lua` and `fence.lua` answer."""


_GRANTED = re.compile(rb"-(?:put-)?[0-9]{1,9}:([0-9]{1,16})")
"""A lease behind its nonce, as `read.lua` and `put.lua` write it."""
_LEASE = re.compile(rb"[0-9A-Za-z_.-]{1,60}:[0-9]{1,16}")


PLAIN_MISS = Reply(None, exact=False)
"""A miss of which nothing else is known."""


UNREADABLE = Reply(None, exact=False, fenced=False)
"""The miss for a record of another envelope version, or a damaged one.

It is told apart by identity, not by value.
"""


POSTPONED = Reply(None, exact=False)
"""The reply for a key that is asked for again: an answer had no room for it.

It is told apart by identity, too.
"""


_MISSES = {
    flags: Reply(None, exact=False, held=bool(flags & HELD), fenced=bool(flags & FENCED))
    for flags in range(HELD + FENCED + 1)
}


def reads_in(answer: Any, count: int, nonce: bytes) -> tuple[int, int, list[Any]]:
    """Returns `broken_at`, the cell's time, and the replies to `count` keys.

    A negative number among them is that of the bytes of a record which had no room. It stands only
    behind `ENOUGH_BYTES` of others: so a batch ends after as many exchanges as its bytes need,
    whatever the server says.
    """
    broken_at, now_us, *replies = parts(answer, 2 + count)
    size = 0
    for reply in replies:
        kind = type(reply)
        if kind is bytes:
            size += len(reply)
        elif kind is list:
            if len(reply) == 1:
                data(reply[0])
                size = ENOUGH_BYTES  # the record of a key that was refused counts there, and is not sent
                continue
            flags, record, token = parts(reply, 3)
            if not 0 <= number(flags) <= HELD + FENCED + SOFT or (data(token) and not as_of_in(token, nonce)):
                raise ShapeError("a lease that was not asked for")
            size += len(data(record))
        elif number(reply, least=-MOST) < 0 and size >= ENOUGH_BYTES:
            continue
        elif reply not in _MISSES:
            raise ShapeError("unknown flags")
    return number(broken_at), number(now_us), replies


def as_of_in(token: bytes, nonce: bytes) -> int:
    """Returns the `as_of` of a lease of the batch of this nonce; 0 if it is none."""
    granted = _GRANTED.fullmatch(token, len(nonce)) if token.startswith(nonce) else None
    return int(granted[1]) if granted else 0


def outcomes_in(answer: Any, count: int, known: range) -> list[int | list[bytes]]:
    """Returns the outcome of each of `count` items.

    It is a number of `known`, or a list with the reason of a refusal.
    """
    found = parts(answer, count)
    for one in found:
        if type(one) is list:
            data(parts(one, 1)[0])
        elif type(one) is not int or one not in known:
            raise ShapeError("an unknown outcome")
    return found


def puts_in(answer: Any, count: int, nonce: bytes) -> list[int | list[Any]]:
    """Returns the outcome of each of `count` puts, as `put.lua` answers it."""
    found = parts(answer, count)
    for one in found:
        if type(one) is int:
            number(one)
        elif len(parts(one)) == 1:
            data(one[0])
        else:
            at, token, wait_us = parts(one, 3)
            if number(wait_us) and data(token) and as_of_in(token, nonce) != number(at) + 1:
                raise ShapeError("a lease that was not asked for")
    return found


def attached_in(answer: Any) -> tuple[int, str, Mapping[str, str]]:
    """Returns the cell's time, why the attaching made it a new issuer, and what its INFO says."""
    now_us, began, info = parts(answer, 3)
    return number(now_us), text(began), fields_of(data(info))


def claimed_in(answer: Any, count: int) -> Claimed:
    """Returns the server's run id, and the other queues of each of `count` uses."""
    server, others = parts(answer, 2)
    return Claimed(text(server), [[text(queue) for queue in parts(found)] for found in parts(others, count)])


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


def state_from(key: Key, tags: Sequence[str], answer: Any) -> CellKeyState:
    """Returns the `CellKeyState` of a key, as `inspect.lua` answered it.

    `tags` are the tags that were asked for. The tags of an unreadable record have no names here, so
    their fences are left out.
    """
    record, lease, lease_ms, broken_at, now_us, soft_fence, *fences = parts(answer)
    for one in (broken_at, now_us, soft_fence, *fences):
        number(one)
    if number(lease_ms, least=-2) and data(lease) and not _LEASE.fullmatch(lease):
        raise ShapeError("not a lease")
    entry = from_record(key, data(record))
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
