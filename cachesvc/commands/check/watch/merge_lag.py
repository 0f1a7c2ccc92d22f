"""How long real invalidations take from their stream to each instance, for a small share of them.

The share is taken by digest, so that of an invalidation either all instances are measured or none. What a fence was of is not
known here, and its `at` leads its moment by an amount that depends on that; so the lag counts from the publication: the
stream's own position is a time.
"""

import struct
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator

import msgspec
from msgspec import Struct

from cachesvc.changes.contract import position_of
from cachesvc.commands.check.load.feeds import FeedEvent

_PAIR = struct.Struct(">QQ")


class _Fences(Struct):
    fences: str = ""
    soft: str = ""
    paced: list[tuple[str, int, int]] = []
    namespaces: list[tuple[str, int, bool, int]] = []


_decoder = msgspec.json.Decoder(_Fences)


class MergeLags:
    """Of one instance's feed."""

    def __init__(
        self, sample: float, observe: Callable[[str, float], None], wall_ms: Callable[[], int]
    ) -> None:
        """`observe(region, seconds)`. `wall_ms`: the wall clock, which agrees with the queues' own within the skew."""
        self._least = int(sample * 2**64)
        self._observe = observe
        self._wall_ms = wall_ms
        self._positions: dict[str, str] = {}
        self._is_live = False
        """False while a subscription catches up: what comes then was merged earlier."""

    def take(self, event: FeedEvent) -> None:
        if event.kind in ("subscribed", "heartbeat"):
            self._is_live = event.kind == "heartbeat"
        moved = [(region, at) for region, at in event.vector.items() if self._positions.get(region, at) != at]
        self._positions.update(event.vector)
        if event.kind == "fences" and self._is_live and self._is_sampled(event.data):
            for region, position in moved:
                self._observe(region, max(0, self._wall_ms() - position_of(position)[0]) / 1000)

    def _is_sampled(self, data: bytes) -> bool:
        """Those of a whole namespace always are: they are few."""
        fences = _decoder.decode(data)
        return bool(fences.namespaces) or any(digest < self._least for digest in _digests(fences))


def _digests(fences: _Fences) -> Iterator[int]:
    for packed in (fences.fences, fences.soft):
        yield from (
            digest for digest, _ in _PAIR.iter_unpack(urlsafe_b64decode(packed + "=" * (-len(packed) % 4)))
        )
    yield from (int(digest, 16) for digest, _, _ in fences.paced)
