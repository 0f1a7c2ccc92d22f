"""Names that should mean one thing in a deployment, and mean two.

A rival is a live part that has a name which another part has, too:

    queue       other instances use another queue for a region: their document names another one, or
                the name leads to two live servers (split brain, a failover that is under way)
    journal     an instance could not announce changes: its journal, in which they are, is another
                queue of the region until it is empty (`journal/journal.py`)
    deployment  other consumers of the region's queue use none of our cells: a second deployment was
                made from a copy of the document, and its queue was not changed
    instance    another process has this instance's region and name

Instances find the first by what they share beside the queues: each notes in every cell which queues
its feeds and its consumer use. Consumers find the others by what they tell the queue about
themselves. What one finds, the other finds, too. docs/coherence.md has the rule ("One name, one
queue").
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from cachesvc.changes.contract import (
    UNANNOUNCED,
    Attendance,
    Completion,
    FenceStream,
    OtherQueueError,
    Rival,
    RivalKind,
)
from cachesvc.model.clock import SECONDS
from cachesvc.model.errors import TierError, TierUnavailableError
from cachesvc.telemetry.loops import Loop
from cachesvc.telemetry.outage import Outage
from cachesvc.tiers.l3.contract import Cell, Claimed, Use

log = logging.getLogger(__name__)

ATTENDS_US = 3 * SECONDS
"""The least time for which a consumer's word about itself counts: three looks of it."""

SAID: Mapping[RivalKind, str] = {
    "queue": "instances use two queues for one region: no heartbeat is sent there, so the staleness bound "
    "grows, until all use the same. Compare `queue` in the topologies; end the server that is not to be",
    "journal": "an instance has changes that it could not announce (`cachesvc_journal_changes`): until "
    "then, no heartbeat is sent in its region, so the staleness bound grows. Bring the queue, the way to it, or "
    "that instance back",
    "deployment": "consumers of another deployment use this queue, with none of our cells: give each "
    "deployment a queue of its own (`regions.<name>.queue`)",
    "instance": "another live instance has this region and name: give each a name of its own (`instance`)",
}


