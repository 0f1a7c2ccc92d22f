"""Fences as items of the `fences` stream: pairs of digest and time, and no key text.

    p  hard fences: (digest u64, at u64) pairs, big-endian
    q  soft fences, in the same form
    n  namespace fences: msgpack array of [digest, at, soft, namespace]
    w  paced fences: JSON array of [digest, at, soft, namespace, over]
    u  if present, p, q and n are unapplied
    g  the placement under which p, q and n were applied, decimal; absent: 0
    c  the servers that have applied p, q and n: `cell=number`, in hex, with commas; absent: unknown
    h  a heartbeat: complete_to in µs, decimal
    r  if present, followers are to report once they have merged the item
    t  the sampled traces that the publication comes from: up to 8 `traceparent`s, in its last item
    o  an item that says nothing: the first position of a follower

A `t` that cannot be read is passed over, because it says nothing of a fence. Paced fences are
judged by instances alone, so neither `unapplied` nor placement nor servers are sent with them.
"""

import contextlib
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated

import msgspec
from msgspec import Struct

from cachesvc.model.fence import EVERYTHING, Fence, Issuers
from cachesvc.telemetry.traces.trace import SpanContext

MOST_CAUSES = 8
"""Traces of one item at most: an item is sent to every instance of every region, and one
of many traces is enough to tell what happened."""
PAIRS_PER_ITEM = 4096
"""64 KiB of pairs: a follower takes many items at once, and one command should not hold
the server up."""
LONGEST_AHEAD_US = 86_400_000_000
"""The longest time by which an `at` can be later than its item.

A clock that is wrong by more than a day did not issue it, or the item is no item of ours.
"""
LONGEST_OVER_US = 400 * 86_400_000_000
"""The longest window of a paced fence: no copy is kept for so long."""
LONGEST_NAMESPACE = 256
"""Characters of the longest name of a namespace in an item; a topology allows 64."""
REPORT = (b"r", b"1")
"""The field that asks followers to report."""

_MOST = 1 << 53
_SERVER = re.compile(r"[0-9a-f]{1,16}")
_PAIR = struct.Struct(">QQ")
_FIELDS = frozenset((b"p", b"q", b"n", b"w", b"u", b"g", b"c", b"h", b"r", b"t", b"o"))
_Digest = Annotated[int, msgspec.Meta(ge=0)]
_Time = Annotated[int, msgspec.Meta(ge=0)]
_Namespaces = list[tuple[_Digest, _Time, bool, str]]
_Where = tuple[bool, int, Issuers]
"""The things that an item says once for all its fences: unapplied, placement, issuers."""
_NOWHERE: _Where = (False, 0, ())
_Paced = tuple[_Digest, _Time, bool, str, Annotated[int, msgspec.Meta(ge=1)]]
_decode_namespaces = msgspec.msgpack.Decoder(_Namespaces).decode
_decode_paced = msgspec.json.Decoder(list[_Paced]).decode
_decode_member = msgspec.json.Decoder(_Paced).decode


class Items(Struct, frozen=True):
    """The content of a run of items, taken together."""

    fences: Sequence[Fence]
    complete_to: int | None
    """µs, from the last heartbeat among the items; None if there is none."""
    report: bool
    """True if an item asks followers to report."""
    unreadable: int
    """Items that could not be read.

    Their content is lost, and the follower treats that as a gap.
    """
    published: Sequence[int]
    """The time of each item that carries fences, µs."""
    causes: Sequence[SpanContext]

    @property
    def whole(self) -> bool:
        """True if every item could be read."""
        return not self.unreadable


def encode(
    fences: Iterable[Fence], *, report: bool = False, causes: Sequence[SpanContext] = ()
) -> list[list[bytes]]:
    """Returns the fields and values of the items that carry these fences."""
    alike: dict[_Where, list[Fence]] = {}
    for fence in fences:
        where = _NOWHERE if fence.over else (fence.unapplied, fence.placement, fence.issuers)
        alike.setdefault(where, []).append(fence)
    items = [_fields(chunk, *of) for of, found in alike.items() for chunk in _chunks(found)]
    if report and items:
        items[-1] += REPORT
    if causes and items:
        items[-1] += b"t", b" ".join(str(cause).encode() for cause in causes[:MOST_CAUSES])
    return items


def heartbeat(complete_to: int) -> list[bytes]:
    """Returns the fields and values of a heartbeat; `complete_to` in µs."""
    return [b"h", b"%d" % complete_to]


def decode(items: Iterable[tuple[int, Mapping[bytes, bytes]]]) -> Items:
    """Returns the content of items, given as the milliseconds of their id and their fields."""
    fences: list[Fence] = []
    published: list[int] = []
    causes: list[SpanContext] = []
    complete_to, report, unreadable = None, False, 0
    for ms, fields in items:
        try:
            found, beat = _fences(fields, ms * 1000 + LONGEST_AHEAD_US), fields.get(b"h")
            if beat:
                complete_to = _whole(beat)
            fences += found
        except (struct.error, ValueError, msgspec.MsgspecError, RecursionError):
            unreadable += 1
        report = report or b"r" in fields
        if b"h" not in fields and b"o" not in fields:
            published.append(ms * 1000)
            causes += _causes(fields[b"t"]) if b"t" in fields else ()
    return Items(fences, complete_to, report, unreadable, published, causes)


