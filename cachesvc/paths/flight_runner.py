"""How a flight runs: L2 → L3 at the home cell → a lease → `load.py` for the origin.

All of this runs in the flights' own tasks. A decision is synchronous and made on what the tiers
answered: no await stands between a decision and the landing or the copy that follows from it.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from enum import Enum
from functools import partial
from typing import Any, Protocol

from cachesvc.coherence.admission import Admission, Standing
from cachesvc.coherence.next_step import Action, Lease, WhoLoads, next_step
from cachesvc.coherence.refusal import RefusedBy
from cachesvc.config.topology import Namespace
from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import RequestError, TierError
from cachesvc.model.problems import ProblemKind
from cachesvc.model.requests import Step
from cachesvc.paths.flight import Failed, Flight, Flights, FoundCopy, Leased, Look, Missed, Mode
from cachesvc.paths.leased_loads import LeasedLoads
from cachesvc.paths.load import Loads, stale_copy
from cachesvc.paths.near_tiers import NearTiers
from cachesvc.paths.tally import Tally
from cachesvc.paths.unkept import Unkept
from cachesvc.telemetry.ghosts import Came
from cachesvc.tiers.l2.contract import Lookup, Pool
from cachesvc.tiers.l3.contract import Cell, Read, Reply
from cachesvc.tiers.l3.homes import Homes
from cachesvc.tiers.l3.leases import HeldLease

FIRST_POLL_SECONDS = 0.02
LONGEST_POLL_SECONDS = 0.2
"""The first and the longest pause between polls for another holder's fill.

