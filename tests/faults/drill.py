"""A drill: the checker runs against the arena while a test breaks something.

At the end the checker judges what it saw.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence, Set
from contextlib import asynccontextmanager, contextmanager
from functools import partial

from msgspec.structs import replace

from cachesvc.commands.check.history import Fault, HistoryWriter, Read, Record, Write
from cachesvc.commands.check.judge import judge
from cachesvc.commands.check.load.values import decode
from cachesvc.commands.check.report import plain
from cachesvc.commands.check.run import check, monotonic_us
from cachesvc.commands.check.settings import CheckSettings, LoadDelays
from cachesvc.model.entry import Entry, Key
from tests.doubles import waiting
from tests.faults import results
from tests.faults.arena import MAX_LAG_SECONDS, NAMESPACE, Arena

MUST_HOLD = ("C0", "C1", "C2", "C3", "C4", "C5", "C7", "C8")
LEAST_READS, LEAST_ANNOUNCEMENTS = 1_000, 30
"""A drill with fewer reads or announcements shows nothing."""
WAIT_SECONDS = 30.0
until = partial(waiting.until, seconds=WAIT_SECONDS)
"""Waits longer than usual: servers start and stop, on a machine that may be busy."""


class Drill:
    """A running drill: the history so far, and a note of each fault."""

    def __init__(self, arena: Arena, history: HistoryWriter, namespace: str) -> None:
        self.arena = arena
        self.mended = 0
        """The end of the last fault, on the checker's clock in µs."""
        self.recovery = 0
        """µs from then until everything was as before."""
        self.paused: set[str] = set()
        """Instances (`eu/eu-b`) that a fault stopped.

        Deadlines do not count for them, because a process that does not run keeps none.
        """
        self._history = history
        self._namespace = namespace

    @contextmanager
    def fault(self, what: str) -> Iterator[None]:
        """Notes that `what` is broken while the block runs."""
        started = monotonic_us()
        try:
            yield
        finally:
            self.mended = monotonic_us()
            self._history.add(Fault(what, started, self.mended))

    @contextmanager
    def stopped(self, instance: str) -> Iterator[None]:
        """Stops an instance (SIGSTOP) while the block runs."""
        self.paused.add(f"{instance.partition('-')[0]}/{instance}")
        self.arena.pause(f"instance-{instance}")
        try:
            yield
        finally:
            self.arena.resume(f"instance-{instance}")

    async def recovers(self, what: str, holds: Callable[[], bool]) -> None:
        """Waits until `holds()` and until every instance is ready and current, all without help."""
        await until(what, holds)
        await self.arena.healthy()
        self.recovery = monotonic_us() - self.mended

    def keys(self) -> list[Key]:
        """The keys of this run's checker that have been written."""
        return [Key.of(self._namespace, key) for key in self.newest()]

    def newest(self) -> dict[str, int]:
        """How often each key has been written."""
        return {record.key: record.w for record in self.records if isinstance(record, Write)}

    def outdated(self, held: Mapping[str, Entry]) -> dict[str, tuple[int, int]]:
        """The copies that were written over, each as (the write that it shows, the newest write)."""
        newest = self.newest()
        shown = {key: decode(key, entry.value) for key, entry in held.items()}
        return {key: (w, newest[key]) for key, w in shown.items() if w < newest[key]}

    def reads(self, *, since: int = 0, outcome: str = "", tier: str = "", instance: str = "") -> list[Read]:
        """The reads so far with these properties; an empty word matches every read."""
        asked = {"outcome": outcome, "tier": tier, "instance": instance}
        wanted = {field: value for field, value in asked.items() if value}
        return [
            record
            for record in self.records
            if isinstance(record, Read)
            and record.started >= since
            and all(getattr(record, f) == v for f, v in wanted.items())
        ]

    @property
    def records(self) -> list[Record]:
        return self._history.records

    async def warm(self) -> None:
        """Waits until every instance answers hits and L2 answers some reads.

        Before that there is nothing to break.
        """
        instances = len(self.arena.fleet.instances)
        await until(
            "every instance answers from L1, and L2 answers too",
            lambda: (
                len({read.instance for read in self.reads(tier="l1")}) == instances
                and len(self.reads(tier="l2")) > 20
            ),
        )

    async def written(self, *, seconds: float = MAX_LAG_SECONDS) -> None:
        """Waits for this time, and until many keys have been written.

        After that, what was read of these keys before the call is old.
        """
        before = self.newest()
        await asyncio.sleep(seconds)
        enough = len(before) // 3  # the rarest keys of a Zipf law take long
        await until(
            f"{enough} of {len(before)} keys are written",
            lambda: sum(w > before.get(key, 0) for key, w in self.newest().items()) >= enough,
        )


@asynccontextmanager
async def drill(
    arena: Arena,
    name: str,
    *,
    seconds: float,
    seed: int = 1,
    delays: LoadDelays | None = None,
    namespace: str = NAMESPACE,
) -> AsyncIterator[Drill]:
    """Runs the checker against the arena; at the end every check must have held.

    The checker's load runs for `seconds`, or until the block has ended, and then settles.
    """
    settings = arena.settings(seconds=seconds, seed=seed, delays=delays, namespace=namespace)
    history = HistoryWriter()
    running = Drill(arena, history, namespace)
    try:
        async with checking(settings, history) as (run, until):
            yield running
            until.set()
            await run
    finally:  # a drill that failed half-way has a history, too
        verdict = judge(without_deadlines(running.records, running.paused))
        row = results.row_of(name, verdict, recovery_us=running.recovery, seconds=seconds)
        kept = results.keep(row, running.records)
    results.ROWS.append(row)
    told = f"{name}, seed {seed} (history: {kept})\n{plain(verdict)}"
    must_hold = {*MUST_HOLD, *(["C6"] if settings.look_aside else [])}
    assert not set(verdict.broken) & must_hold, told
    assert not set(verdict.unobserved) & must_hold, told
    assert verdict.figures.reads >= LEAST_READS, told
    assert verdict.figures.announcements >= LEAST_ANNOUNCEMENTS, told


def without_deadlines(records: Sequence[Record], paused: Set[str]) -> list[Record]:
    """The records, without deadlines for reads of a stopped instance that overlap a fault.

    The values that these reads showed are judged all the same.
    """
    faults = [record for record in records if isinstance(record, Fault)]
    return [
        replace(record, deadline_us=0)
        if isinstance(record, Read)
        and record.instance in paused
        and any(record.started < fault.ended and fault.started < record.ended for fault in faults)
        else record
        for record in records
    ]


@asynccontextmanager
async def checking(
    settings: CheckSettings, history: HistoryWriter
) -> AsyncIterator[tuple[asyncio.Task[None], asyncio.Event]]:
    """Runs the checker while the block runs, and its load until the event is set.

    Raises what the checker raised; that is then why the block failed.
    """
    until = asyncio.Event()
    run = asyncio.create_task(check(settings, history, until=until), name="checker")
    try:
        yield run, until
    finally:
        await ended(run)


async def ended(task: asyncio.Task[None]) -> None:
    """Cancels the task if it still runs; raises the exception with which it failed."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
