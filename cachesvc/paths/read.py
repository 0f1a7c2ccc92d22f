"""The read path, top to bottom: L1 → join or start a flight → judge what it brought.

A flight asks L2, then L3, then the origin. `flight_runner.py` runs it; `load.py` is the origin's
part.

A reader judges for itself, synchronously and after every wait, whether what its flight brought may
be answered *now*. A copy must be admissible at that moment; a loaded value must not have been
overtaken by a fence that the reader knew at its start. If it may not be answered, the reader looks
again. Every new flight begins after the reader did, so one more load is the most that a read can
cost.
"""

import asyncio
import contextlib
import random
from collections.abc import Mapping, Sequence
from typing import cast

from msgspec import Struct

from cachesvc.coherence.admission import Admission, Standing, is_due_early
from cachesvc.config.topology import Namespace
from cachesvc.model.entry import Entry, Key, digests_of
from cachesvc.model.errors import RequestError
from cachesvc.model.problems import ProblemKind
from cachesvc.model.requests import PLAIN, Answer, Outcome, ReadOptions, Step
from cachesvc.paths.flight import (
    L1_MISS,
    NO_TOKEN,
    Failed,
    Flight,
    Flights,
    FoundCopy,
    Landing,
    Leased,
    LoadedValue,
    Look,
    Missed,
    Mode,
)
from cachesvc.paths.flight import joined as note_joined
from cachesvc.paths.flight_runner import FlightRunner
from cachesvc.paths.leased_loads import LeasedLoads
from cachesvc.paths.tally import Tally
from cachesvc.telemetry.ghosts import Ghosts
from cachesvc.telemetry.popularity.read_sample import ReadSample
from cachesvc.telemetry.traces.trace import current
from cachesvc.tiers.l1.l1 import L1
from cachesvc.tiers.l3.homes import Homes
from cachesvc.tiers.origin.budget import Turns

ROUNDS = 4
"""The most looks of one read.

The second look has a load of its own at the latest. More looks happen only while fences keep
refusing the copies that were found.
"""

FEW_TAGS = 16
"""The most tags of an entry whose head is small: 9 KiB, as a tag has up to 256 characters."""

L1_STALE = Step("l1", "stale")
L1_FENCED = Step("l1", "stale", detail="fenced")
L1_PASSED = Step("l1", "request")


_LOOKED = (L1_MISS.as_stored(),)
"""The trail of a copy that a look found: L1 had none, and keeps this one."""


class _PlacedLook(Struct, frozen=True, eq=False):
    """A look that a batch waits for."""

    look: Look
    batch: list[int]
    """The places in the batch of the keys that both have."""
    places: list[int]
    """The places of the same keys in the look."""
    joined: bool
    """True if the look is of another batch."""


