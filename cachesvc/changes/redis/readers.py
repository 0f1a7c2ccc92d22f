"""Who reads a region's fences, as one instance last heard.

The server keeps the list, and loses it with everything else when it comes back empty. An invalidation that waits for every reader
would then find none to wait for, until each has met its gap and registered again. So whoever was on the list of another epoch
within the last minute stays on the roll: at no position, hence not past anything. Within one epoch the server's list is the
truth: who is not on it has signed off, or was silent for too long.
"""

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from cachesvc.changes.contract import ReaderPosition

SILENT_SECONDS = 60.0


class _Heard(Struct, frozen=True):
    at: float
    epoch: str
    reader: ReaderPosition


class Roll:
    def __init__(self) -> None:
        self._heard: dict[tuple[str, str], _Heard] = {}

    def call(self, listed: Sequence[ReaderPosition], epoch: str, now: float) -> Sequence[ReaderPosition]:
        """Those whom the server lists, and those of the last minute whom it forgot with its former epoch."""
        lost = {
            who: heard
            for who, heard in self._heard.items()
            if heard.epoch != epoch and heard.at >= now - SILENT_SECONDS
        }
        present = {
            (reader.region, reader.instance): _Heard(now - reader.silent_us / 1e6, epoch, reader)
            for reader in listed
        }
        self._heard = lost | present
        return [*listed, *(_nowhere(heard, now) for who, heard in lost.items() if who not in present)]


def _nowhere(heard: _Heard, now: float) -> ReaderPosition:
    return replace(heard.reader, position="0-0", silent_us=round((now - heard.at) * 1e6))
