"""An instance with its loops: the feed that reads fences, and the consumer of changes."""

import asyncio
from collections.abc import Sequence

from cachesvc.app.feeds import build
from cachesvc.app.tasks import Tasks
from cachesvc.changes.relay.follower import RelayedFollower, RelayWay
from cachesvc.changes.relay.relay import Relay
from cachesvc.config.topology import Topology
from cachesvc.telemetry.traces.trace import Recorder
from tests.doubles.memory_journal import MemoryDisk
from tests.paths.world import SKEW_US, TOPOLOGY, FarSide, Instance


class Running:
    def __init__(
        self,
        far: FarSide,
        name: str,
        recorder: Recorder | None = None,
        *,
        topology: Topology = TOPOLOGY,
        disk: MemoryDisk | None = None,
        ways: Sequence[RelayWay] = (),
    ) -> None:
        """`ways`: relays that it follows; `host` is the first worker of its host. It is a relay itself."""
        self.paths = paths = Instance(far, name=name, topology=topology, disk=disk)
        self.relay = Relay("here", 1 << 20)
        self.follower = RelayedFollower(
            paths.stream, ways, self.relay, paths.clock, skew_us=SKEW_US, heartbeat_seconds=0.5
        )
        paths.fences.watermark = 0
        self.tasks = Tasks()
        self.loops = build(
            paths.service,
            paths.topology,
            paths.remote,
            paths.paths,
            clock=paths.clock,
            recorder=recorder,
            followed={"here": self.follower},
            is_spared=lambda bound: self.follower.is_served_by("host", bound),
        )
        (self.feed,) = self.loops.feeds
        self.broadcast, self.consumer = self.loops.broadcast, self.loops.consumer
        self.heard, self.tally = self.loops.feed_tally, self.loops.consumer_tally

    def start(self, *, consuming: bool = True) -> None:
        for loop, name in self.loops.loops() if consuming else self.loops.reading():
            self.tasks.spawn(loop, name)

    async def stop(self) -> None:
        await self.tasks.stop()
        await self.paths.tasks.stop()

    def bound_us(self) -> int:
        return self.paths.fences.bound_us(self.paths.clock.now_us())


async def started(far: FarSide, *names: str, recorder: Recorder | None = None) -> list[Running]:
    """These instances, running long enough to have heard a heartbeat and to cache."""
    running = [Running(far, name, recorder) for name in names]
    for one in running:
        one.start()
    await asyncio.sleep(2)
    return running


async def stop(*running: Running) -> None:
    for one in running:
        await one.stop()


async def never(*_: object, **__: object) -> list[object]:
    """A call that hangs."""
    await asyncio.Event().wait()
    return []
