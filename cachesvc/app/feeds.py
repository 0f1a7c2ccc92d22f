"""Wires the loops of an instance over the streams: for the service, and for the tests."""

from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cachesvc.app.paths import Paths, Remote
from cachesvc.changes.broadcast.broadcast import Broadcast
from cachesvc.changes.consume import Consumer, ConsumerTally
from cachesvc.changes.contract import Followed
from cachesvc.changes.feed import FeedTally, FenceFeed
from cachesvc.changes.journal.journal import Journal
from cachesvc.changes.rivals import Rivals
from cachesvc.config.service import Service
from cachesvc.config.topology import Topology
from cachesvc.model.clock import Clock
from cachesvc.telemetry.loops import Loop
from cachesvc.telemetry.traces.trace import Recorder


@dataclass(frozen=True)
class Feeds:
    """The loops of one instance over the streams, and what they count."""

    broadcast: Broadcast
    """Hands on what the feeds read to the near caches."""
    feeds: Sequence[FenceFeed]
    """One for each region's `fences`."""
    consumer: Consumer
    """Takes the `changes` of the instance's region."""
    rivals: Rivals
    """Looks for others that have a name which is this instance's or its queue's."""
    feed_tally: FeedTally
    consumer_tally: ConsumerTally
    journal: Journal | None
    """Announces what the queue did not take when it was away, if the instance keeps a journal."""

    def loops(self) -> Iterator[tuple[Coroutine[Any, Any, None], str]]:
        """Everything that is to run until the instance stops, each with its name."""
        yield from self.reading()
        yield self.consumer.run(), self.consumer.taking.name
        yield self.consumer.run_heartbeats(), self.consumer.beating.name
        yield self.consumer.run_reclaiming(), self.consumer.reclaiming.name
        yield self.rivals.run(), self.rivals.loop.name
        if self.journal is not None:
            yield self.journal.run(), self.journal.loop.name

    def reading(self) -> Iterator[tuple[Coroutine[Any, Any, None], str]]:
        """The loops of the fence feeds alone: without a consumer, an instance only follows."""
        for feed in self.feeds:
            yield feed.run(), feed.loop.name

    def watched(self) -> Sequence[Loop]:
        """The same loops, as they tell how they fare."""
        consumer = self.consumer
        own = (consumer.taking, consumer.beating, consumer.reclaiming, self.rivals.loop)
        journal = (self.journal.loop,) if self.journal is not None else ()
        return [*(feed.loop for feed in self.feeds), *own, *journal]


def build(
    service: Service,
    topology: Topology,
    remote: Remote,
    paths: Paths,
    *,
    clock: Clock,
    recorder: Recorder | None = None,
    followed: Mapping[str, Followed] | None = None,
    is_spared: Callable[[int | None], bool] = lambda _: False,
) -> Feeds:
    """The loops of the instance that `service` describes. Starts nothing and does no I/O.

    `followed`: what the feeds read, by region, if not the queues' own streams. `is_spared`: whether
    another consumer of the host works for this one, given the bound of the region's feed.
    """
    skew_us = service.coherence.max_clock_skew
    broadcast = Broadcast(clock, skew_us, topology.regions, max_subscribers=service.server.max_streams)
    feed_tally, consumer_tally = FeedTally(), ConsumerTally()
    feeds = [
        FenceFeed(
            stream,
            paths.fences,
            paths.merger,
            broadcast,
            clock,
            skew_us,
            feed_tally,
            paths.lags,
            recorder=recorder,
        )
        for stream in (remote.streams if followed is None else followed).values()
    ]
    own_feed = next(feed for feed in feeds if feed.region == service.region)
    consumer = Consumer(
        service.instance,
        changes=remote.changes,
        stream=remote.streams[service.region],
        applier=paths.applier,
        merger=paths.merger,
        clock=clock,
        heartbeat_seconds=service.coherence.heartbeat.seconds,
        skew_us=skew_us,
        namespaces=topology.namespaces,
        tally=consumer_tally,
        recorder=recorder,
        lags=paths.lags,
        rivals=paths.rivals,
        is_spared=lambda: is_spared(paths.fences.bound_of(service.region)),
        heard_at=lambda: own_feed.heard_at,
    )
    return Feeds(broadcast, feeds, consumer, paths.rivals, feed_tally, consumer_tally, paths.journal)
