"""The events of a broadcast: their data, their ids and their bytes."""

import re
import struct
from base64 import urlsafe_b64encode
from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias

import msgspec
from msgspec import Struct

from cachesvc.changes.contract import position_of
from cachesvc.model.fence import EVERYTHING, Fence

Vector: TypeAlias = dict[str, str]
"""Region → position, with its epoch. A region that was never read is left out."""


EVENT_OVERHEAD = 500
"""Bytes that an event of the log costs beside its text."""
FENCE_BYTES = 450
"""Bytes that a fence costs until its event is rendered; then it is about 22."""
MOST_UNRENDERED = 16
"""An event of more fences is rendered at once: its fences would take ten times the memory."""


_MEMBER = re.compile(r"([a-z][a-z0-9-]{0,63})=([0-9]{1,16}-[0-9]{1,20}(?:@[0-9a-f]{8})?)").fullmatch


encode = msgspec.json.Encoder().encode


def vector_text(vector: Mapping[str, str]) -> str:
    """Returns the vector as an event id: `eu=1700-3@5f3a9c01,us=1700-0@07d1e2b4`."""
    return ",".join(f"{region}={vector[region]}" for region in sorted(vector) if vector[region])


def read_vector(text: str) -> Vector:
    """Returns the vector of an event id. Raises `ValueError` for a text that is no event id.

    A position without an epoch, as ids had before, is one of no epoch that is read here.
    """
    members = [_MEMBER(member) for member in text.split(",")]
    if not all(members):
        raise ValueError(
            f"{text[:64]!r} is no event id: "
            "send one as it came, such as eu=1700000000000-3@5f3a9c01,us=1700000000100-0@07d1e2b4"
        )
    return {match[1]: match[2] for match in members if match}


class Pairs(Struct, omit_defaults=True):
    """The data of a `fences` event.

    `fences` and `soft` are pairs of digest and `at`, 8 bytes each, big-endian, in base64url.
    """

    fences: str = ""
    soft: str = ""
    paced: list[tuple[str, int, int]] = []
    namespaces: list[tuple[str, int, bool, int]] = []


class Heartbeat(Struct):
    """The data of a `heartbeat` event; all times in µs."""

    complete_to: Mapping[str, int]
    floor: int
    now: int


class Reset(Struct):
    """The data of a `reset` event; `floor` in µs."""

    floor: int
    reason: str


class Event:
    """An event of the log: one batch of fences, or a reset.

    It is rendered once, and only when a subscriber is to have it: most instances have none.
    """

    __slots__ = ("_names", "_text", "_unrendered", "cost", "fences", "id", "position", "region")

    def __init__(self, region: str, position: str, id_: str, said: "Sequence[Fence] | Reset") -> None:
        """`position` (in the region's stream) and `id_` (the vector) are those after it."""
        self.region = region
        self.position = position
        self.id = id_
        self._unrendered: Sequence[Fence] = ()
        self._text = b""
        self._names: frozenset[str] = frozenset()
        if isinstance(said, Reset):
            self.fences = 0
            self._text = rendered("reset", id_, encode(said))
        else:
            self.fences = len(said)
            self._unrendered = said
            if self.fences > MOST_UNRENDERED:
                self.render()
        self.cost = EVENT_OVERHEAD + len(self._text) + FENCE_BYTES * len(self._unrendered)
        """Bytes that the event costs in the log, at most."""

    def __repr__(self) -> str:
        return f"<Event {self.id} [{self.fences} fences]>"

    def render(self) -> bytes:
        """Returns the event as bytes, with `id` as its id."""
        if self._unrendered:
            fences, self._unrendered = self._unrendered, ()
            self._names = frozenset(fence.namespace for fence in fences if fence.namespace)
            self._text = rendered("fences", self.id, encode(pairs(fences)))
        return self._text

    def text_for(self, seen: Collection[str] | None) -> bytes:
        """Returns the event without namespaces beyond those of `seen` (None: all)."""
        text = self.render()
        if seen is None or self._names.issubset(seen):
            return text
        head, _, data = text.partition(b"\ndata: ")
        found = msgspec.json.decode(data, type=Pairs)
        found.namespaces = [fence for fence in found.namespaces if fence[0] in seen]
        return head + b"\ndata: " + encode(found) + b"\n\n"

    def stamped(self, text: bytes, id_: str) -> bytes:
        """Returns the event's text with another id.

        A subscriber that stands elsewhere in the streams of other regions needs one.
        """
        return text.replace(f"\nid: {self.id}\n".encode(), f"\nid: {id_}\n".encode(), 1)


def is_beyond(id_: str, after: Mapping[str, str]) -> bool:
    """True if the event with this id is not covered by the vector `after`, of the same epochs."""
    return any(
        position_of(position) > position_of(after.get(region, ""))
        for region, position in read_vector(id_).items()
    )


def rendered(kind: str, id_: str, data: bytes) -> bytes:
    """Returns the bytes of a server-sent event."""
    return b"event: %b\nid: %b\ndata: %b\n\n" % (kind.encode(), id_.encode(), data)


def pairs(fences: Sequence[Fence]) -> Pairs:
    """Returns the fences as the data of a `fences` event."""
    exact = [fence for fence in fences if not (fence.namespace or fence.over)]
    return Pairs(
        _packed([fence for fence in exact if not fence.soft]),
        _packed([fence for fence in exact if fence.soft]),
        [
            (f"{fence.digest:016x}", fence.at, fence.over)
            for fence in fences
            if fence.over and not fence.namespace
        ],
        [
            (fence.namespace, fence.at, fence.soft, fence.over)
            for fence in fences
            if fence.namespace not in ("", EVERYTHING)  # the reset that comes before it covers more
        ],
    )


def _packed(fences: Sequence[Fence]) -> str:
    numbers = [number for fence in fences for number in (fence.digest, fence.at)]
    return urlsafe_b64encode(struct.pack(f">{len(numbers)}Q", *numbers)).rstrip(b"=").decode()
