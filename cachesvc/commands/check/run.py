"""A run of the checker: clients put load on the deployment, it settles, and every key is
read everywhere.

ready? ── feeds followed ── load (faults are made now) ── last announcements ── settle ── sweep
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random

import aiohttp

from cachesvc.app.tasks import Tasks
from cachesvc.commands.check.history import HistoryWriter, Run
from cachesvc.commands.check.load.announcer import Announcer
from cachesvc.commands.check.load.feeds import Feed, Merges
from cachesvc.commands.check.load.instances import PROBE_SECONDS, Instance, InstanceError, Instances
from cachesvc.commands.check.load.origin import HttpOrigin, VersionedStore
from cachesvc.commands.check.load.producers import Producers
from cachesvc.commands.check.load.read_recorder import ReadRecorder
from cachesvc.commands.check.load.workload import Client, Dice, Keyspace
from cachesvc.commands.check.settings import AT_ONCE, CheckSettings, namespace_yaml
from cachesvc.commands.credential import session

START_SECONDS = 10.0
"""The time in which every instance has to be ready, and to send the first event of its
feed."""
LAST_ANNOUNCEMENTS_SECONDS = 10.0
"""The time after the load for announcements that were not accepted yet: a queue that comes
back takes them."""
SWEEPS = 3
"""How often all keys are read at all instances. The second and third sweep find what the
first cached."""


class CheckError(Exception):
    """The check could not run. The message says why, and what to do."""


def monotonic_us() -> int:
    """The time in µs of the clock of all moments in a history, recorded faults included."""
    return time.monotonic_ns() // 1000


async def check(
    settings: CheckSettings, history: HistoryWriter, *, until: asyncio.Event | None = None
) -> None:
    """Runs the check once and records everything in the history.

    The caller may make faults and record them during the load. The load lasts as long as the
    settings say, and longer if `until` is not set by then.

    Raises `CheckError` if the check cannot begin. An instance that is out of reach later is a
    part of what is checked. When this is cancelled, the load ends at once, and what was recorded
    can be judged.
    """
    history.add(run_of(settings))
    async with _started(settings, history) as running:
        await running.load(until)
        await running.settle()
        await running.sweep()


def run_of(settings: CheckSettings) -> Run:
    """The history's first record, from the settings."""
    return Run(
        settings.seed,
        tuple(settings.instances),
        settings.max_lag_us,
        settings.heartbeat_us,
        settings.skew_us,
        settings.look_aside,
    )


class _Running:
    """The parts of a run. They are made here, and started by `_started`."""

    def __init__(
        self,
        settings: CheckSettings,
        history: HistoryWriter,
        http: aiohttp.ClientSession,
        producers: Producers,
    ) -> None:
        note, now = history.add, monotonic_us
        self.settings = settings
        self.space = Keyspace.of(settings)
        self.store = VersionedStore(self.space.tags_of, note, now)
        self.origin = HttpOrigin(self.store, self._random("origin"), note, now)
        self.instances = Instances(settings.instances, settings.namespace, http)
        self.recorder = ReadRecorder(settings, self.store, self._random("reader"), note, now)
        self.announcer = Announcer(
            settings.namespace,
            self.instances,
            producers,
            self._random("announcer"),
            note,
            now,
            self.store.snapshot,
        )
        self.feeds = [Feed(each, http, Merges(each.name, note, now).take) for each in self.instances.all]
        self.clients = [self._client(i) for i in range(settings.clients)]
        self.background = Tasks()

    async def load(self, until: asyncio.Event | None) -> None:
        """Runs the clients for the settings' duration, and until `until` is set."""
        self.origin.delays = self.recorder.delays = self.settings.delays
        for client in self.clients:
            self.background.spawn(client.run(), repr(client))
        await asyncio.sleep(self.settings.duration_seconds)
        if until is not None:
            await until.wait()

    async def settle(self) -> None:
        """Stops the writes and makes loads fast, then waits until everything must have been seen.

        First the announcements that can still be accepted are; then the staleness bound passes.
        Clients go on reading.
        """
        self.origin.delays = self.recorder.delays = AT_ONCE
        for client in self.clients:
            client.may_write = False
        await self.announcer.finish(seconds=LAST_ANNOUNCEMENTS_SECONDS)
        await asyncio.sleep(self.settings.settle_seconds)

    async def sweep(self) -> None:
        """Stops the clients and reads every key at every instance, `SWEEPS` times."""
        for client in self.clients:
            client.is_stopping = True
        for _ in range(SWEEPS):
            await asyncio.gather(
                *(self.recorder.read(instance, self.space.all_keys) for instance in self.instances.all)
            )

    def _client(self, number: int) -> Client:
        name = f"c{number}"
        dice = Dice(
            self._random(name), self.space, self.settings.read_share, with_events=bool(self.settings.queues)
        )
        own = self.space.of_puts[number]
        return Client(
            name, self.settings, dice, self.instances, self.store, self.recorder, self.announcer, own
        )

    def _random(self, whose: str) -> Random:
        return Random(f"{self.settings.seed}/{whose}")  # noqa: S311  the same seed must give the same run


