"""Flights: the one running load of a key in this process, shared by all its readers.

A reader *joins* a flight. A flight *starts*, *runs* in a task of its own, never in a caller's, and
*lands* once, for all who wait for it. A caller that is cancelled or times out removes only its own
waiter. After the landing the task may go on: to refresh behind a stale answer, or to copy the value
to a nearer tier.

A flight owns the lease that its home granted (`Flight.lease`) until the lease is used by a fill,
claimed by a caller, or given back. However a flight ends (landed with a copy, failed, cancelled,
its callers gone), `Flight.settle` is called, so that no lease is left to expire.

Rules of joining (docs/coherence.md, "Answers" and "Watermark, staleness bound, floor"):

1. Merging a key's fence forgets the key's flight: later readers start a new one, and the readers
   that already wait still get the forgotten flight's landing.
2. A fence on a tag or namespace forgets no flight, because the tags of the value are not known
   until it is loaded. A reader therefore compares the number of merges at its own start with
   `asked`, the number of merges when the flight asked for its lease.
3. While the staleness bound is above `max_lag`, a flight that began more than `max_lag` ago is not
   joined: what was committed since it began is unknown.
"""

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import IntEnum
from types import MappingProxyType
from typing import TypeAlias

from msgspec import Struct

from cachesvc.config.topology import Namespace
from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import RequestError
from cachesvc.model.requests import Step
from cachesvc.model.use import EVERY_USE, Use
from cachesvc.telemetry.traces.trace import Attribute, Span
from cachesvc.tiers.l3.leases import HeldLease

L1_MISS = Step("l1", "uri-miss")
NO_TOKEN: Mapping[int, int] = MappingProxyType({})
"""The token of a read that sends none."""
LONG_LOAD_SECONDS = 1.0
"""A load that has run for longer waits for its origin, however busy this process is."""


class Mode(IntEnum):
    """The places where a flight may look. Readers share only flights of their own mode."""

    LOOKUP = 0
    """The tiers only: plain look-aside reads, and `only-if-cached`."""
    THROUGH = 1
    """The tiers, then the origin."""
    LEASE = 2
    """The tiers, then the lease for a caller that loads, or the fill of its holder."""
    RELOAD = 3
    """The origin, whatever the tiers hold: `no-cache`, or copies too old for the reader."""
    EARLY = 4
    """The origin, before the copy expires, unless the home has a newer copy.

    It gives up at once if another holds the lease.
    """
    LEASE_OVER = 5
    """The lease for a caller that loads whatever the tiers hold (`no-cache`).

    It gives up at once if another holds the lease, as the caller has a copy.
    """

    @property
    def is_for_caller(self) -> bool:
        """True if the lease is for a caller, who loads by itself."""
        return self is Mode.LEASE or self is Mode.LEASE_OVER


class FoundCopy(Struct, frozen=True, gc=False):
    """A copy from a tier.

    The flight judged the copy when it landed. Each reader checks again, when it is answered, that no
    fence merged since then refuses the copy.
    """

    entry: Entry
    tier: str
    trail: tuple[Step, ...] = ()
    version: int = -1
    """The `Fences.version` when the copy was judged fresh; -1 if it was not.

    The judgement holds as long as `Fences.version` has not changed.
    """
    vouched_at: int | None = None
    """The number of fences merged here when the home cell was asked; None if not vouched for.

    The home judged the copy exactly, so only fences merged after that number can refuse it. A copy
    that its home does not vouch for is judged by sketch and floor.
    """
    is_stale: bool = False
    """True if the copy is past its freshness and answered all the same.

    It is answered during a refresh, or because the origin is late or failed.
    """


class LoadedValue(Struct, frozen=True, gc=False):
    """A value that this flight loaded from the origin.

    Each reader judges the value by the rule on loaded values (docs/coherence.md, "Answers"), not by
    admissibility.
    """

    entry: Entry
    trail: tuple[Step, ...]
    use: Use = EVERY_USE
    """The uses of the value for readers, and for caches behind them."""
    may_lag: bool = False
    """True if the origin may have answered what was true before the load began.

    It said an `Age`, or the namespace's `origin.lag` says so.
    """


class Leased(Struct, frozen=True, gc=False):
    """The lease, for one caller that loads by itself."""

    lease: str | None
    """The lease token; None once a caller has claimed it (`Flight.claim_lease`)."""
    trail: tuple[Step, ...]
    copy: FoundCopy | None = None
    """A stale copy for all callers, so that only the caller with the lease has to load."""


