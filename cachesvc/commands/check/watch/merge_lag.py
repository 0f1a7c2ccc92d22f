"""Measures how long a share of the real invalidations takes to reach each instance.

The share is chosen by digest, so an invalidation is measured at all instances or at none. The lag
counts from the publication of the fence, because a position in the stream is a time. It does not
count from the fence's `at`, which leads that moment by an amount that depends on the fence's
target; and the target is not known here.
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
    """The merge lags in one instance's feed."""

    def __init__(
        self, sample: float, observe: Callable[[str, float], None], wall_ms: Callable[[], int]
    ) -> None:
        """`observe(region, seconds)` takes each lag. `wall_ms`: the wall clock, which agrees with
        the clocks of the queues within the skew."""
        self._least = int(sample * 2**64)
        self._observe = observe
        self._wall_ms = wall_ms
        self._positions: dict[str, str] = {}
        self._is_live = False
        """False while a subscription catches up: its events were merged earlier than they arrive."""

    def take(self, event: FeedEvent) -> None:
        """Measures the event if it is live and sampled, and keeps its positions."""
        if event.kind in ("subscribed", "heartbeat"):
            self._is_live = event.kind == "heartbeat"
        moved = [(region, at) for region, at in event.vector.items() if self._positions.get(region, at) != at]
        self._positions.update(event.vector)
        if event.kind == "fences" and self._is_live and self._is_sampled(event.data):
            for region, position in moved:
                self._observe(region, max(0, self._wall_ms() - position_of(position)[0]) / 1000)

    def _is_sampled(self, data: bytes) -> bool:
        """True if the event has a fence of the sample. Fences of a whole namespace are all
        measured, as there are few."""
        fences = _decoder.decode(data)
        return bool(fences.namespaces) or any(digest < self._least for digest in _digests(fences))


def _digests(fences: _Fences) -> Iterator[int]:
    for packed in (fences.fences, fences.soft):
        yield from (
            digest for digest, _ in _PAIR.iter_unpack(urlsafe_b64decode(packed + "=" * (-len(packed) % 4)))
        )
    yield from (int(digest, 16) for digest, _, _ in fences.paced)