def paced_member(fence: Fence) -> str:
    """Returns a paced fence as the queue remembers it beside the stream.

    Two paced fences for one target are both in force, so each is a member of its own.
    """
    return msgspec.json.encode(_paced(fence)).decode()


def fewer(members: Mapping[str, int], most: int) -> dict[str, int]:
    """Returns at most `most` paced fences, with the µs until which they are in force.

    If there are more, the half of `most` that ends last stays, and one that concerns everything stands
    for the others.
    """
    if len(members) <= most:
        return dict(members)
    by_end = sorted(members.items(), key=lambda one: one[1])
    given_up, kept = by_end[: -(most // 2)], by_end[-(most // 2) :]
    at = max(_decode_member(member)[1] for member, _ in given_up)
    everything = paced_member(Fence(0, at, soft=True, namespace=EVERYTHING, over=1))
    return {**dict(kept), everything: given_up[-1][1]}


def paced_fences(members: Iterable[bytes | str]) -> list[Fence]:
    """Returns the paced fences behind these members.

    Members that a later release wrote in another way are left out: their items were a gap to this
    release, with its floor.
    """
    found = []
    for member in members:
        with contextlib.suppress(ValueError, msgspec.MsgspecError, RecursionError):
            found.append(_from_paced(*_decode_member(member), latest=_MOST))
    return found


def servers(issuers: Issuers) -> str:
    """Returns the text of the field `c`."""
    return ",".join(f"{name}={id_:x}" for name, id_ in issuers)


def _chunks(fences: Sequence[Fence]) -> Iterator[Sequence[Fence]]:
    for start in range(0, len(fences), PAIRS_PER_ITEM):
        yield fences[start : start + PAIRS_PER_ITEM]


def _fields(fences: Sequence[Fence], unapplied: bool, placement: int, issuers: Issuers) -> list[bytes]:
    plain = [fence for fence in fences if not (fence.namespace or fence.over)]
    found = {
        b"p": b"".join([_PAIR.pack(f.digest, f.at) for f in plain if not f.soft]),
        b"q": b"".join([_PAIR.pack(f.digest, f.at) for f in plain if f.soft]),
    }
    if namespaces := [(f.digest, f.at, f.soft, f.namespace) for f in fences if f.namespace and not f.over]:
        found[b"n"] = msgspec.msgpack.encode(namespaces)
    if paced := [_paced(f) for f in fences if f.over]:
        found[b"w"] = msgspec.json.encode(paced)
    if unapplied:
        found[b"u"] = b"1"
    if placement:
        found[b"g"] = b"%d" % placement
    if issuers:
        found[b"c"] = servers(issuers).encode()
    return [part for name, value in found.items() if value for part in (name, value)]


def _fences(fields: Mapping[bytes, bytes], latest: int) -> list[Fence]:
    """Returns the fences of an item; raises `ValueError` if one is out of bounds.

    `latest`: the latest `at` that a fence of this item can have, µs.
    """
    if not fields.keys() <= _FIELDS:
        raise ValueError("a field that is not known")
    unapplied, placement = b"u" in fields, _whole(fields.get(b"g", b"0"), 1 << 64)
    issuers = _issuers(fields[b"c"]) if b"c" in fields else ()
    fences: list[Fence] = []
    for name, soft in ((b"p", False), (b"q", True)):
        if pairs := fields.get(name):
            fences += [
                Fence(digest, at, soft, "", unapplied, 0, placement, issuers)
                for digest, at in _PAIR.iter_unpack(pairs)
            ]
    if packed := fields.get(b"n"):
        fences += [
            Fence(digest, at, soft, _named(namespace), unapplied, 0, placement, issuers)
            for digest, at, soft, namespace in _decode_namespaces(packed)
        ]
    if fences and max(fence.at for fence in fences) > latest:
        raise ValueError("an `at` from another time than its item")
    if packed := fields.get(b"w"):
        fences += [_from_paced(*paced, latest=latest) for paced in _decode_paced(packed)]
    return fences


def _whole(digits: bytes, most: int = _MOST) -> int:
    """Returns the number; raises `ValueError` if it is none from 0 to `most`."""
    if not digits.isdigit() or len(digits) > 20 or int(digits) > most:
        raise ValueError("not a number in range")
    return int(digits)


def _named(namespace: str) -> str:
    if not 0 < len(namespace) <= LONGEST_NAMESPACE:
        raise ValueError("not the name of a namespace")
    return namespace


def _issuers(joined: bytes) -> Issuers:
    found = []
    for pair in joined.decode("ascii").split(","):
        name, _, id_ = pair.partition("=")
        if not _SERVER.fullmatch(id_):
            raise ValueError("not the number of a server")
        found.append((name, int(id_, 16)))
    return tuple(found)


def _causes(joined: bytes) -> list[SpanContext]:
    parsed = [SpanContext.parse(text) for text in joined.decode("ascii", "replace").split(" ")]
    return [context for context in parsed if context is not None]


def _paced(fence: Fence) -> _Paced:
    return fence.digest, fence.at, fence.soft, fence.namespace, fence.over


def _from_paced(digest: int, at: int, soft: bool, namespace: str, over: int, *, latest: int) -> Fence:
    if at > latest or over > LONGEST_OVER_US:
        raise ValueError("a window from another time than its item")
    return Fence(digest, at, soft, _named(namespace) if namespace else "", over=over)
