"""Who reads a region's fences, as one instance last heard.

The server keeps the list, and loses it with everything else when it comes back empty. An invalidation that waits for every reader
would then find none to wait for, until each has met its gap and registered again. So whoever was heard of within the last minute
stays on the roll: at no position, hence not past anything.
"""

from collections.abc import Sequence

from msgspec.structs import replace

from cachesvc.interfaces import ReaderPosition

SILENT_SECONDS = 60.0


class Roll:
    def __init__(self) -> None:
        self._heard: dict[tuple[str, str], tuple[float, ReaderPosition]] = {}

    def call(self, listed: Sequence[ReaderPosition], now: float) -> Sequence[ReaderPosition]:
        """Those whom the server lists, and those of the last minute whom it has forgotten."""
        for reader in listed:
            self._heard[reader.region, reader.instance] = (now - reader.silent_us / 1_000_000, reader)
        self._heard = {who: heard for who, heard in self._heard.items() if heard[0] >= now - SILENT_SECONDS}
        present = {(reader.region, reader.instance) for reader in listed}
        return [*listed, *(_lost(reader, now - at) for who, (at, reader) in self._heard.items() if who not in present)]


def _lost(reader: ReaderPosition, silent: float) -> ReaderPosition:
    return replace(reader, position="0-0", silent_us=round(silent * 1_000_000))
