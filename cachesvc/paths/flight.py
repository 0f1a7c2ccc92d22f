"""Flights: the one running load of a key in this process, shared by all who want it.

A reader *joins* a flight. A flight *starts*, *runs* in its own task, never in a caller's (a caller that is cancelled or times out
removes only its own waiter), and *lands* once, for all who wait. After that the task may go on (refresh behind a stale answer,
copy to a nearer tier).

Rules of joining (COHERENCE.md, "Answers" and "Watermark"):

1. Merging a key's fence forgets its flight: later readers start anew, those that wait still get its answer.
2. A fence on a tag or namespace forgets nothing (nobody knows yet which tags the value will have); a reader therefore
   compares what it knew at its own start with `asked`, the number of merges when the flight asked for its lease.
3. While the staleness bound is above `max_lag`, a flight that began longer ago than that is not joined: nobody can say what
   was committed since.
"""

import asyncio
from collections.abc import Collection
from enum import IntEnum
from typing import TypeAlias

from msgspec import Struct

from cachesvc.config.topology import Namespace
from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import RequestError
from cachesvc.model.requests import Step
from cachesvc.telemetry.traces.trace import Attribute, Span, current


class Mode(IntEnum):
    """What a flight is allowed to do; only flights of one mode are shared."""

    LOOKUP = 0
    """Tiers only: plain look-aside reads, `only-if-cached`."""
    THROUGH = 1
    """Tiers, then the origin."""
    LEASE = 2
    """Tiers, then a lease for a caller that loads by itself; waits for another's fill."""
    RELOAD = 3
    """The origin whatever the tiers hold: `no-cache`, a copy that is too old for its reader."""
    EARLY = 4
    """The origin, ahead of expiry; gives up at once if another holds the lease."""


class FoundCopy(Struct, frozen=True, gc=False):
    """A copy from a tier. Each reader looks again whether it is admissible when it is answered."""

    entry: Entry
    tier: str
    trail: tuple[Step, ...] = ()
    version: int = -1
    """`Fences.version` when the copy was judged fresh: while it stands, so does the judgement. -1: not judged so."""
    vouched_at: int | None = None
    """The home cell judged the copy exactly, when this many merges had been seen here: only later ones can refuse it."""
    is_stale: bool = False
    """Past its freshness, answered on purpose: while it is refreshed, or because the origin failed."""


class LoadedValue(Struct, frozen=True, gc=False):
    """From the origin, by this flight: the rule on loaded values applies to each reader, instead of admissibility."""

    entry: Entry
    trail: tuple[Step, ...]


class Leased(Struct, frozen=True, gc=False):
    """The lease for one caller that loads by itself."""

    lease: str | None
    """None once a caller has claimed it (`Flight.claim_lease`)."""
    trail: tuple[Step, ...]
    copy: FoundCopy | None = None
    """A stale copy that goes along, so that only the caller with the lease has to load."""


class Missed(Struct, frozen=True, gc=False):
    """No copy that may be answered, and nobody loads for this reader: a read of the tiers only, or no lease in time."""

    trail: tuple[Step, ...]


class Failed(Struct, frozen=True, gc=False):
    """The origin failed and no copy may stand in, or this instance stopped."""

    error: RequestError
    trail: tuple[Step, ...]


Landing: TypeAlias = FoundCopy | LoadedValue | Leased | Missed | Failed
"""How a flight ended for those that wait for it."""


