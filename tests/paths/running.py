"""An instance with its loops: the feed that reads fences, and the consumer of changes."""

import asyncio

from cachesvc.app.tasks import Tasks
from cachesvc.changes.broadcast.broadcast import Broadcast
from cachesvc.changes.consume import Consumer, ConsumerTally
from cachesvc.changes.feed import FeedTally, FenceFeed
from cachesvc.telemetry.traces.trace import Recorder
from tests.paths.world import SKEW_US, FarSide, Instance

HEARTBEAT_SECONDS = 0.5


class Running:
    def __init__(self, far: FarSide, name: str, recorder: Recorder | None = None) -> None:
        self.paths = paths = Instance(far, name=name)
        paths.fences.watermark = 0
        self.tally = ConsumerTally()
        self.heard = FeedTally()
        self.tasks = Tasks()
        self.broadcast = Broadcast(paths.clock, SKEW_US, ["here"])
        self.feed = FenceFeed(
            paths.stream,
            paths.fences,
            paths.merger,
            self.broadcast,
            paths.clock,
            SKEW_US,
            self.heard,
            paths.lags,
            recorder,
        )
        self.consumer = Consumer(
            name,
            changes=paths.changes,
            stream=paths.stream,
            applier=paths.applier,
            merger=paths.merger,
            clock=paths.clock,
            heartbeat_seconds=HEARTBEAT_SECONDS,
            namespaces=["docs", "aside"],
            tally=self.tally,
            lags=paths.lags,
            recorder=recorder,
        )

    def start(self, *, consuming: bool = True) -> None:
        self.tasks.spawn(self.feed.run(), "feed")
        if consuming:
            self.tasks.spawn(self.consumer.run(), "consumer")
            self.tasks.spawn(self.consumer.run_heartbeats(), "heartbeats")
            self.tasks.spawn(self.consumer.run_reclaiming(), "open changes")

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