class Missed(Struct, frozen=True, gc=False):
    """No copy may be answered and nobody loads for the reader.

    The read was one of the tiers only, or the lease could not be had in time.
    """

    trail: tuple[Step, ...]
    unkept: bool = False
    """True if another holds the lease, and values of the key cannot be kept (`Unkept`)."""


class Failed(Struct, frozen=True, gc=False):
    """The origin failed and no copy may stand in for it, or this instance stopped."""

    error: RequestError
    trail: tuple[Step, ...]


Landing: TypeAlias = FoundCopy | LoadedValue | Leased | Missed | Failed
"""The end of a flight, for all who wait for it."""


class Flight(Struct, eq=False):
    """One load of one key. All calls are made on the event loop; not thread-safe."""

    key: Key
    namespace: Namespace
    mode: Mode
    asked: int
    """The number of fences merged here when the lease was last asked for.

    Until the lease is asked for: the number when the flight began.
    """
    began_us: int
    """The time at which the flight began, µs since the epoch."""
    trail: tuple[Step, ...]
    """The tiers that were asked and did not answer, the one nearest to the origin first."""
    known: Entry | None = None
    """The newest copy seen so far, admissible or not.

    The copy is answered stale if the rules allow it, and validated by its ETag at the origin.
    """
    span: Span | None = None
    """The span of the reader that started it, then that of its load; None if not sampled."""
    known_tier: str = "l1"
    """The tier that holds `known`."""
    known_vouched_at: int | None = None
    """The `FoundCopy.vouched_at` of `known`."""
    token: Mapping[int, int] = NO_TOKEN
    """The token of the flight's only reader, as digest → `at`.

    No tier has to have heard of its fences: each copy that the flight sees is held against them.
    """
    refused_here: bool = False
    """True if the home cell vouched for a copy that is refused here.

    The home is then asked again, with the newest fence known here as `not_before`.
    """
    keep: bool = True
    """False if no tier may keep what the flight loads.

    The read asked for `no-store`, the flight gave up waiting and loads without a lease, or it loads
    alone.
    """
    alone: bool = False
    """True if the flight loads for one reader, past tiers and lease.

    The reader had joined a load whose value was for the reader alone that had started it. The next
    reader's load would be so too: with the lease such readers would load one after the other.
    """
    waits_for_fill: bool = False
    """True once another was found to hold the lease: the flight waits for the holder's fill."""
    landing: "Landing | None" = None
    lease: HeldLease | None = None
    """The lease that the home granted and that is neither used, claimed nor given back yet."""
    claimants: int = 0
    """The number of readers that may still claim the lease (`Mode.is_for_caller`)."""
    _pause: "asyncio.Future[None] | None" = None
    _waiting_for_landing: "list[asyncio.Future[None]]" = []
    _waiting_for_landing_or_lease: "list[asyncio.Future[None]]" = []

    def __repr__(self) -> str:
        state = "landed" if self.landing else "running"
        key = f"{self.key.namespace} {self.key.digest:016x}"
        return f"<Flight {self.mode.name} of {key} [{state}, {self.waiting} waiting]>"

    def note(self, attribute: str, value: Attribute) -> None:
        """Sets an attribute of the flight's span, unless the span has ended.

        A flight may outlast the span of the reader that started it, and an ended span may be under
        export already.
        """
        if self.span is not None and not self.span.ended_ns:
            self.span.attributes[attribute] = value

    def passed(self, step: Step) -> None:
        """Records that a tier did not answer. For a tier asked twice the newer reason stands."""
        older = self.trail[1:] if self.trail[0].tier == step.tier else self.trail
        self.trail = (step, *older)

    def stored_in_l1(self) -> None:
        """Marks L1, the last of the trail, as a tier that keeps the answer."""
        trail = self.trail
        self.trail = (trail[0].as_stored(),) if len(trail) == 1 else (*trail[:-1], trail[-1].as_stored())

    def saw(self, entry: Entry, tier: str, vouched_at: int | None = None) -> None:
        """Remembers a copy that could not be answered as fresh, if none seen is newer."""
        if self.known is None or entry.as_of >= self.known.as_of:
            self.known, self.known_tier, self.known_vouched_at = entry, tier, vouched_at

    def land(self, landing: Landing) -> None:
        """Ends the flight for all who wait or join later. Only the first landing counts."""
        if self.landing is None:
            self.landing = landing
            if self._waiting_for_landing:
                _wake(self._waiting_for_landing)
            if self._waiting_for_landing_or_lease:
                _wake(self._waiting_for_landing_or_lease)

    def wait_for_fill(self) -> None:
        """Notes that another holds the lease, and wakes the callers that asked for the lease."""
        self.waits_for_fill = True
        _wake(self._waiting_for_landing_or_lease)

    async def pause(self, seconds: float) -> None:
        """Waits so long before the home is polled again, or until `hurry` is called."""
        loop = asyncio.get_running_loop()
        self._pause = loop.create_future()
        timer = loop.call_later(seconds, self.hurry)
        try:
            await self._pause
        finally:
            timer.cancel()
            self._pause = None

    def hurry(self) -> None:
        """Ends the pause between two polls, if there is one."""
        if self._pause is not None and not self._pause.done():
            self._pause.set_result(None)

    async def landed(self) -> Landing:
        """Waits for the landing and returns it. Cancelling the caller removes only its own waiter."""
        while self.landing is None:
            await _wait_in(self._waiting_for_landing)
        return self.landing

    def when_landed(self, call: Callable[["asyncio.Future[None]"], object]) -> None:
        """Has `call` called in a turn of the loop after the landing, in the caller's context.

        A caller without a task waits so.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter.add_done_callback(call)
        if self.landing is None:
            self._waiting_for_landing.append(waiter)
        else:
            waiter.set_result(None)

    async def landed_or_waits_for_fill(self) -> Landing | None:
        """The landing, or None as soon as the flight has to wait for another holder's fill."""
        while self.landing is None and not self.waits_for_fill:
            await _wait_in(self._waiting_for_landing_or_lease)
        return self.landing

    def claim_lease(self) -> str | None:
        """Returns the lease to the caller that asks first, and None to the others."""
        landing = self.landing
        if not isinstance(landing, Leased):
            return None
        self.landing = Leased(None, landing.trail, landing.copy)
        self.lease = None
        return landing.lease

    def give_back(self) -> None:
        """Gives the lease back if the flight still owns it."""
        lease, self.lease = self.lease, None
        if lease is not None:
            lease.give_back()

    def settle(self) -> None:
        """Gives the lease back, unless a reader may still claim it.

        To be called when the work of the flight is over, and when a reader has left it.
        """
        if self.lease is not None and not (self.claimants and isinstance(self.landing, Leased)):
            self.give_back()

    def left(self) -> None:
        """Notes that a reader which might have claimed the lease has its answer, or has gone."""
        self.claimants -= 1
        if isinstance(self.landing, Leased):
            self.settle()

    @property
    def waiting(self) -> int:
        """The number of callers that wait for the flight now."""
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