class Rivals:
    """The rivals of one instance, as it sees them now."""

    def __init__(
        self,
        region: str,
        name: str,
        incarnation: str,
        cells: Iterable[Cell],
        streams: Mapping[str, FenceStream],
        *,
        heartbeat_us: int,
        journal: Callable[[], Use | None] = lambda: None,
    ) -> None:
        """Makes it without I/O. `incarnation` is this process's own word beside its `name`.

        `journal` returns the note of this instance's journal, if it has one.
        """
        self._region = region
        self._name = name
        self._incarnation = incarnation
        self._cells = tuple(cells)
        self._streams = streams
        self._every_seconds = heartbeat_us / SECONDS
        self._live_us = 3 * heartbeat_us
        self._attends_us = max(self._live_us, ATTENDS_US)
        self._journal = journal
        self._servers = {cell.name: "" for cell in self._cells}
        self._queue = ""
        """The queue that the consumer uses."""
        self._looked_at = float("-inf")
        """When the newest call began that a cell has answered, on the loop's clock."""
        self._queues: Mapping[str, frozenset[str]] = {}
        """Region → queues that are used for it beside the one that is used here."""
        self._journals: Mapping[str, frozenset[str]] = {}
        """Region → journals with changes of it that are not announced."""
        self._asked: dict[str, tuple[Sequence[Use], float, asyncio.Task[Claimed | None]]] = {}
        """The calls that are under way, by cell: what each asks about, when it began."""
        self._answers: dict[str, tuple[Sequence[Use], Claimed | None]] = {}
        """The newest answer of each cell, and what it is about."""
        self._others: Sequence[Rival] = ()
        self._outages = {kind: Outage(f"names of region {region}", log) for kind in SAID}
        self.loop = Loop("names of servers")

    def __repr__(self) -> str:
        return f"<Rivals of {self._region}/{self._name} [{', '.join(self.said) or 'none'}]>"

    async def run(self) -> None:
        """Looks after each heartbeat's time, until it is cancelled."""
        try:
            await self.loop.run(self.look, every_seconds=self._every_seconds)
        finally:
            for _, _, asking in self._asked.values():
                asking.cancel()

    @property
    def me(self) -> Attendance:
        """The words of this instance's consumer about itself."""
        cells = tuple(f"{name}={server}" for name, server in sorted(self._servers.items()))
        return Attendance(self._incarnation, self._name, cells, self._attends_us)

    @property
    def said(self) -> Mapping[RivalKind, str]:
        """The kinds of rivals that there are now, each with what it means and what to do."""
        kinds: set[RivalKind] = {one.kind for one in self._others}
        if self._queues:
            kinds.add("queue")
        if self._journals:
            kinds.add("journal")
        return {kind: why for kind, why in SAID.items() if kind in kinds}

    def count(self) -> Mapping[tuple[str, ...], int]:
        """The number of rivals of each kind, for metrics."""
        kinds = [
            *(one.kind for one in self._others),
            *("queue" for found in self._queues.values() for _ in found),
            *("journal" for found in self._journals.values() for _ in found),
        ]
        return {(kind,): kinds.count(kind) for kind in SAID}

    def check_deployment(self) -> None:
        """Raises `TierUnavailableError` if another deployment uses the queue, and came first."""
        if any(one.kind == "deployment" and one.was_first for one in self._others):
            raise TierUnavailableError(f"changes of {self._region}", SAID["deployment"])

    def is_alone(self) -> bool:
        """True if a look that is recent has found no other queue and no journal of the region."""
        is_recent = asyncio.get_running_loop().time() - self._looked_at <= 2 * self._every_seconds
        return is_recent and self._region not in self._queues and not self.keeps_unannounced()

    async def check_queue(self) -> None:
        """Raises `OtherQueueError` if another queue is used for the own region, too.

        Looks first if the last look is long ago: this process, and the queue's server with it, may have
        stood still while all others moved to another queue (trace 62).
        """
        for _ in range(2):  # what the first look gets may be answers to calls of before
            if asyncio.get_running_loop().time() - self._looked_at > 2 * self._every_seconds:
                await self.look()
        if self._region in self._queues:
            raise OtherQueueError(f"changes of {self._region}", SAID["queue"])

    def keeps_unannounced(self, region: str = "") -> bool:
        """True if an instance of the region (the own one unless said) has changes in its journal."""
        region = region or self._region
        own = self._journal()
        return region in self._journals or (own is not None and own.region == region and counts(own.queue))

    def unheard(self) -> tuple[str, ...]:
        """A name for the region's instances that follow another queue, if there are any."""
        return (f"another queue of {self._region}",) if self._region in self._queues else ()

    async def meet(self, completion: Completion) -> None:
        """Takes in what the queue says of others; tells the cells if it is another queue."""
        self._others = completion.rivals
        if completion.queue != self._queue:
            self._queue, self._looked_at = completion.queue, float("-inf")
            await self.look()
        self._tell()

    def rest(self) -> None:
        """Forgets what the consumer has learnt: it does not ask the queue any more.

        What it noted of its queue in the cells would be a rival once all others use another one.
        """
        self._queue, self._others = "", ()

    async def look(self) -> None:
        """Notes the queues that are used here in every cell, and learns which others are used.

        A cell that is out of reach says nothing: any other one is enough. The queue of another region is
        left if it has a rival, and its name looked up anew; the consumer does so for its own.

        A cell that needs longer than a heartbeat, because it is far or hangs, is not waited for: the notes
        in the other cells would end before they are renewed. It is asked again when it has answered.
        """
        uses = list(self._uses())
        if not uses and self._journal() is None:
            self._looked_at = asyncio.get_running_loop().time()
            return
        answers, asked_at = await self._ask_all(uses)
        self._note_journals()
        if uses != list(self._uses()):
            return  # another queue is used by now: what was learnt is not about it
        self._servers |= {
            cell.name: answer.server if answer else ""
            for cell, answer in zip(self._cells, answers, strict=False)
        }
        found: dict[str, frozenset[str]] = {}
        for answer in answers:
            for use, others in zip(uses, answer.others if answer else (), strict=False):
                if queues := [one for one in others if not one.startswith(UNANNOUNCED)]:
                    found[use.region] = found.get(use.region, frozenset()) | frozenset(queues)
        self._queues, self._looked_at = found, asked_at
        self._tell()
        for region in self._queues.keys() - {self._region}:
            await self._streams[region].reconnect()

    def _note_journals(self) -> None:
        """Takes in the journals that cells have notes of, whichever queues they were asked about.

        While no cell answers, those stay that are known.
        """
        answers = [(asked, answer) for asked, answer in self._answers.values() if answer is not None]
        if not answers:
            return
        found: dict[str, frozenset[str]] = {}
        for asked, answer in answers:
            for use, others in zip(asked, answer.others, strict=False):
                if journals := [one for one in others if one.startswith(UNANNOUNCED)]:
                    found[use.region] = found.get(use.region, frozenset()) | frozenset(journals)
        self._journals = found

    def _uses(self) -> Iterator[Use]:
        """Yields the queues that the open feeds and the consumer use."""
        for region, stream in self._streams.items():
            if stream.epoch:
                yield Use(region, self._incarnation, stream.epoch)
        if self._queue:
            yield Use(self._region, f"{self._incarnation} consumer", self._queue)

    async def _ask_all(self, uses: Sequence[Use]) -> tuple[Sequence[Claimed | None], float]:
        """Returns the newest answer of each cell about these uses; None if it has none.

        The calls that have not ended within a heartbeat go on. The second result is the time at which the
        newest call about these uses began that has ended.
        """
        looked_at = self._looked_at
        for cell in self._cells:
            if cell.name not in self._asked:
                asking = asyncio.create_task(self._claim(cell, uses), name=f"names of servers: {cell.name}")
                self._asked[cell.name] = uses, asyncio.get_running_loop().time(), asking
        await asyncio.wait([asking for *_, asking in self._asked.values()], timeout=self._every_seconds)
        for name, (asked, began, asking) in list(self._asked.items()):
            if asking.done():
                del self._asked[name]
                looked_at = max(looked_at, began) if asked == uses else looked_at
                self._answers[name] = asked, None if asking.cancelled() else asking.result()
        found = [self._answers.get(cell.name, (uses, None)) for cell in self._cells]
        return [answer if asked == uses else None for asked, answer in found], looked_at

    async def _claim(self, cell: Cell, uses: Sequence[Use]) -> Claimed | None:
        journal = self._journal()
        notes = uses if journal is None else [*uses, journal]
        try:
            return await cell.claim(notes, self._live_us)
        except TierError:
            return None

    def _tell(self) -> None:
        said = self.said
        for kind, outage in self._outages.items():
            if kind in said:
                outage.failed(said[kind])
            elif outage.is_on:
                outage.worked()


def counts(journal: str) -> bool:
    """True if a journal's note, by the name of its queue, says that the journal is not empty."""
    return not journal.endswith(":0")