class Reader:
    """The reads of one instance: from L1, or from a flight that is joined or started."""

    def __init__(
        self,
        *,
        namespaces: Mapping[str, Namespace],
        l1: L1,
        flights: Flights,
        runner: FlightRunner,
        admission: Admission,
        rng: random.Random,
        tally: Tally,
        sample: ReadSample,
        ghosts: Ghosts,
        homes: Homes,
        leased_loads: LeasedLoads,
        turns: Mapping[str, Turns],
    ) -> None:
        self._namespaces = namespaces
        self._l1 = l1
        self._sample = sample
        self._ghosts = ghosts
        self._flights = flights
        self._runner = runner
        self._admission = admission
        self._fences = admission.fences
        self._clock = admission.clock
        self._rng = rng
        self._homes = homes
        self._leased_loads = leased_loads
        self._turns = turns
        self.tally = tally

    # 1. L1 ----------------------------------------------------------------------------------------

    def peek(self, namespace: str, key: Key) -> Entry | None:
        """The copy in L1, if a plain read may be answered with it as fresh now; else None.

        The hottest path: no await and no allocation. A copy that its home has not confirmed is left to
        `get`, as its answer has more to say.
        """
        entry = self._l1.get(key)
        return None if entry is None else self._fresh(namespace, key, entry)

    def peek_small(self, namespace: str, key: Key, most_bytes: int) -> Entry | None:
        """The result of `peek` if it is a value of at most so many bytes that has few tags.

        Else None, and the read is not counted: `peek` may be asked.
        """
        entry = self._l1.get(key)
        if entry is None or entry.negative or len(entry.value) > most_bytes or len(entry.tags) > FEW_TAGS:
            return None
        return self._fresh(namespace, key, entry)

    def is_beyond_l1(self, key: Key) -> bool:
        """True if L1 has no copy of the key, fresh or not."""
        return self._l1.get(key) is None

    def _fresh(self, namespace: str, key: Key, entry: Entry) -> Entry | None:
        """The copy, which is counted, if a plain read may be answered with it as fresh now."""
        now = self._clock.now_us()
        contract = self._namespaces[namespace]
        if not (self._admission.is_fresh(entry, key, contract, now) and entry.confirmed):
            return None
        self._hit_in_l1(key, contract, entry, now)
        return entry

    def peek_many(self, namespace: str, keys: Sequence[Key]) -> list[Entry | None]:
        """The result of `peek` for each key, in order, at a third of the cost."""
        found = self._fresh_of(namespace, keys)
        hits = [i for i, entry in enumerate(found) if entry is not None]
        if len(hits) == len(found):
            self.count_hits(namespace, keys, cast(Sequence[Entry], found))
        elif hits:
            copies = [entry for entry in found if entry is not None]
            self.count_hits(namespace, [keys[i] for i in hits], copies)
        return found

    def peek_all(self, namespace: str, keys: Sequence[Key]) -> Sequence[Entry] | None:
        """The results of `peek_many` if L1 has all of them; else None.

        No read is counted: that is left to `count_hits`.
        """
        if self._l1.peek(keys[0]) is None:  # so most batches that L1 does not know cost one look
            return None
        found = self._fresh_of(namespace, keys)
        return None if None in found else cast(Sequence[Entry], found)

    def count_hits(self, namespace: str, keys: Sequence[Key], entries: Sequence[Entry]) -> None:
        """Counts reads that are answered with these copies, which `peek_all` has found."""
        contract = self._namespaces[namespace]
        before = self.tally.l1.hits
        self.tally.l1.hits = after = before + len(entries)
        while (next_hit := self._sample.next_hit) <= after:
            at = max(0, next_hit - before - 1)
            self._sample.note(keys[at], entries[at])
        mask = self._ghosts.mask
        for at in [i for i, digest in enumerate(digests_of(keys)) if not digest & mask]:
            self._ghosts.read(keys[at])
        if contract.origin is not None:
            now = self._clock.now_us()
            for at, entry in enumerate(entries):
                if entry.load_ms and is_due_early(entry, now, contract.early_refresh, self._rng):
                    self._refresh_early(keys[at], contract, entry)

    def _fresh_of(self, namespace: str, keys: Sequence[Key]) -> list[Entry | None]:
        """The results of `peek` for these keys. No read is counted."""
        contract, now = self._namespaces[namespace], self._clock.now_us()
        found = self._admission.fresh_of(self._l1.get_many(keys), keys, contract, now)
        return [entry if entry is None or entry.confirmed else None for entry in found]

    def largest(self, namespace: str) -> int:
        """The largest charge of an entry of this namespace that L1 has ever kept, in bytes."""
        totals = self._l1.by_namespace().get(namespace)
        return 0 if totals is None else totals.largest

    def _hit_in_l1(self, key: Key, namespace: Namespace, entry: Entry, now: int) -> None:
        self.tally.l1.hits = hits = self.tally.l1.hits + 1
        if hits >= self._sample.next_hit:
            self._sample.note(key, entry)
        if not key.digest & self._ghosts.mask:
            self._ghosts.read(key)
        if entry.load_ms and is_due_early(entry, now, namespace.early_refresh, self._rng):
            self._refresh_early(key, namespace, entry)

    def waiting_elsewhere(self) -> int:
        """The number of reads that wait for another holder's fill or for an origin now."""
        return self._flights.waiting_elsewhere(asyncio.get_running_loop().time())

    async def get(self, key: Key, options: ReadOptions = PLAIN) -> Answer:
        """Reads one key.

        Cancelling the caller neither cancels the load nor disturbs a connection.
        """
        if options is PLAIN:
            namespace = self._namespaces[key.namespace]
            started = self._fences.merged
            answer, step = self._from_l1(key, namespace, PLAIN)
            if answer is not None:
                self._count(key.namespace, answer)
                return answer
            flight, joined = self._join_or_make(
                key, namespace, _mode_of(namespace, PLAIN), step, PLAIN, self._clock.now_us()
            )
            if not joined:
                self._runner.start(flight)
            landing = await flight.landed()
            answer = self._judge(flight, landing, joined, started, PLAIN)
            if answer is not None:
                self._count(key.namespace, answer)
                return answer
            if _is_for_another(landing, joined):
                answers: list[Answer | None] = [None]
                await self._answer_all((key,), namespace, PLAIN, answers, {0})
                answer = answers[0] or _overtaken()
                self._count(key.namespace, answer)
                return answer
        return (await self.get_many((key,), options))[0]

    async def get_many(self, keys: Sequence[Key], options: ReadOptions = PLAIN) -> list[Answer]:
        """Reads keys of one namespace under one deadline; answers in the order of the keys.

        A key that is not answered by the deadline has an `ERROR` in its place. If the caller is cancelled,
        the leases that it was given are given back.
        """
        if not keys:
            return []
        namespace = self._namespaces[keys[0].namespace]
        answers: list[Answer | None] = [None] * len(keys)
        try:
            if options.timeout_seconds is None:
                await self._answer_all(keys, namespace, options, answers, set())
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(options.timeout_seconds):
                        await self._answer_all(keys, namespace, options, answers, set())
        except BaseException:
            for key, answer in zip(keys, answers, strict=True):
                if answer is not None:
                    self.give_back(key, answer)
            raise
        found = [answer if answer is not None else _too_late(options) for answer in answers]
        self._count_many(keys[0].namespace, found)
        return found

    def _count(self, namespace: str, answer: Answer) -> None:
        """Counts an answer by who gave it, unless L1 gave it as fresh."""
        if answer.tier != "l1" or answer.outcome is Outcome.STALE:
            by = answer.tier or ("error" if answer.outcome is Outcome.ERROR else "miss")
            self.tally.answered_beyond(namespace, by)

    def _count_many(self, namespace: str, answers: Sequence[Answer]) -> None:
        """Does what `_count` does for each answer; those from L2 and L3 are counted at once."""
        tiers = [answer.tier for answer in answers if answer.tier]
        for tier in ("l2", "l3"):
            if count := tiers.count(tier):
                self.tally.answered_beyond(namespace, tier, count)
        if len(tiers) < len(answers) or "l1" in tiers or "origin" in tiers:
            for answer in answers:
                if answer.tier not in {"l2", "l3"}:
                    self._count(namespace, answer)

    async def _answer_all(
        self,
        keys: Sequence[Key],
        namespace: Namespace,
        options: ReadOptions,
        answers: list[Answer | None],
        alone: set[int],
    ) -> None:
        """Fills in the answers; `alone` has the places of keys to load for this read alone."""
        mode = _mode_of(namespace, options)
        token = self._admission.believed(options.token) if options.token else NO_TOKEN
        wait_until = asyncio.get_running_loop().time() + options.wait_seconds
        looking: Sequence[int] = range(len(keys))
        started = self._fences.merged
        may_look = mode < Mode.LEASE and not _is_private(options) and not options.no_cache and not alone
        for turn in range(ROUNDS):
            waiting: list[tuple[int, Flight, bool]] = []
            looks: list[_PlacedLook] = []
            now = self._clock.now_us()
            if may_look and turn == 0 and len(keys) > 1:
                looking, looks = self._look_together(keys, namespace, mode, now)
            for i in looking:
                key = keys[i]
                answers[i], step = self._from_l1(key, namespace, options, token)
                if answers[i] is None:
                    flight, joined = (
                        (self._alone(key, namespace, step, now), False)
                        if i in alone
                        else self._join_or_make(key, namespace, mode, step, options, now, token)
                    )
                    waiting.append((i, flight, joined))
            if mode.is_for_caller:
                for _, flight, _ in waiting:
                    flight.claimants += 1
            try:
                if waiting:
                    self._start([flight for _, flight, joined in waiting if not joined])
                while looks:
                    await looks[-1].look.landed()
                    waiting += self._judge_look(looks.pop(), answers, options)
                for i, flight, joined in waiting:
                    landing = flight.landing or await self._wait_for_landing(flight, wait_until)
                    answers[i] = self._judge(flight, landing, joined, started, options)
                    if answers[i] is None and _is_for_another(landing, joined):
                        alone.add(i)
            except asyncio.CancelledError:
                # The deadline came during a wait. Flights that have landed by now are answered.
                for placed in looks:
                    if placed.look.found is not None:
                        waiting += self._judge_look(placed, answers, options)
                for i, flight, joined in waiting:
                    if answers[i] is None and flight.landing is not None:
                        answers[i] = self._judge(flight, flight.landing, joined, started, options)
                raise
            finally:
                if mode.is_for_caller:
                    for _, flight, _ in waiting:
                        flight.left()
            looking = [i for i, _, _ in waiting if answers[i] is None]
            if not looking:
                return
            self.tally.reads_again += len(looking)
            if mode is Mode.THROUGH and (turn > 0 or options is not PLAIN):
                mode = Mode.RELOAD
        for i in looking:
            answers[i] = _overtaken()

    def _from_l1(
        self, key: Key, namespace: Namespace, options: ReadOptions, token: Mapping[int, int] = NO_TOKEN
    ) -> tuple[Answer | None, Step]:
        """The answer from L1, fresh or stale, or None; and the step that says why there is none.

        The part of `next_step` that is about L1, repeated here for speed.
        """
        if options.no_cache:
            return None, L1_PASSED
        entry = self._l1.get(key)
        if entry is None:
            self.tally.l1.misses += 1
            return None, L1_MISS
        standing = self._admission.standing(entry, key, namespace)
        if standing is Standing.REFUSED or (token and self._admission.token_refuses(entry, key, token)):
            self.tally.l1.refused += 1
            by = self._admission.refused_by(entry, key, namespace, token)
            self.tally.refused_copy(key.namespace, by.value)
            return None, L1_FENCED
        if options is not PLAIN and not self._admission.suits(entry, options):
            self.tally.l1.misses += 1
            return None, L1_PASSED
        if standing is Standing.FRESH:
            self._hit_in_l1(key, namespace, entry, self._clock.now_us())
            return Answer(_hit(entry), entry, "l1"), L1_MISS
        self.tally.l1.stale += 1
        if standing is Standing.STALE and not options.lease and not entry.negative:
            self._beyond(key)
            self._refresh_behind(key, namespace, entry)
            return self._stale(key, entry, "l1"), L1_STALE
        if options.max_stale_us is not None and standing is not Standing.DEAD and not entry.negative:
            self._beyond(key)
            return self._stale(key, entry, "l1"), L1_STALE
        return None, L1_STALE

    def _beyond(self, key: Key) -> None:
        """Notes a read that is no fresh hit in L1, if it is one of those that are sampled."""
        self._sample.beyond(key)
        if not key.digest & self._ghosts.mask:
            self._ghosts.read(key)

    def _all_beyond(self, keys: Sequence[Key]) -> None:
        """Does what `_beyond` does for each of these keys."""
        self._sample.all_beyond(keys)
        mask = self._ghosts.mask
        for key in keys:
            if not key.digest & mask:
                self._ghosts.read(key)

    # 2. flights -----------------------------------------------------------------------------------

    def _join_or_make(
        self,
        key: Key,
        namespace: Namespace,
        mode: Mode,
        step: Step,
        options: ReadOptions,
        now: int,
        token: Mapping[int, int] = NO_TOKEN,
    ) -> tuple[Flight, bool]:
        """The key's flight, and True if the reader joined it; else it must be started.

        A read with a token or `no-store` has a private flight, which nobody joins.
        """
        self._beyond(key)
        is_private = _is_private(options)
        flight = None if is_private else self._flights.find(key, mode)
        if flight is not None and self._admission.is_timely(flight.began_us, namespace, now):
            self.tally.joined += 1
            if (span := current()) is not None:
                note_joined(flight, span)
            return flight, True
        known = self._l1.peek(key) if step is not L1_MISS else None
        flight = Flight(key, namespace, mode, self._fences.merged, now, (step,), known, current())
        self.tally.flights += 1
        if is_private:
            flight.token = token
            flight.keep = not options.no_store
        else:
            self._flights.add(flight)
        return flight, False

    def _look_together(
        self, keys: Sequence[Key], namespace: Namespace, mode: Mode, now: int
    ) -> tuple[list[int], "list[_PlacedLook]"]:
        """Joins the looks of other batches, and starts one for the keys that L1 does not hold.

        Returns the places of the other keys, which are to be looked up one by one, and the looks.
        Those others are keys whose copy in L1 needs judging, and keys that have a flight already: of
        a reader of one key, or in this batch, where a key may stand twice.
        """
        found, running = self._l1.get_many(keys), self._flights.by_digest(mode)
        places: dict[int, int] = {}
        own: list[int] = []
        others: list[int] = []
        joined: dict[Look, _PlacedLook] = {}
        count = 0
        for i, key in enumerate(keys):
            digest = key.digest
            if found[i] is not None or digest in places:
                others.append(i)
            elif (flight := running.get(digest)) is None:
                places[digest] = len(own)
                own.append(i)
            elif type(flight) is Look and flight.keys[place := flight.places[digest]].id == key.id:
                if (placed := joined.get(flight)) is None:
                    placed = joined[flight] = _PlacedLook(flight, [], [], True)
                placed.batch.append(i)
                placed.places.append(place)
            else:
                others.append(i)
        looks = []
        for look, placed in joined.items():
            if self._admission.is_timely(look.began_us, namespace, now):
                looks.append(placed)
                count += len(placed.batch)
                if (span := current()) is not None:
                    note_joined(look, span)
            else:
                others += placed.batch
        self.tally.joined += count
        if len(own) < 2:
            others += own
        else:
            self.tally.flights += len(own)
            count += len(own)
            asked = keys if len(own) == len(keys) else [keys[i] for i in own]
            look = Look(asked, namespace, mode, self._fences.merged, now, current(), places)
            self._flights.add_look(look)
            self._runner.start_look(look)
            looks.append(_PlacedLook(look, own, list(range(len(own))), False))
        self.tally.l1.misses += count
        if count == len(keys):
            self._all_beyond(keys)
        else:
            self._all_beyond([keys[i] for placed in looks for i in placed.batch])
        others.sort()  # of a key that stands twice, the first place begins the flight
        return others, looks

    def _judge_look(
        self, placed: "_PlacedLook", answers: list[Answer | None], options: ReadOptions
    ) -> list[tuple[int, Flight, bool]]:
        """Fills in what the look found, and returns the flights of what it did not find.

        If a fence or the floor has moved since the copies were judged, or the read asks for more than a
        fresh copy, each copy becomes the landing of its flight, to be judged as such.
        """
        look, found = placed.look, placed.look.found or ()
        is_current = look.version == self._fences.version and options is PLAIN
        waiting: list[tuple[int, Flight, bool]] = []
        for i, place in zip(placed.batch, placed.places, strict=True):
            entry = found[place]
            if entry is not None and is_current:
                answers[i] = Answer(Outcome.ABSENT if entry.negative else Outcome.HIT, entry, "l2", _LOOKED)
                continue
            flight = look.flight_of(place)
            if entry is not None:
                flight.land(FoundCopy(entry, "l2", _LOOKED, look.version))
            waiting.append((i, flight, placed.joined))
        return waiting

    def _alone(self, key: Key, namespace: Namespace, step: Step, now: int) -> Flight:
        """A flight that loads for one reader: nobody joins it, and no tier keeps its value."""
        flight = Flight(
            key,
            namespace,
            Mode.RELOAD,
            self._fences.merged,
            now,
            (step,),
            self._l1.peek(key),
            current(),
        )
        flight.alone, flight.keep = True, False
        self.tally.flights += 1
        return flight

    def _start(self, flights: list[Flight]) -> None:
        if len(flights) == 1 and not flights[0].alone:
            self._runner.start(flights[0])
            return
        for flight in flights:
            if flight.alone:
                self._runner.start_alone(flight)
        if together := [flight for flight in flights if not flight.alone]:
            self._runner.start_together(together)

    async def _wait_for_landing(self, flight: Flight, wait_until: float) -> Landing:
        """Waits for the landing.

        A caller that asked for the lease waits for another holder's fill only until `wait_until`, loop
        time.
        """
        if flight.mode is not Mode.LEASE:
            return await flight.landed()
        if (landing := await flight.landed_or_waits_for_fill()) is not None:
            return landing
        try:
            async with asyncio.timeout_at(wait_until):
                return await flight.landed()
        except TimeoutError:
            return Missed(flight.trail)

    # 3. the reader's own decision -----------------------------------------------------------------

    def _judge(
        self, flight: Flight, landing: Landing, joined: bool, started: int, options: ReadOptions
    ) -> Answer | None:
        """The answer to this reader; None if it must look again."""
        if type(landing) is FoundCopy and landing.version == self._fences.version and options is PLAIN:
            # The copy was judged fresh when it landed, and no fence or floor has moved since. Nearly
            # every answer is this one.
            return Answer(_hit(landing.entry), landing.entry, landing.tier, landing.trail)
        match landing:
            case FoundCopy():
                return self._judge_copy(flight, landing, options)
            case LoadedValue():
                return self._judge_loaded(flight, landing, joined, started)
            case Leased():
                return self._judge_leased(flight, landing, options)
            case Missed():
                return Answer(Outcome.MISS, trail=landing.trail, unkept=landing.unkept)
            case Failed():
                return Answer(Outcome.ERROR, error=landing.error, trail=landing.trail)

    def _judge_copy(self, flight: Flight, copy: FoundCopy, options: ReadOptions) -> Answer | None:
        if not self._may_answer(flight, copy):
            return None
        if options is not PLAIN and not self._admission.suits(copy.entry, options):
            is_over = flight.mode in (Mode.LOOKUP, Mode.LEASE)
            return Answer(Outcome.MISS, trail=copy.trail) if is_over else None
        if copy.is_stale:
            return self._stale(flight.key, copy.entry, copy.tier, copy.trail)
        return Answer(_hit(copy.entry), copy.entry, copy.tier, copy.trail)

    def _judge_loaded(
        self, flight: Flight, landing: LoadedValue, joined: bool, started: int
    ) -> Answer | None:
        entry = landing.entry
        if _is_for_another(landing, joined):
            return None
        if not self._admission.loaded_since(entry, flight.key, flight.asked, started):
            return None
        trail = (landing.trail[0].as_collapsed(), *landing.trail[1:]) if joined else landing.trail
        outcome = Outcome.ABSENT if entry.negative else Outcome.LOADED
        unmet = landing.may_lag and self._admission.token_refuses(entry, flight.key, flight.token)
        return Answer(outcome, entry, "origin", trail, use=landing.use, unmet=unmet)

    def _judge_leased(self, flight: Flight, landing: Leased, options: ReadOptions) -> Answer | None:
        """Gives the lease to the first caller, and the stale copy to the others.

        Without a stale copy the others look again, and join another flight.
        """
        lease, copy = flight.claim_lease(), landing.copy
        if lease is None:
            return None if copy is None else self._judge_copy(flight, copy, options)
        if copy is None or not self._may_answer(flight, copy):
            return Answer(Outcome.MISS, trail=landing.trail, lease=lease)
        return self._stale(flight.key, copy.entry, copy.tier, landing.trail, lease)

    def _may_answer(self, flight: Flight, copy: FoundCopy) -> bool:
        """True if the copy may still be answered.

        Between the landing and now, while the woken reader waited for its turn, a fence may have been
        merged.
        """
        if copy.version == self._fences.version:
            return True
        if copy.vouched_at is not None:
            return self._admission.still_vouched(copy.entry, flight.key, flight.namespace, copy.vouched_at)
        return self._admission.standing(copy.entry, flight.key, flight.namespace) is not Standing.REFUSED

    def _stale(
        self, key: Key, entry: Entry, tier: str, trail: tuple[Step, ...] = (), lease: str | None = None
    ) -> Answer:
        self.tally.answered_stale(key.namespace, self._clock.now_us() - entry.fresh_until)
        return Answer(Outcome.STALE, entry, tier, trail, lease)

    def give_back(self, key: Key, answer: Answer) -> None:
        """Gives back the lease of an answer that does not reach its caller, if it has one."""
        if answer.lease:
            self._leased_loads.end(answer.lease)
            self._homes.of(key).release(key, answer.lease)

    # refreshes that nobody waits for --------------------------------------------------------------

    def is_due_early(self, namespace: str, entry: Entry) -> bool:
        """True if a caller that loads by itself should load the value anew, before it expires.

        It is drawn at each call (XFetch), as for the early refreshes from an origin.
        """
        contract = self._namespaces[namespace]
        is_due = (
            contract.origin is None
            and entry.load_ms > 0
            and is_due_early(entry, self._clock.now_us(), contract.early_refresh, self._rng)
        )
        self.tally.early_refreshes += is_due
        return is_due

    def _refresh_early(self, key: Key, namespace: Namespace, entry: Entry) -> None:
        if namespace.origin is not None and self._flights.find(key, Mode.EARLY) is None:
            self.tally.early_refreshes += 1
            self._start_refresh(key, namespace, Mode.EARLY, L1_PASSED, entry)

    def _refresh_behind(self, key: Key, namespace: Namespace, entry: Entry) -> None:
        if namespace.origin is not None and self._flights.find(key, Mode.THROUGH) is None:
            self._start_refresh(key, namespace, Mode.THROUGH, L1_STALE, entry)

    def _start_refresh(self, key: Key, namespace: Namespace, mode: Mode, step: Step, known: Entry) -> None:
        """Starts a refresh, unless the origin budget has no turn for it.

        A flight that is refused at once would be followed by another one with the next read.
        """
        turns = self._turns.get(key.namespace)
        if turns is not None and not turns.has_one():
            return
        now = self._clock.now_us()
        flight = Flight(key, namespace, mode, self._fences.merged, now, (step,), known, current())
        self._flights.add(flight)
        self._start([flight])

    # for the write path ---------------------------------------------------------------------------

    def filled(self, key: Key, entry: Entry) -> None:
        """Lands the flight that waits for this fill, which a caller sent through this instance.

        Its readers then need not wait for the next poll of the home.
        """
        if (flight := self._flights.find(key, Mode.LEASE)) is not None and flight.waits_for_fill:
            flight.land(FoundCopy(entry, "l1", flight.trail))

    def released(self, key: Key) -> None:
        """Notes that a caller gave the key's lease back through this instance.

        The flight that waits for that caller's fill asks its home at once. Later readers start a flight
        of their own, because one that asks for the lease and does not wait would miss it in that flight.
        """
        if (flight := self._flights.find(key, Mode.LEASE)) is not None and flight.waits_for_fill:
            self._flights.remove(flight)
            flight.hurry()