class Look(Struct, eq=False):
    """The look of one batch into L2: its keys' flights, as long as they need no objects.

    Batches that have some of these keys join the look, which keeps the rules of joining. For other
    readers `flight_of` makes the flight of a key, and so it does for the keys that L2 does not answer.
    All keys are of one namespace, each digest comes once, and L1 holds none of them.
    """

    keys: Sequence[Key]
    namespace: Namespace
    mode: Mode
    asked: int
    """The `Flight.asked` of all flights; `began_us` and `span` likewise."""
    began_us: int
    span: Span | None
    places: Mapping[int, int]
    """The places of the keys by their digests."""
    flights: dict[int, Flight] = {}
    """The flights that were made, by the key's place."""
    found: Sequence[Entry | None] | None = None
    """Once it has landed: the copies that L2 answered as fresh; None in the place of a flight."""
    version: int = -1
    """The `Fences.version` when the copies were judged fresh."""
    _waiting: "list[asyncio.Future[None]]" = []

    def flight_of(self, place: int) -> Flight:
        """Returns the flight of the key at this place, which is made if it was not."""
        if (flight := self.flights.get(place)) is None:
            flight = self.flights[place] = Flight(
                self.keys[place],
                self.namespace,
                self.mode,
                self.asked,
                self.began_us,
                (L1_MISS,),
                None,
                self.span,
            )
        return flight

    def land(self, found: Sequence[Entry | None], version: int) -> None:
        """Ends the look for its batches. The flights that were made are landed by themselves."""
        self.found, self.version = found, version
        _wake(self._waiting)

    async def landed(self) -> None:
        """Waits until L2 has answered. Cancelling the caller removes only its own waiter."""
        while self.found is None:
            await _wait_in(self._waiting)