class Flight:
    """One load of one key. Made and landed on the event loop; not thread-safe."""

    __slots__ = (
        "_waiting_for_landing",
        "_waiting_for_landing_or_lease",
        "asked",
        "began_us",
        "keep",
        "key",
        "known",
        "known_tier",
        "known_vouched_at",
        "landing",
        "mode",
        "namespace",
        "refused_here",
        "span",
        "strict",
        "trail",
        "waits_for_fill",
    )

    def __init__(
        self,
        key: Key,
        namespace: Namespace,
        mode: Mode,
        *,
        asked: int,
        began_us: int,
        step: Step,
        known: Entry | None,
    ) -> None:
        self.key = key
        self.began_us = began_us
        """When it began, by the wall clock."""
        self.namespace = namespace
        self.mode = mode
        self.asked = asked
        """Merges seen when the lease was asked for (until then: when the flight began)."""
        self.trail: tuple[Step, ...] = (step,)
        """Who was asked and did not answer, origin-side first."""
        self.known = known
        """The best copy seen so far, admissible or not: served stale if the rules allow, validated by its ETag at the origin."""
        self.known_tier = "l1"
        """The tier that `known` is from."""
        self.known_vouched_at: int | None = None
        """As `FoundCopy.vouched_at`, of `known`."""
        self.strict = False
        """L3 copies pass sketch and floor too: the reader's token may be ahead of what the home has applied."""
        self.refused_here = False
        """The home vouched for a copy that is refused here: ask it again, with the newest fence known here as `not_before`."""
        self.keep = True
        """False for `no-store`: nothing of it stays in a tier."""
        self.waits_for_fill = False
        """Another holds the lease: this flight waits for its fill."""
        self.span: Span | None = current()
        """Of who started it, and once it loads, of its load. None: not sampled."""
        self.landing: Landing | None = None
        self._waiting_for_landing: list[asyncio.Future[None]] = []
        self._waiting_for_landing_or_lease: list[asyncio.Future[None]] = []

    def __repr__(self) -> str:
        state = "landed" if self.landing else "running"
        return f"<Flight {self.mode.name} of {self.key.namespace} {self.key.digest:016x} [{state}, {self.waiting} waiting]>"

    def note(self, attribute: str, value: Attribute) -> None:
        """In the trace of who started it. A flight may outlast that one's span: what has ended is being exported."""
        if self.span is not None and not self.span.ended_ns:
            self.span.attributes[attribute] = value

    def joined_by(self, reader: Span) -> None:
        """A traced reader is shown where what it waits for is done. One that names a key twice joins nobody else."""
        if self.span is reader:
            return
        reader.attributes["cachesvc.collapsed"] = True
        # Of many keys that one other call is looking up, one link is enough; they come one after the other.
        if self.span is not None and self.span.context not in reader.links[-1:]:
            reader.link(self.span.context)

    def passed(self, step: Step) -> None:
        """A tier was asked and did not answer (asked again: the newer reason stands)."""
        older = self.trail[1:] if self.trail[0].tier == step.tier else self.trail
        self.trail = (step, *older)

    def stored_in_l1(self) -> None:
        """L1, the last of the trail, keeps the answer."""
        trail = self.trail
        self.trail = (trail[0].as_stored(),) if len(trail) == 1 else (*trail[:-1], trail[-1].as_stored())

    def saw(self, entry: Entry, tier: str, vouched_at: int | None = None) -> None:
        """A copy that could not be answered as fresh; the newest is remembered."""
        if self.known is None or entry.as_of >= self.known.as_of:
            self.known, self.known_tier, self.known_vouched_at = entry, tier, vouched_at

    def land(self, landing: Landing) -> None:
        """Answer all who wait, and all who join later. The first landing holds; others are ignored."""
        if self.landing is None:
            self.landing = landing
            _wake(self._waiting_for_landing)
            _wake(self._waiting_for_landing_or_lease)

    def wait_for_fill(self) -> None:
        """Another holds the lease: tell those who would rather not wait for its fill."""
        self.waits_for_fill = True
        _wake(self._waiting_for_landing_or_lease)

    async def landed(self) -> Landing:
        """Wait for the landing. Cancelling the caller removes only its own waiter."""
        while self.landing is None:
            await _wait_in(self._waiting_for_landing)
        return self.landing

    async def landed_or_waits_for_fill(self) -> Landing | None:
        """The landing, or None as soon as the flight has to wait for another's fill."""
        while self.landing is None and not self.waits_for_fill:
            await _wait_in(self._waiting_for_landing_or_lease)
        return self.landing

    def claim_lease(self) -> str | None:
        """The lease, for the one caller that asks first; None for the others."""
        landing = self.landing
        if not isinstance(landing, Leased):
            return None
        self.landing = Leased(None, landing.trail, landing.copy)
        return landing.lease

    @property
    def waiting(self) -> int:
        """Callers waiting for it now."""
        return len(self._waiting_for_landing) + len(self._waiting_for_landing_or_lease)


async def _wait_in(queue: list[asyncio.Future[None]]) -> None:
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    queue.append(waiter)
    try:
        await waiter
    except BaseException:
        if waiter in queue:
            queue.remove(waiter)
        raise


def _wake(queue: list[asyncio.Future[None]]) -> None:
    for waiter in queue:
        if not waiter.done():
            waiter.set_result(None)
    queue.clear()


class Flights:
    """The running flights, by mode and key digest. Of two keys with one digest the later flight is shared, never both."""

    def __init__(self) -> None:
        self._by_mode: tuple[dict[int, Flight], ...] = tuple({} for _ in Mode)

    def __len__(self) -> int:
        return sum(map(len, self._by_mode))

    def find(self, key: Key, mode: Mode) -> Flight | None:
        """One that can be joined. What has landed is joined only while it refreshes behind a stale answer: a flight that is
        over in all but its copies to other tiers would give a reader who comes later something older than the tiers have."""
        flight = self._by_mode[mode].get(key.digest)
        if flight is None or flight.key.id != key.id:
            return None
        landing = flight.landing
        is_running = landing is None or (isinstance(landing, FoundCopy) and landing.is_stale)
        return flight if is_running else None

    def add(self, flight: Flight) -> None:
        self._by_mode[flight.mode][flight.key.digest] = flight

    def remove(self, flight: Flight) -> None:
        """The flight is over (or forgotten): nobody joins it any more. Fine if it is not there."""
        flights = self._by_mode[flight.mode]
        if flights.get(flight.key.digest) is flight:
            del flights[flight.key.digest]

    def forget(self, digests: Collection[int]) -> None:
        """Fences on these were merged: later readers start anew."""
        for flights in self._by_mode:
            if flights:
                for digest in digests:
                    flights.pop(digest, None)
