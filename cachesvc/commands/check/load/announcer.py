"""Announces writes to the cache until they are accepted, and then finds their fences'
positions.

A put of the written value announces the write as well. If it fails, the write is announced by a
call instead, as soon as the put cannot be stored any more.

A producer that gets an error has no promise, and announces again. The announcer does the same
until it is stopped: the history says when each attempt failed, and an announcement that was never
accepted is recorded as such.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from cachesvc.app.tasks import Tasks
from cachesvc.commands.check.history import Announcement, Fenced
from cachesvc.commands.check.load import tokens
from cachesvc.commands.check.load.instances import Instance, InstanceError, Instances
from cachesvc.commands.check.load.origin import Note, Now, Snapshot
from cachesvc.commands.check.load.producers import Producers, QueueError
from cachesvc.model.clock import SECONDS

Wait: TypeAlias = Literal["none", "region", "global"]
Failure: TypeAlias = tuple[int, bool, str]
"""When a failed attempt began, whether the queue was the reason, and its region."""

PUT_SECONDS = 2.0
"""A put that was not answered is stored no later than this (clients/PROTOCOL.md)."""
AGAIN_SECONDS = (0.05, 1.0)
"""The first pause after a failure, and the longest; each pause is twice the one before."""
QUEUE_DOWN = "queue-unavailable"
"""The problem kind of an instance whose region's queue takes nothing."""
FENCE_SECONDS = 120
"""How long the announcer looks for the fence of an accepted change. Without the fence, C3
cannot judge that change; C2 can."""
UNTOLD = 64
"""The most announcements at once. Beyond it clients write nothing, so that announcements
for a dead queue do not pile up."""


class Told(Struct, frozen=True):
    """Writes that are to be announced, and how."""

    how: Literal["api", "event", "put"]
    writes: tuple[tuple[str, int], ...]
    tag: str = ""
    """The tag to announce instead of the keys; empty to announce the keys."""
    wait: Wait = "none"

    def change(self, namespace: str) -> Mapping[str, object]:
        """The change as the API and the queue take it."""
        if self.tag:
            return {"namespace": namespace, "tags": [self.tag]}
        return {"namespace": namespace, "keys": [key for key, _ in self.writes]}


