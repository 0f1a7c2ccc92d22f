"""Background loops that survive everything, and tell how they fare.

    step() ─┬─ returns ──────────────────────► works; an outage that is over is logged
            ├─ TierError ────────────────────► failed: the server's outage is logged, once
            ├─ anything else ────────────────► failed: logged once per outage, with its traceback
            └─ the loop's task is cancelled ─► the loop ends

A failed step is counted and the loop goes on. Every loop of an instance is a `Loop` of its one
`Loops`: those that await, those that a timer calls, and threads. A loop that has ended, that keeps
failing, or whose step does not return is a trouble, and `/readyz?verbose` and the metrics name it.
"""

import asyncio
import contextlib
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path

from msgspec import Struct

from cachesvc.model.errors import TierError
from cachesvc.telemetry.outage import Outage

log = logging.getLogger(__name__)

PAUSE_SECONDS = 0.2
"""Pause after a failed step."""
FAILING_SECONDS = 5.0
"""A loop none of whose steps has worked for so long keeps failing."""
STUCK_SECONDS = 60.0
"""A step that runs for longer is stuck: every exchange of a step has a time limit of a few
seconds."""


class LoopStatistics(Struct, frozen=True):
    """The state of one loop, and its counter since the start."""

    failures: int
    """Steps that failed."""
    is_troubled: bool
    """True if the loop has ended, keeps failing, or is stuck in a step."""


class Loop:
    """One background loop, for one task, one thread, or the timers of one event loop."""

    def __init__(
        self,
        name: str,
        *,
        outage: Outage | None = None,
        failed: Callable[[Exception], None] = lambda _: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`outage` logs the failures of the server that the loop works with; it may be shared.

        Without it, such failures are logged as those of the loop. `failed` is called with the error of
        each step that failed. `now` is in seconds.
        """
        self.name = name
        self.failures = 0
        """Steps that failed."""
        self._now = now
        self._defect = Outage(f"the loop {name!r}", log, now=now)
        self._outage = outage or self._defect
        self._note_failed = failed
        self._has_ended = False
        self._began_at: float | None = None
        """When the running step began; None between two steps."""
        self._failing_since: float | None = None
        """When the first step failed since one worked; None if the last step worked."""
        self._why = ""
        self._is_server_away = False

    def __repr__(self) -> str:
        return f"<Loop {self.name} [{self.trouble or 'well'}, {self.failures} failures]>"

    @property
    def trouble(self) -> str:
        """Why the loop does not do its work, for people; empty if it does."""
        # Each attribute is read once: a thread may set it to None meanwhile.
        since, began_at, now = self._failing_since, self._began_at, self._now()
        if self._has_ended:
            return f"has ended: {self._why}" if self._why else "has ended"
        if began_at is not None and now - began_at >= STUCK_SECONDS:
            return f"is stuck in one step, for {now - began_at:.0f} s"
        if since is not None and now - since >= FAILING_SECONDS:
            return f"has failed for {now - since:.0f} s: {self._why}"
        return ""

    @property
    def is_cut_off(self) -> bool:
        """True if the loop keeps failing, and its server is the reason (`TierError`)."""
        since = self._failing_since  # read once: a thread may set it to None meanwhile
        return self._is_server_away and since is not None and self._now() - since >= FAILING_SECONDS

    def statistics(self) -> LoopStatistics:
        return LoopStatistics(self.failures, bool(self.trouble))

    # A loop that awaits -----------------------------------------------------------------------

    async def run(self, step: Callable[[], Awaitable[None]], *, every_seconds: float = 0.0) -> None:
        """Does `step` until it is cancelled, with `every_seconds` after each that worked."""
        with self.alive():
            while True:
                await self.persist(step)
                if every_seconds:
                    await asyncio.sleep(every_seconds)

    async def persist(self, step: Callable[[], Awaitable[None]]) -> None:
        """Does `step` until it works, with a pause between two tries."""
        while True:
            if await self.once(step):
                return
            await asyncio.sleep(PAUSE_SECONDS)

    async def once(self, step: Callable[[], Awaitable[None]]) -> bool:
        """Does `step`, and returns whether it worked.

        A cancellation of the task that awaits this is raised. A `CancelledError` without one (of
        something that `step` awaited) is a failure like any other.
        """
        with self.step() as outcome:
            try:
                await step()
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                raise StrayCancellationError from error
        return outcome.worked

    # Loops that timers call, and threads ------------------------------------------------------

    @contextlib.contextmanager
    def alive(self) -> Iterator[None]:
        """The life of a loop that has a task or a thread: at the end of the block it has ended."""
        self._has_ended = False
        try:
            yield
        except Exception as error:
            self._why = _told(error)
            raise
        finally:
            self._has_ended = True

    def step(self) -> "Outcome":
        """One step: a block. An `Exception` in it is counted and logged, and not raised."""
        return Outcome(self)

    def _began(self) -> None:
        self._began_at = self._now()

    def _ended(self, error: BaseException | None) -> None:
        try:
            if error is None:
                self._worked()
            elif isinstance(error, Exception):
                self._failed(error)
        finally:
            self._began_at = None

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        self._note_failed(error)
        self._why = _told(error)
        if self._failing_since is None:
            self._failing_since = self._now()
        self._is_server_away = isinstance(error, TierError)
        if isinstance(error, TierError):
            self._outage.failed(error)
        else:
            self._defect.failed(self._why, cause=error)

    def _worked(self) -> None:
        self._failing_since = None
        if self._outage.is_on:
            self._outage.worked()
        if self._defect.is_on:
            self._defect.worked()


class Outcome:
    """The block of a step, and whether the step worked: that is known at the end of the block.

    A class, and no generator: threads do a step for each exchange with a server.
    """

    __slots__ = ("_loop", "worked")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.worked = False

    def __enter__(self) -> "Outcome":
        self._loop._began()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        self.worked = error is None
        self._loop._ended(error)
        return isinstance(error, Exception)


class StrayCancellationError(Exception):
    """Something that a step awaited was cancelled, and the loop itself was not."""

    def __str__(self) -> str:
        return "something that was awaited was cancelled"


class Loops:
    """All background loops of one instance, by name."""

    def __init__(self, loops: Iterable[Loop] = ()) -> None:
        self._loops: list[Loop] = list(loops)

    def __repr__(self) -> str:
        return f"<Loops [{len(self._loops)}, {len(self.troubles())} troubled]>"

    def watch(self, loops: Iterable[Loop]) -> None:
        """Adds loops to those that are watched."""
        self._loops += loops

    def forget(self, loops: Collection[Loop]) -> None:
        """Watches these loops no longer."""
        self._loops = [loop for loop in self._loops if loop not in loops]

    def troubles(self) -> Mapping[str, str]:
        """The loops that do not do their work, by name, each with the reason."""
        return {loop.name: trouble for loop in self._loops if (trouble := loop.trouble)}

    def defects(self) -> Mapping[str, str]:
        """The troubles without those of loops that only wait for a server to be back."""
        return {loop.name: loop.trouble for loop in self._loops if loop.trouble and not loop.is_cut_off}

    def statistics(self) -> Mapping[tuple[str, ...], LoopStatistics]:
        return {(loop.name,): loop.statistics() for loop in self._loops}


def _told(error: BaseException) -> str:
    """Returns the reason of a failure, for people.

    The message of an exception that nobody expected is left out: it may quote a key or a value.
    """
    if isinstance(error, TierError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"
