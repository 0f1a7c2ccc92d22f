"""The wire between a relay and a follower: items of one `fences` stream, in frames.

    frame   u32 big-endian, the bytes of the body, then the body: a msgpack array; without a
        body the relay stops, and nothing follows
    body    [after, [[id, {field: value}], …]]

`after` is the position that the items follow (`changes/contract.py`); ids, fields and values are
bytes, as on the stream (`changes/redis/fence_items.py`).
"""

import re
import struct
from collections.abc import Sequence
from itertools import pairwise

import msgspec
from msgspec import Struct

from cachesvc.changes.contract import Item, position_of
from cachesvc.model.errors import TierError

LARGEST_FRAME = 8 << 20
"""Bytes of the largest body.

One read of a stream ends after a mebibyte and an item, which has a mebibyte at most."""

_SIZE = struct.Struct(">I")
LAST_FRAME = _SIZE.pack(0)
"""The frame of a relay that stops.

Earlier builds refuse its shape, and so leave the relay, too."""
_POSITION = re.compile(r"[0-9]{1,16}-[0-9]{1,20}@[0-9a-f]{8}").fullmatch
_ID = re.compile(rb"[0-9]{1,16}-[0-9]{1,20}").fullmatch


class FrameError(TierError):
    """A relay sent no frame, or one that does not fit, or its connection has failed."""


class Frame(Struct, array_like=True, frozen=True):
    """Items of a stream, in its order, with nothing left out between them."""

    after: str
    """The position that the items follow."""
    items: Sequence[tuple[bytes, dict[bytes, bytes]]]
    """The items: id, and fields with their values; one at least."""


_decode = msgspec.msgpack.Decoder(Frame).decode


def frame_of(after: str, items: Sequence[Item]) -> bytes:
    """Returns the bytes of a frame."""
    body = msgspec.msgpack.encode((after, items))
    return _SIZE.pack(len(body)) + body


class FrameReader:
    """Makes frames of the bytes of one connection, however the network has cut them."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._unread = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Returns the frames that are whole by now. Raises `FrameError`; then none may follow."""
        self._unread += data
        frames: list[Frame] = []
        while len(self._unread) >= _SIZE.size:
            (size,) = _SIZE.unpack_from(self._unread)
            if not size:
                raise FrameError(self._where, "its instance stops")
            if size > LARGEST_FRAME:
                raise FrameError(self._where, f"a frame of {size} bytes")
            if len(self._unread) < (end := _SIZE.size + size):
                break
            frames.append(self._frame_in(self._unread[_SIZE.size : end]))
            del self._unread[:end]
        return frames

    def _frame_in(self, body: bytearray) -> Frame:
        try:
            frame = _decode(body)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise FrameError(self._where, "a frame of another shape") from error
        if not (_POSITION(frame.after) and frame.items and all(_ID(id_) for id_, _ in frame.items)):
            raise FrameError(self._where, "a frame with ids that are none")
        ids = [position_of(frame.after), *(position_of(id_.decode()) for id_, _ in frame.items)]
        if any(one >= other for one, other in pairwise(ids)):
            raise FrameError(self._where, "a frame whose ids do not ascend")
        return frame