def joined(flight: Flight | Look, reader: Span) -> None:
    """Links a traced reader to the flight's span, where the work is done that it waits for.

    A call that names a key twice joins its own flight; it gets no link.
    """
    if flight.span is reader:
        return
    reader.attributes["cachesvc.collapsed"] = True
    # A batch may join many flights of one other call, one after the other: one link is enough.
    if flight.span is not None and flight.span.context not in reader.links[-1:]:
        reader.link(flight.span.context)


class Flights:
    """The running flights, by mode and key digest.

    Of two keys with one digest only the later one's flight can be joined, never both.
    """

    def __init__(self) -> None:
        self._by_mode: tuple[dict[int, Flight | Look], ...] = tuple({} for _ in Mode)
        self._polling: set[Flight] = set()
        """Flights that pause before they ask again for another holder's fill."""
        self._loading: dict[Flight, float] = {}
        """Flights that load from their origin, by the loop time when the load began."""

    def __len__(self) -> int:
        return sum(map(len, self._by_mode))

    @contextmanager
    def polling(self, flight: Flight) -> Iterator[None]:
        """Stands around a pause in which the flight waits for another holder's fill."""
        self._polling.add(flight)
        try:
            yield
        finally:
            self._polling.discard(flight)

    @contextmanager
    def loading(self, flight: Flight) -> Iterator[None]:
        """Stands around the flight's load from its origin."""
        self._loading[flight] = asyncio.get_running_loop().time()
        try:
            yield
        finally:
            self._loading.pop(flight, None)

    def waiting_elsewhere(self, now: float) -> int:
        """The number of readers that wait for something other than this process.

        `now` is in loop time. They are the readers of a flight that waits for another holder, or whose
        load has run for `LONG_LOAD_SECONDS`. Of a younger load one reader counts as load of this
        process and the readers that joined it do not: while this process has too much to do, loads
        take long because of it.
        """
        return sum(flight.waiting for flight in self._polling) + sum(
            flight.waiting if now - began > LONG_LOAD_SECONDS else max(flight.waiting - 1, 0)
            for flight, began in self._loading.items()
        )

    def find(self, key: Key, mode: Mode) -> Flight | None:
        """The flight that a reader of the key can join, or None.

        A flight that has landed is joined only while it refreshes behind a stale answer. One that
        only copies its value to other tiers would give a later reader something older than the tiers
        may hold by then.
        """
        flight = self._by_mode[mode].get(key.digest)
        if isinstance(flight, Look):
            flight = self.made(flight, flight.places[key.digest])
        if flight is None or flight.key.id != key.id:
            return None
        landing = flight.landing
        is_running = landing is None or (isinstance(landing, FoundCopy) and landing.is_stale)
        return flight if is_running else None

    def add(self, flight: Flight) -> None:
        """Lets readers join the flight; takes the place of the key's earlier flight of this mode."""
        self._by_mode[flight.mode][flight.key.digest] = flight

    def by_digest(self, mode: Mode) -> Mapping[int, Flight | Look]:
        """The flights of this mode by key digest, joinable or not. The mapping is live."""
        return self._by_mode[mode]

    def add_look(self, look: Look) -> None:
        """Lets readers join the flights of the look."""
        self._by_mode[look.mode].update(dict.fromkeys(look.places, look))

    def made(self, look: Look, place: int) -> Flight:
        """Makes the flight of a key of the look, which takes the look's place for this key."""
        flight, flights = look.flight_of(place), self._by_mode[look.mode]
        if flights.get(flight.key.digest) is look:
            flights[flight.key.digest] = flight
        return flight

    def remove_look(self, look: Look) -> None:
        """Lets nobody join the flights of the look that were not made."""
        flights = self._by_mode[look.mode]
        for digest in look.places:
            if flights.get(digest) is look:
                del flights[digest]

    def remove(self, flight: Flight) -> None:
        """Lets no more readers join the flight. Does nothing if it is over or forgotten already."""
        flights = self._by_mode[flight.mode]
        if flights.get(flight.key.digest) is flight:
            del flights[flight.key.digest]

    def forget(self, digests: Collection[int]) -> None:
        """Forgets the flights of keys on which a fence was merged: later readers start new ones."""
        for flights in self._by_mode:
            if flights:
                for digest in digests:
                    flights.pop(digest, None)
