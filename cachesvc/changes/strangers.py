"""Instances that follow the region's fences, and that the topology document does not name.

Clients and other instances do not ask them, and nobody rolls a document out to them. Their names
come from the queue, which lists its followers of all regions. A region that names no instance has
no strangers.
"""

from collections.abc import Callable, Mapping, Sequence

from cachesvc.changes.contract import FenceStream
from cachesvc.config.topology import Region
from cachesvc.telemetry.loops import Loop

EVERY_SECONDS = 10.0


class Strangers:
    """The strangers that one instance knows of."""

    def __init__(self, stream: FenceStream, regions: Callable[[], Mapping[str, Region]]) -> None:
        """`stream` is that of the own region; `regions` are those of the newest document."""
        self._stream = stream
        self._regions = regions
        self.names: Sequence[str] = ()
        """Region and name of each, as `eu/eu-c`."""
        self.loop = Loop("instances outside the topology")

    def __repr__(self) -> str:
        return f"<Strangers [{', '.join(self.names) or 'none'}]>"

    async def run(self) -> None:
        """Looks every `EVERY_SECONDS`, until it is cancelled."""
        await self.loop.run(self.look, every_seconds=EVERY_SECONDS)

    async def look(self) -> None:
        """Asks the queue once. Raises `TierError`."""
        followers = await self._stream.followers()
        self.names = sorted(
            {
                f"{one.region}/{one.instance}"
                for one in followers
                if not self._is_named(one.region, one.instance)
            }
        )

    def _is_named(self, region: str, instance: str) -> bool:
        found = self._regions().get(region)
        return found is not None and (not found.instances or instance in found.instances)