class Announcer:
    """Announces writes, each in a task of its own, and records the outcome.

    Every announcement is recorded once: when it is accepted, or when it is stopped.
    """

    def __init__(
        self,
        namespace: str,
        instances: Instances,
        producers: Producers,
        random: Random,
        note: Note,
        now: Now,
        snapshot: Callable[[str], Snapshot],
    ) -> None:
        """Makes an announcer without announcements. `snapshot` returns the value of a key to put."""
        self.accepted = 0
        self.failed = 0
        """Failed attempts."""
        self._namespace = namespace
        self._instances = instances
        self._producers = producers
        self._random = random
        self._note = note
        self._now = now
        self._snapshot = snapshot
        self._tasks = Tasks()
        self._announcing: set[asyncio.Task[Announcement]] = set()

    def __repr__(self) -> str:
        return (
            f"<Announcer [{len(self._announcing)} under way, {self.accepted} accepted,"
            f" {self.failed} attempts failed]>"
        )

    @property
    def is_full(self) -> bool:
        """True if no further announcement should be begun."""
        return len(self._announcing) >= UNTOLD

    def announce(self, told: Told) -> "asyncio.Task[Announcement]":
        """Begins to announce writes. The task ends when they are accepted, or is cancelled by
        `stop`.

        It goes on when its caller stops waiting for it.
        """
        announcing = self._tasks.spawn(self._until_accepted(told), f"announce {told.how}")
        self._announcing.add(announcing)
        announcing.add_done_callback(self._announcing.discard)
        return announcing

    async def finish(self, *, seconds: float) -> None:
        """Waits until all running announcements are accepted, `seconds` at most."""
        if self._announcing:
            await asyncio.wait(self._announcing, timeout=seconds)

    async def stop(self) -> None:
        """Stops the running announcements; they are recorded as never accepted."""
        await self._tasks.stop()

    async def _until_accepted(self, told: Told) -> Announcement:
        begun = Announcement(
            told.how,
            "",
            "",
            told.writes,
            self._now(),
            0,
            wait=told.wait,
            tags=(told.tag,) if told.tag else (),
        )
        failures: list[Failure] = []
        try:
            done = await self._attempts(told, begun, failures)
            self.accepted += 1
        except asyncio.CancelledError:
            self._noted(replace(begun, ended=self._now(), reached=False), failures)
            raise
        return self._noted(done, failures)

    async def _attempts(self, told: Told, begun: Announcement, failures: list[Failure]) -> Announcement:
        pause, longest = AGAIN_SECONDS
        while True:
            since = self._now()
            try:
                return await self._attempt(told, begun)
            except (InstanceError, QueueError) as error:
                self.failed += 1
                failures.append((since, is_queue_down(error), error.region))
            if told.how == "put":
                await asyncio.sleep(PUT_SECONDS)
                told, begun = replace(told, how="api"), replace(begun, how="api")
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)

    def _noted(self, announcement: Announcement, failures: Sequence[Failure]) -> Announcement:
        noted = replace(
            announcement,
            failures=tuple(since for since, _, _ in failures),
            failed_in=tuple(sorted({region for _, _, region in failures})),
            queue_down=bool(failures) and all(was_queue for _, was_queue, _ in failures),
        )
        self._note(noted)
        return noted

    async def _attempt(self, told: Told, begun: Announcement) -> Announcement:
        """One attempt. Raises `InstanceError` or `QueueError`."""
        if told.how == "event":
            return await self._as_event(told, begun)
        if told.how == "put":
            return await self._as_put(told, begun, self._instances.one(self._random))
        return await self._as_call(told, begun, self._instances.one(self._random))

    async def _as_event(self, told: Told, begun: Announcement) -> Announcement:
        region = self._random.choice(self._producers.regions)
        id_ = await self._producers.add(region, told.change(self._namespace))
        self._tasks.spawn(self._find_fence(id_, region), "find fence")
        return replace(begun, region=region, id=id_, ended=self._now())

    async def _as_put(self, told: Told, begun: Announcement, instance: Instance) -> Announcement:
        ((key, w),) = told.writes
        receipt = await instance.put(self._snapshot(key))
        ended = self._now()
        if receipt.id:
            self._tasks.spawn(self._find_fence(receipt.id, instance.region), "find fence")
        return replace(
            begun,
            region=instance.region,
            instance=instance.name,
            id=receipt.id or f"put:{key}:{w}",
            token=receipt.token,
            announced=receipt.announced,
            ended=ended,
        )

    async def _as_call(self, told: Told, begun: Announcement, instance: Instance) -> Announcement:
        receipt = await instance.invalidate({**told.change(self._namespace), "wait": told.wait})
        ended = self._now()
        if receipt.position:
            at = max(tokens.read(receipt.token).values(), default=0)
            self._note(Fenced(receipt.id, instance.region, receipt.position, at))
        else:
            self._tasks.spawn(self._find_fence(receipt.id, instance.region), "find fence")
        return replace(
            begun,
            region=instance.region,
            instance=instance.name,
            id=receipt.id,
            token=receipt.token,
            reached=receipt.reached,
            announced=receipt.announced,
            ended=ended,
        )

    async def _find_fence(self, id_: str, region: str) -> None:
        """Asks for the receipt until it gives the fence's position, or says that there will be
        none."""
        pause, longest = AGAIN_SECONDS
        ends = self._now() + FENCE_SECONDS * SECONDS
        while self._now() < ends:
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)
            try:
                state = await self._instances.one(self._random).receipt(id_)
            except InstanceError:
                continue  # the receipt's queue is down, or the receipt is not known yet
            if state.position:
                self._note(Fenced(id_, region, state.position))
            if state.position or state.state == "buried":
                return


def is_queue_down(error: Exception) -> bool:
    """True if the attempt failed because a queue took nothing, and not because an instance was
    gone."""
    return isinstance(error, QueueError) or (isinstance(error, InstanceError) and error.reason == QUEUE_DOWN)
