import re
import struct
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec
from msgspec import Struct

from cachesvc.changes.contract import position_of
from cachesvc.model.fence import Fence

Vector: TypeAlias = dict[str, str]
"""Region → position. A region that was never read is left out."""


EVENT_OVERHEAD = 400
"""Bytes that an event of the log costs beside its text."""


_MEMBER = re.compile(r"([a-z][a-z0-9-]{0,63})=([0-9]{1,16}-[0-9]{1,16})").fullmatch


encode = msgspec.json.Encoder().encode


def vector_text(vector: Mapping[str, str]) -> str:
    return ",".join(f"{region}={vector[region]}" for region in sorted(vector) if vector[region])


def read_vector(text: str) -> Vector:
    """Raises `ValueError` for what is none."""
    members = [_MEMBER(member) for member in text.split(",")]
    if not all(members):
        raise ValueError(
            f"{text[:64]!r} is no event id: send one as it came, such as eu=1700000000000-3,us=1700000000100-0"
        )
    return {match[1]: match[2] for match in members if match}


class Pairs(Struct, omit_defaults=True):
    """The data of a `fences` event."""

    fences: str = ""
    soft: str = ""
    paced: list[tuple[str, int, int]] = []
    namespaces: list[tuple[str, int, bool, int]] = []


class Heartbeat(Struct):
    complete_to: Mapping[str, int]
    floor: int
    now: int


class Reset(Struct):
    floor: int
    reason: str


class Event(Struct, frozen=True, gc=False):
    region: str
    position: str
    id: str
    text: bytes
    """Rendered, with the id as this instance's vector was after it."""
    fences: int

    @property
    def cost(self) -> int:
        return len(self.text) + EVENT_OVERHEAD

    def stamped(self, id_: str) -> bytes:
        """For a subscriber that stands elsewhere in other regions' streams."""
        return self.text.replace(f"\nid: {self.id}\n".encode(), f"\nid: {id_}\n".encode(), 1)


def is_beyond(id_: str, after: Mapping[str, str]) -> bool:
    return any(
        position_of(position) > position_of(after.get(region, ""))
        for region, position in read_vector(id_).items()
    )


def rendered(kind: str, id_: str, data: bytes) -> bytes:
    return b"event: %b\nid: %b\ndata: %b\n\n" % (kind.encode(), id_.encode(), data)


def pairs(fences: Sequence[Fence]) -> Pairs:
    exact = [fence for fence in fences if not (fence.namespace or fence.over)]
    return Pairs(
        _packed([fence for fence in exact if not fence.soft]),
        _packed([fence for fence in exact if fence.soft]),
        [
            (f"{fence.digest:016x}", fence.at, fence.over)
            for fence in fences
            if fence.over and not fence.namespace
        ],
        [(fence.namespace, fence.at, fence.soft, fence.over) for fence in fences if fence.namespace],
    )


def _packed(fences: Sequence[Fence]) -> str:
    numbers = [number for fence in fences for number in (fence.digest, fence.at)]
    return urlsafe_b64encode(struct.pack(f">{len(numbers)}Q", *numbers)).rstrip(b"=").decode()
