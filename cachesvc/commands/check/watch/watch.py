"""`cachesvc check --watch`: measures staleness in production, without end and at hardly
any load.

    round   a canary key is read everywhere, so that it is cached ── written ── announced ── read
            everywhere until the write is seen ── the round is judged ── pause, and the next key
    always  every instance's feed is followed, and the merge lag of a share of its fences is taken

Canary keys are the checker's own. Of real keys it sees only digests, as every near cache does.
"""

import asyncio
import itertools
import logging
import time
from contextlib import AsyncExitStack
from random import Random

import aiohttp
from msgspec.structs import replace

from cachesvc.app.tasks import Tasks
from cachesvc.commands.check.history import Read, Record
from cachesvc.commands.check.judge import judge
from cachesvc.commands.check.load.announcer import Announcer, Told
from cachesvc.commands.check.load.feeds import Feed, FeedEvent, Merges
from cachesvc.commands.check.load.instances import Instance, Instances
from cachesvc.commands.check.load.origin import HttpOrigin, VersionedStore
from cachesvc.commands.check.load.producers import Producers
from cachesvc.commands.check.load.read_recorder import ReadRecorder
from cachesvc.commands.check.run import CheckError, monotonic_us, open_origin, require, run_of
from cachesvc.commands.check.settings import AT_ONCE, CheckSettings
from cachesvc.commands.check.verdicts import Verdict
from cachesvc.commands.check.watch.merge_lag import MergeLags
from cachesvc.commands.check.watch.metrics import WatchMetrics
from cachesvc.commands.check.watch.rolling_history import RollingHistory
from cachesvc.commands.credential import session

log = logging.getLogger(__name__)

CANARIES = 8
"""How many keys are written in turn."""
ROUNDS_KEPT = 3
"""How often each key is written before its oldest write leaves the history. Values of
older writes are judged as never written."""
AGAIN_SECONDS = 0.005
"""The pause between two reads of a canary whose write was not seen yet: the resolution of
the measured staleness."""
JUDGED = ("C0", "C1", "C2", "C3", "C4", "C6", "C7")
"""The checks that are judged. Canaries are too few for a share of hits (C9), and nobody
breaks servers on purpose (C8)."""


async def watch(
    settings: CheckSettings, metrics: WatchMetrics, *, sample: float, pause_seconds: float
) -> None:
    """Watches until it is cancelled. Raises `CheckError` if it cannot begin.

    An instance that does not answer later is a part of what is measured.
    """
    settings = replace(settings, delays=AT_ONCE)
    metrics.run_info.labels(settings.namespace, settings.run_id, f"{settings.max_lag_us / 1e6:g}s").set(1)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(
            session(settings.credential, limit=0, ssl=settings.reach.https)
        )
        producers = await stack.enter_async_context(
            Producers(settings.queues, "/cachesvc/check", settings.reach.queues)
        )
        canaries = Canaries(settings, metrics, http, producers, pause_seconds)
        if not settings.look_aside:
            await open_origin(canaries.origin, settings)
            stack.push_async_callback(canaries.origin.stop)
        await _require_any(canaries, settings)
        background = Tasks()
        stack.push_async_callback(canaries.announcer.stop)
        stack.push_async_callback(background.stop)
        background.spawn(canaries.instances.look(), "look for instances that are gone")
        for instance in canaries.instances.all:
            background.spawn(
                _followed(instance, http, canaries, metrics, sample).follow(), f"feed of {instance.name}"
            )
        await canaries.run(pause_seconds)


async def _require_any(canaries: "Canaries", settings: CheckSettings) -> None:
    asked = (require(instance, settings, canaries.keys[0]) for instance in canaries.instances.all)
    failures = [
        failure for failure in await asyncio.gather(*asked, return_exceptions=True) if failure is not None
    ]
    for failure in failures:
        log.warning("%s", failure)
    if len(failures) == len(canaries.instances.all):
        raise CheckError("no instance can be watched; the log says why") from failures[0]


def _followed(
    instance: Instance,
    http: aiohttp.ClientSession,
    canaries: "Canaries",
    metrics: WatchMetrics,
    sample: float,
) -> Feed:
    merges = Merges(instance.name, canaries.history.add, monotonic_us)
    lags = MergeLags(
        sample,
        lambda region, seconds: metrics.merge_lag.labels(region, instance.name).observe(seconds),
        lambda: time.time_ns() // 1_000_000,
    )
    resets = metrics.resets.labels(instance.name)

    def take(event: FeedEvent) -> None:
        merges.take(event)
        lags.take(event)
        if event.kind == "reset":
            resets.inc()

    return Feed(instance, http, take)