@asynccontextmanager
async def _started(settings: CheckSettings, history: HistoryWriter) -> AsyncIterator[_Running]:
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(
            session(settings.credential, limit=0, ssl=settings.reach.https)
        )
        producers = await stack.enter_async_context(
            Producers(settings.queues, "/cachesvc/check", settings.reach.queues)
        )
        running = _Running(settings, history, http, producers)
        if not settings.look_aside:
            await open_origin(running.origin, settings)
            stack.push_async_callback(running.origin.stop)
        await asyncio.gather(
            *(require(instance, settings, running.space.keys[0]) for instance in running.instances.all)
        )
        stack.push_async_callback(running.announcer.stop)
        stack.push_async_callback(running.background.stop)
        running.background.spawn(running.instances.look(), "look for instances that are gone")
        for feed in running.feeds:
            running.background.spawn(feed.follow(), f"feed of {feed.instance.name}")
        await asyncio.gather(*(first_event(feed) for feed in running.feeds))
        yield running


async def open_origin(origin: HttpOrigin, settings: CheckSettings) -> None:
    """Starts the checker's origin. Raises `CheckError` if its address cannot be listened on."""
    try:
        await origin.start(settings.origin_host, settings.origin_port)
    except OSError as error:
        raise CheckError(
            f"the origin cannot listen on {settings.origin_address} ({error.strerror}):"
            " is another check running? "
            "Stop it, or name another address with --origin-listen (and in the namespace's origin.url)"
        ) from error


async def require(instance: Instance, settings: CheckSettings, key: str) -> None:
    """Raises `CheckError` unless the instance is ready within `START_SECONDS` and serves the
    namespace."""
    try:
        await _until_ready(instance)
        await instance.get_many([key], token="", deadline_seconds=settings.deadline_seconds)
    except InstanceError as error:
        if error.reason != "no-such-namespace":
            raise CheckError(f"{instance.name} at {instance.url} cannot be used: {error}") from error
        yaml = namespace_yaml(settings.namespace, settings.origin_address)
        raise CheckError(
            f"{instance.name} has no namespace {settings.namespace!r}. Add it and deploy:\n{yaml}"
        ) from error


async def _until_ready(instance: Instance) -> None:
    ends = time.monotonic() + START_SECONDS
    while True:
        try:
            return await instance.require_ready()
        except InstanceError:
            if time.monotonic() > ends:
                raise
        await asyncio.sleep(PROBE_SECONDS)


async def first_event(feed: Feed) -> None:
    """Waits for the first event of a feed. Raises `CheckError` if none comes within
    `START_SECONDS`."""
    try:
        async with asyncio.timeout(START_SECONDS):
            await feed.started.wait()
    except TimeoutError as error:
        raise CheckError(
            f"{feed.instance.name} does not tell what it has merged (GET /v1/fences): {feed.why}"
        ) from error