def _mode_of(namespace: Namespace, options: ReadOptions) -> Mode:
    if options.only_if_cached:
        return Mode.LOOKUP
    if namespace.origin is None:
        if not options.lease:
            return Mode.LOOKUP
        return Mode.LEASE_OVER if options.no_cache else Mode.LEASE
    return Mode.RELOAD if options.no_cache else Mode.THROUGH


def _is_private(options: ReadOptions) -> bool:
    """True if nobody may join the read's flight: it has a token, or keeps nothing."""
    return options is not PLAIN and (options.no_store or bool(options.token))


def _is_for_another(landing: Landing, joined: bool) -> bool:
    """True if the reader joined a load whose value only the reader that started it may have."""
    return joined and isinstance(landing, LoadedValue) and not landing.use.share


def _hit(entry: Entry) -> Outcome:
    return Outcome.ABSENT if entry.negative else Outcome.HIT


def _too_late(options: ReadOptions) -> Answer:
    detail = f"no answer within the caller's deadline of {options.timeout_seconds or 0:g} s; the load goes on"
    return Answer(Outcome.ERROR, error=RequestError(ProblemKind.DEADLINE, detail, field="Cachesvc-Timeout"))


def _overtaken() -> Answer:
    detail = "every copy was invalidated while it was being answered; ask again"
    return Answer(Outcome.ERROR, error=RequestError(ProblemKind.OVERTAKEN, detail))