class Canaries:
    """Writes a canary and follows it until it is seen everywhere, round after round."""

    def __init__(
        self,
        settings: CheckSettings,
        metrics: WatchMetrics,
        http: aiohttp.ClientSession,
        producers: Producers,
        pause_seconds: float,
    ) -> None:
        random = Random(settings.run_id)  # noqa: S311  which instance is called is no secret
        self.keys = tuple(f"canary{i}-{settings.run_id}" for i in range(CANARIES))
        self._longest_seconds = settings.settle_seconds + settings.deadline_seconds
        keep_seconds = ROUNDS_KEPT * CANARIES * (pause_seconds + self._longest_seconds)
        self.history = RollingHistory(run_of(settings), keep_seconds, monotonic_us)
        self.store = VersionedStore(
            dict.fromkeys(self.keys, (f"canaries-{settings.run_id}",)), self.history.add, monotonic_us
        )
        self.origin = HttpOrigin(self.store, random, self.history.add, monotonic_us)
        self.instances = Instances(settings.instances, settings.namespace, http)
        self.announcer = Announcer(
            settings.namespace,
            self.instances,
            producers,
            random,
            self.history.add,
            monotonic_us,
            self.store.snapshot,
        )
        self._recorder = ReadRecorder(settings, self.store, random, self._note_read, monotonic_us)
        self._metrics = metrics
        self._with_events = bool(settings.queues)
        self._rounds = 0
        self._counted = 0, 0
        """The announcements that the metrics have counted: accepted, failed."""

    async def run(self, pause_seconds: float) -> None:
        """Runs round after round until it is cancelled."""
        for key in itertools.cycle(self.keys):
            if not self.announcer.is_full:  # else announcements for a dead queue would pile up
                await self.round(key)
            await asyncio.sleep(pause_seconds)

    async def round(self, key: str) -> Verdict:
        """Writes a key once and reads it everywhere until the write is seen, then judges the
        round.

        Instances that are gone are left out. Reading ends a little after the staleness bound,
        seen or not.
        """
        here = self.instances.here()
        await asyncio.gather(*(self._recorder.read(instance, [key]) for instance in here))
        committed = monotonic_us()
        ((_, w),) = written = self.store.commit([key])
        self._rounds += 1
        self.announcer.announce(Told("event" if self._with_events and self._rounds % 2 else "api", written))
        ends = committed + round(self._longest_seconds * 1e6)
        await asyncio.gather(*(self._follow(instance, key, w, committed, ends) for instance in here))
        await self.announcer.finish(seconds=self._longest_seconds)
        return self._ended(len(here))

    async def _follow(self, instance: Instance, key: str, w: int, committed: int, ends: int) -> None:
        """Reads until the write is seen; measures how long it was not, and which tier missed it
        last."""
        stale_us, tier = 0, ""
        while True:
            (read,) = await self._recorder.read(instance, [key])
            is_stale = read.version is not None and read.version < w
            if is_stale:
                stale_us, tier = read.started - committed, read.tier
                self._metrics.stale_reads.labels(instance.region, read.tier).inc()
            if (read.version is not None and not is_stale) or read.started > ends or instance.is_gone:
                break
            await asyncio.sleep(AGAIN_SECONDS)
        if read.version is not None:
            self._metrics.staleness.labels(instance.region, tier or read.tier).observe(stale_us / 1e6)

    def _ended(self, here: int) -> Verdict:
        verdict = judge(self.history.take(), least_share=0)
        for finding in verdict.findings:
            if finding.check in JUDGED and finding.broken:
                self._metrics.violations.labels(finding.check).inc(finding.broken)
                for violation in finding.examples:
                    log.error("%s violated: %s", finding.check, violation.says)
        self._count_announcements()
        self._metrics.instances.labels("here").set(here)
        self._metrics.instances.labels("gone").set(len(self.instances.all) - here)
        self._metrics.rounds.inc()
        self._metrics.last_round.set_to_current_time()
        return verdict

    def _count_announcements(self) -> None:
        """Counts the announcements since the last call, those of earlier rounds included: some are
        accepted only while a later round runs."""
        announcements = self._metrics.announcements
        announcements.labels("accepted").inc(self.announcer.accepted - self._counted[0])
        announcements.labels("failed").inc(self.announcer.failed - self._counted[1])
        self._counted = self.announcer.accepted, self.announcer.failed

    def _note_read(self, record: Record) -> None:
        if isinstance(record, Read):
            self._metrics.count_read(record)
        self.history.add(record)
