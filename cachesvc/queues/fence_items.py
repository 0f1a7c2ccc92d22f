"""Fences as items of the `fences` stream. No key text: pairs of digest and time, big-endian.

p  hard fences: (digest u64, at u64) pairs        n  namespace fences: msgpack array of [digest, at, soft, namespace]
q  soft fences, likewise                          u  present: the item's fences are unapplied
h  a heartbeat: complete_to in µs, decimal        o  an item that says nothing: a reader's first position
"""

import struct
from collections.abc import Iterator, Mapping, Sequence

import msgspec
from msgspec import Struct

from cachesvc.model import Fence

PAIRS_PER_ITEM = 4096
"""64 KiB: a reader takes many items at once, and one command should not hold the server up."""

_PAIR = struct.Struct(">QQ")
_Namespaces = list[tuple[int, int, bool, str]]
_decode_namespaces = msgspec.msgpack.Decoder(_Namespaces).decode


class Item(Struct, frozen=True):
    fences: Sequence[Fence]
    complete_to: int | None = None


def encode(fences: Sequence[Fence]) -> list[list[bytes]]:
    """Fields and values of the items that carry these fences."""
    return [
        _fields(chunk, unapplied)
        for unapplied in (False, True)
        for chunk in _chunks([fence for fence in fences if fence.unapplied is unapplied])
    ]


def heartbeat(complete_to: int) -> list[bytes]:
    return [b"h", b"%d" % complete_to]


def decode(fields: Mapping[bytes, bytes]) -> Item | None:
    """None for an item that cannot be read: what it said is lost, and the reader treats it as that."""
    unapplied = b"u" in fields
    try:
        fences = [*_pairs(fields, b"p", False, unapplied), *_pairs(fields, b"q", True, unapplied)]
        if packed := fields.get(b"n"):
            fences += [Fence(digest, at, soft, name, unapplied) for digest, at, soft, name in _decode_namespaces(packed)]
        complete_to = fields.get(b"h")
        if fields.keys() - {b"p", b"q", b"n", b"u", b"h", b"o"}:
            return None
        return Item(fences, None if complete_to is None else int(complete_to))
    except (struct.error, ValueError, msgspec.MsgspecError):
        return None


def _chunks(fences: Sequence[Fence]) -> Iterator[Sequence[Fence]]:
    for start in range(0, len(fences), PAIRS_PER_ITEM):
        yield fences[start : start + PAIRS_PER_ITEM]


def _fields(fences: Sequence[Fence], unapplied: bool) -> list[bytes]:
    found = {
        b"p": b"".join(_PAIR.pack(f.digest, f.at) for f in fences if not f.soft and not f.namespace),
        b"q": b"".join(_PAIR.pack(f.digest, f.at) for f in fences if f.soft and not f.namespace),
    }
    if namespaces := [(f.digest, f.at, f.soft, f.namespace) for f in fences if f.namespace]:
        found[b"n"] = msgspec.msgpack.encode(namespaces)
    if unapplied:
        found[b"u"] = b"1"
    return [part for name, value in found.items() if value for part in (name, value)]


def _pairs(fields: Mapping[bytes, bytes], name: bytes, soft: bool, unapplied: bool) -> Iterator[Fence]:
    return (Fence(digest, at, soft, "", unapplied) for digest, at in _PAIR.iter_unpack(fields.get(name, b"")))