Each pause is drawn from half to one and a half of its value, so a waiter learns of the fill within
0.3 s.
"""

L2_MISS = Step("l2", "uri-miss")
L2_STALE = Step("l2", "stale")
L2_FENCED = Step("l2", "stale", detail="fenced")
L2_DOWN = Step("l2", "bypass", detail="unavailable")
L3_MISS = Step("l3", "uri-miss")
L3_STALE = Step("l3", "stale")
L3_FENCED = Step("l3", "stale", detail="fenced")
L3_DOWN = Step("l3", "bypass", detail="unavailable")

WHO_LOADS = {
    Mode.LOOKUP: WhoLoads.NOBODY,
    Mode.THROUGH: WhoLoads.INSTANCE,
    Mode.LEASE: WhoLoads.CALLER,
    Mode.RELOAD: WhoLoads.INSTANCE,
    Mode.EARLY: WhoLoads.INSTANCE,
    Mode.LEASE_OVER: WhoLoads.CALLER,
}


class Unleased(Enum):
    """Why a flight goes on without a lease."""

    LANDED = "landed"
    """The flight landed while another held the lease, so it need not load."""
    UNAVAILABLE = "unavailable"
    """No lease is wanted, the home is out of reach, or its holder is too slow to wait for."""


class Spawns(Protocol):
    """Owns background tasks: `app/tasks.py`."""

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> object:
        """Runs the coroutine as a task of this name."""
        ...


class FlightRunner:
    """Runs the flights of one instance: asks L2, then L3 at the home cell, and loads."""

    def __init__(
        self,
        *,
        near_tiers: NearTiers,
        l2: Pool,
        homes: Homes,
        loads: Loads,
        leased_loads: LeasedLoads,
        flights: Flights,
        admission: Admission,
        tasks: Spawns,
        rng: random.Random,
        tally: Tally,
        unkept: Unkept,
    ) -> None:
        self._near_tiers = near_tiers
        self._l2 = l2
        self._homes = homes
        self._loads = loads
        self._leased_loads = leased_loads
        self._flights = flights
        self._fences = admission.fences
        self._admission = admission
        self._tasks = tasks
        self._rng = rng
        self._tally = tally
        self._unkept = unkept

    def start(self, flight: Flight) -> None:
        """Starts one flight.

        A hit in L2 or L3 lands the flight without a task: the batch that brings the copy calls back.
        """
        if flight.mode >= Mode.RELOAD:
            self._tasks.spawn(self._run([flight], self._from_l3), "flight")
            return
        asking = asyncio.ensure_future(self._l2.ask(flight.key))
        if asking.done():
            self._l2_answered(flight, asking)
        else:
            asking.add_done_callback(partial(self._l2_answered, flight))

    def start_together(self, flights: list[Flight]) -> None:
        """Starts flights with one multiget per server and one script call per home cell.

        Each of the flights lands on its own.
        """
        self._tasks.spawn(self._run(flights, self._from_l2), "flights")

    def start_look(self, look: Look) -> None:
        """Starts the flights of a batch as a look into L2. What L2 lacks goes on to L3 together."""
        self._tasks.spawn(self._look(look), "flights")

    def start_alone(self, flight: Flight) -> None:
        """Starts a flight that asks the origin for one reader, past tiers and lease."""
        self._tasks.spawn(self._run([flight], self._load_alone), "flight")

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Has a read go on in a task of its own, which began without one."""
        self._tasks.spawn(work, "read")

    async def _load_alone(self, flights: list[Flight]) -> None:
        for flight in flights:
            await self._loads.load(self._homes.of(flight.key), flight, None)

    def _l2_answered(self, flight: Flight, asked: asyncio.Future[Lookup]) -> None:
        try:
            if self._land_from_l2(flight, asked.result()):
                self._flights.remove(flight)
                return
            cell = self._homes.of(flight.key)
            flight.asked = self._fences.merged
            asking = asyncio.ensure_future(cell.ask(self._read_of(flight)))
            asking.add_done_callback(partial(self._home_answered, cell, flight))
        except BaseException:
            self._end(flight)
            raise

    def _home_answered(self, cell: Cell, flight: Flight, asked: asyncio.Future[Reply | TierError]) -> None:
        try:
            reply = asked.result()
            _take_lease(cell, flight, reply)
            has_landed = self._land_from_l3(flight, reply)
            if has_landed and not (flight.keep and self._near_tiers.has_l2):
                self._end(flight)
                return
        except BaseException:
            self._end(flight)
            raise
        go_on = partial(self._after_home, cell, replies=[reply], landed=[has_landed])
        self._tasks.spawn(self._run([flight], go_on), "flight")

    async def _run(self, flights: list[Flight], ask: Callable[[list[Flight]], Awaitable[None]]) -> None:
        try:
            await ask(flights)
        finally:
            for flight in flights:
                self._end(flight)

    def _end(self, flight: Flight) -> None:
        """Lets nobody join the flight any more and leaves nobody waiting, whatever happened.

        Nor does a lease stay with it.
        """
        self._flights.remove(flight)
        if flight.landing is None:
            flight.land(Failed(_broken(), flight.trail))
        flight.settle()

    # L2 -------------------------------------------------------------------------------------------

    async def _from_l2(self, flights: list[Flight]) -> None:
        """Lands the flights whose copy in L2 is fresh and admissible; the others go on to L3.

        Flights that ask past all copies (from `RELOAD` on) go to L3, their home, at once.
        """
        asking = [flight for flight in flights if flight.mode < Mode.RELOAD]
        left = [flight for flight in flights if flight.mode >= Mode.RELOAD]
        if asking:
            found = await self._l2.get_many([flight.key for flight in asking])
            left += [
                flight
                for flight, entry in zip(asking, found, strict=True)
                if not self._land_from_l2(flight, entry)
            ]
        if left:
            await self._from_l3(left)

    async def _look(self, look: Look) -> None:
        try:
            left = self._land_look(look, await self._l2.get_many(look.keys))
        except BaseException:
            for place in range(len(look.keys)):
                self._end(self._flights.made(look, place))
            look.land([None] * len(look.keys), self._fences.version)
            raise
        if left:
            await self._run(left, self._from_l3)

    def _land_look(self, look: Look, found: Sequence[Lookup]) -> list[Flight]:
        """Lands the copies that are fresh and admissible; returns the flights that go on to L3.

        The same judgement as that of `_land_from_l2`, which lands the flights that readers have joined.
        """
        fresh = self._admission.fresh_of(
            [entry if type(entry) is Entry else None for entry in found],
            look.keys,
            look.namespace,
            self._admission.clock.now_us(),
        )
        for place in look.flights:
            fresh[place] = None
        self._tally.l2.hits += self._near_tiers.put_many(look.keys, fresh, Came.FOUND)
        left = []
        for place, entry in enumerate(fresh):
            if entry is None:
                flight = self._flights.made(look, place)
                if self._land_from_l2(flight, found[place]):
                    self._flights.remove(flight)
                else:
                    left.append(flight)
        self._flights.remove_look(look)
        look.land(fresh, self._fences.version)
        return left

    def _land_from_l2(self, flight: Flight, entry: Lookup) -> bool:
        tally = self._tally.l2
        if entry is None:
            tally.misses += 1
            flight.passed(L2_MISS)
            return False
        if isinstance(entry, TierError):
            tally.errors += 1
            flight.passed(L2_DOWN)
            return False
        standing = self._admission.standing(entry, flight.key, flight.namespace)
        if flight.token and self._admission.token_refuses(entry, flight.key, flight.token):
            standing = Standing.REFUSED
        if standing is Standing.FRESH:
            tally.hits += 1
            if flight.keep:
                self._near_tiers.put(flight.key, entry, Came.FOUND)
                flight.stored_in_l1()
            flight.land(FoundCopy(entry, "l2", flight.trail, self._fences.version))
            return True
        if standing is Standing.REFUSED:
            tally.refused += 1
            self._refused(flight, entry)
            flight.passed(L2_FENCED)
        else:
            tally.stale += 1
            flight.passed(L2_STALE)
        flight.saw(entry, "l2")
        return False

    # L3 -------------------------------------------------------------------------------------------

    async def _from_l3(self, flights: list[Flight]) -> None:
        """Asks each home cell once; a flight that no copy answers goes on alone (`_onward`)."""
        if len(flights) == 1:
            await self._from_cell(self._homes.of(flights[0].key), flights)
            return
        groups = self._homes.group((flight.key, flight) for flight in flights)
        await asyncio.gather(*(self._from_cell(cell, group) for cell, group in groups))

    async def _from_cell(self, cell: Cell, flights: list[Flight]) -> None:
        replies = await self._ask_home(cell, flights)
        landed = [self._land_from_l3(flight, reply) for flight, reply in zip(flights, replies, strict=True)]
        await self._after_home(cell, flights, replies, landed)

    async def _after_home(
        self, cell: Cell, flights: list[Flight], replies: Sequence[Reply | TierError], landed: Sequence[bool]
    ) -> None:
        """Copies what landed into L2; the other flights go on."""
        onward: list[tuple[Flight, Reply | TierError]] = []
        copies: list[tuple[Key, Namespace, Entry]] = []
        for flight, reply, has_landed in zip(flights, replies, landed, strict=True):
            if not has_landed:
                onward.append((flight, reply))
            elif flight.keep and not isinstance(reply, TierError) and reply.entry is not None:
                copies.append((flight.key, flight.namespace, reply.entry))
        if copies:
            await self._near_tiers.copy(copies)
        if len(onward) == 1:
            await self._onward(cell, *onward[0])
        elif onward:
            await asyncio.gather(*(self._onward(cell, flight, reply) for flight, reply in onward))

    async def _ask_home(self, cell: Cell, flights: Sequence[Flight]) -> Sequence[Reply | TierError]:
        """Reads at the home cell, and asks for the lease where the flight may use one.

        A fence merged from here on overtakes the load: `asked` is noted before the first await.
        """
        asked = self._fences.merged
        for flight in flights:
            flight.asked = asked
        replies = await cell.read_many([self._read_of(flight) for flight in flights])
        for flight, reply in zip(flights, replies, strict=True):
            _take_lease(cell, flight, reply)
        return replies

    def _read_of(self, flight: Flight) -> Read:
        mode = flight.mode
        return Read(
            flight.key,
            self._not_before(flight),
            mode is not Mode.LOOKUP,
            mode >= Mode.RELOAD and mode is not Mode.EARLY,
            flight.namespace.lease,
        )

    def _not_before(self, flight: Flight) -> int:
        """The `as_of` up to which a copy at the home is of no use to the flight; 0 if any may be.

        An early refresh has use for a copy that is newer than its own: another instance that holds a
        copy of the key has refreshed it. If each of them loaded, the origin would have as many loads.
        """
        if flight.known is None:
            return 0
        if flight.refused_here:
            return self._admission.not_before(flight.key, flight.known)
        return flight.known.as_of if flight.mode is Mode.EARLY else 0

    def _land_from_l3(self, flight: Flight, reply: Reply | TierError) -> bool:
        tally = self._tally.l3
        if isinstance(reply, TierError):
            tally.errors += 1
            flight.passed(L3_DOWN)
            return False
        entry = reply.entry
        strict = self._is_overtaken(flight, entry)
        standing = self._admission.standing_at_home(reply, flight.key, flight.namespace, strict=strict)
        vouched_at = flight.asked if reply.exact and not strict else None
        if entry and flight.token and self._admission.token_refuses(entry, flight.key, flight.token):
            standing = Standing.REFUSED
        takes = flight.mode < Mode.RELOAD or flight.mode is Mode.EARLY
        if standing is Standing.FRESH and entry is not None and takes:
            tally.hits += 1
            if flight.keep and self._near_tiers.keep(flight.key, flight.namespace, entry, Came.FOUND):
                flight.stored_in_l1()
            flight.land(FoundCopy(entry, "l3", flight.trail, self._fences.version, vouched_at))
            # The home's clock may be ahead of this one: the home finds the copy stale and grants the lease
            # to a reader to which the copy is fresh.
            flight.give_back()
            return True
        if flight.mode is Mode.EARLY and entry is None:  # none that is newer than the one here
            tally.stale += 1
            flight.passed(L3_STALE)
        elif standing is Standing.REFUSED:
            tally.refused += 1
            self._refused(flight, entry)
            flight.passed(L3_FENCED)
            flight.refused_here |= entry is not None
        elif entry is None:
            tally.misses += 1
            flight.passed(L3_MISS)
        else:
            tally.stale += 1
            flight.passed(L3_STALE)
            # Without a lease and without a holder the copy is fresh to its home. It is stale here, behind
            # a fence that the home does not know (a paced one).
            flight.refused_here |= reply.lease is None and not reply.held
        if entry is not None:
            flight.saw(entry, "l3", vouched_at if standing is not Standing.REFUSED else None)
        return False

    def _refused(self, flight: Flight, entry: Entry | None) -> None:
        """Counts a copy that L2 or L3 had and that is refused; None: its home has refused it."""
        if entry is None:
            self._tally.refused_copy(flight.key.namespace, RefusedBy.HOME.value)
            return
        by = self._admission.refused_by(entry, flight.key, flight.namespace, flight.token)
        self._tally.refused_copy(flight.key.namespace, by.value)

    def _is_overtaken(self, flight: Flight, entry: Entry | None) -> bool:
        """True if a fence on the copy was merged here while the home's reply was under way.

        The home may have judged the copy before it applied that fence, so its word is not enough:
        sketch and floor decide. If the copy were answered on the home's word: the home reads the copy;
        a write commits; its fence on a tag is merged here; a reader starts and joins the flight; the
        reply arrives, and that reader gets a value loaded before the write, against guarantee G1.
        """
        merged = self._fences.merged
        return (
            merged != flight.asked
            and entry is not None
            and not self._admission.loaded_since(entry, flight.key, flight.asked, merged)
        )

    # no copy answers ------------------------------------------------------------------------------

    async def _onward(self, cell: Cell, flight: Flight, reply: Reply | TierError) -> None:
        """Does what `next_step` says, now that no copy is fresh.

        A flight that answers a stale copy then goes on as if there were no copy, and refreshes it.
        """
        try:
            await self._go_on(cell, flight, reply)
        finally:
            flight.settle()

    async def _go_on(self, cell: Cell, flight: Flight, reply: Reply | TierError) -> None:
        outcome = await self._lease(cell, flight, reply)
        if outcome is Unleased.LANDED:
            return
        token, lease = (None, Lease.UNAVAILABLE) if outcome is Unleased.UNAVAILABLE else (outcome, Lease.FREE)
        who = WHO_LOADS[flight.mode]
        step = next_step(self._loads.copies(flight), lease, who)
        if step.action is Action.LEASE_TO_CALLER and token is not None:
            copy = stale_copy(flight) if step.copy is not None else None
            refusal = await self._leased_loads.begin(flight, has_copy=copy is not None)
            if refusal is None:
                flight.land(Leased(token, flight.trail, copy))
            else:
                self._tally.leases_over_budget += 1
                flight.land(copy or Failed(refusal, flight.trail))
            return
        if step.action is Action.ANSWER_STALE:
            flight.land(stale_copy(flight))
            step = next_step((), lease, who)
        if step.action in (Action.LOAD, Action.LOAD_WITHOUT_LEASE):
            with self._flights.loading(flight):
                await self._loads.load(cell, flight, token if step.action is Action.LOAD else None)
        else:
            flight.land(Missed(flight.trail))

    async def _lease(self, cell: Cell, flight: Flight, reply: Reply | TierError) -> str | Unleased:
        """The token of the lease, once the home grants it; else why there is none.

        While another holds the lease, the home is polled for its fill. A value loaded without a lease
        because waiting has become hopeless (`_is_hopeless`) is answered and not kept. Nobody waits for
        the fill of a key whose values cannot be kept (`Unkept`): there will be none.
        """
        if flight.mode is Mode.LOOKUP:
            return Unleased.UNAVAILABLE
        began, merged = asyncio.get_running_loop().time(), self._fences.merged
        pause = FIRST_POLL_SECONDS
        while not isinstance(reply, TierError) and reply.lease is None:
            if not flight.refused_here:
                is_unkept = flight.key in self._unkept
                is_over = is_unkept or self._is_hopeless(flight, began, merged)
                self._wait_for_fill(flight, over=is_over, is_unkept=is_unkept)
                if flight.landing is not None:
                    return Unleased.LANDED
                if is_over:
                    flight.keep = False
                    return Unleased.UNAVAILABLE
                with self._flights.polling(flight):
                    await flight.pause(pause * (0.5 + self._rng.random()))
                pause = min(pause * 1.5, LONGEST_POLL_SECONDS)
            if flight.mode is Mode.LEASE and flight.waits_for_fill and not flight.waiting:
                flight.land(Missed(flight.trail))
            if flight.landing is not None:
                return Unleased.LANDED
            (reply,) = await self._ask_home(cell, (flight,))
            flight.refused_here = False
            if self._land_from_l3(flight, reply):
                return Unleased.LANDED
        if isinstance(reply, TierError) or reply.lease is None:
            return Unleased.UNAVAILABLE
        self._tally.leases_granted += 1
        if not flight.waits_for_fill:
            flight.note("cachesvc.lease", "granted")
        return reply.lease

    def _is_hopeless(self, flight: Flight, began: float, merged: int) -> bool:
        """True if the holder of the lease is not worth waiting for any longer.

        The holder has taken longer than `lease_wait`; or its load is slower than the origin's soft
        deadline and a fence on the key has voided it meanwhile. Without the second case, fences that
        come faster than a slow origin loads would have readers wait for one voided load after another.
        `began` is the loop time and `merged` the number of merges when the wait began.
        """
        waited = asyncio.get_running_loop().time() - began
        namespace = flight.namespace
        if waited >= namespace.lease_wait.seconds:
            return True
        is_slow = namespace.origin is not None and waited >= namespace.origin.soft_deadline.seconds
        return is_slow and self._fences.merged_between(merged, self._fences.merged, (flight.key.digest,))

    def _wait_for_fill(self, flight: Flight, *, over: bool, is_unkept: bool) -> None:
        """Lands the flight with a stale copy, if the rules allow it while another holds the lease.

        `over`: the wait is over. Then a copy is answered as a last resort too, and a caller that asked
        for the lease gets a miss. `is_unkept`: the wait is over because there will be no fill, which is
        no failure that calls for a last resort.
        """
        step = next_step(self._loads.copies(flight), Lease.HELD, WHO_LOADS[flight.mode])
        if is_unkept:
            self._tally.lease_waits_spared += 1
        elif not flight.waits_for_fill:
            self._tally.lease_waits += 1
            flight.note("cachesvc.lease", "waited")
        if step.action is Action.ANSWER_STALE:
            flight.land(stale_copy(flight))
        flight.wait_for_fill()
        if flight.mode >= Mode.EARLY or (over and flight.mode is Mode.LEASE):
            flight.land(Missed(flight.trail, is_unkept))
        elif over and not is_unkept:
            self._loads.land_last_resort(flight)


def _take_lease(cell: Cell, flight: Flight, reply: Reply | TierError) -> None:
    """Makes the flight own the lease that its home has granted, if it has."""
    if not isinstance(reply, TierError) and reply.lease is not None:
        flight.lease = HeldLease(cell, flight.key, reply.lease)


def _broken() -> RequestError:
    return RequestError(ProblemKind.READ_INTERRUPTED, "this instance stopped while it was reading; ask again")
