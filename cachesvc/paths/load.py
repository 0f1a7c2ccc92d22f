"""The origin's part of a read: load under the lease, then fill L3, L1 and L2.

There are two deadlines. After the soft one a stale copy is answered, if the rules still allow it,
and the load goes on behind the answer. After the hard one the load is given up and its lease given
back, so that the next reader takes over. The lease is the flight's (`Flight.lease`): whatever is
not used here is given back when the flight is settled.

**An older copy does not outlive an answer that may not be kept.** A refresh may bring a value that
is `no-store`, or a refusal (401, 403, a redirect). The copy before it would be answered again, to
the next reader or in another instance, for as long as its windows last: old, new, old. So the load
invalidates the key, by the same steps as any invalidation, if a copy that could still be answered
was seen on the way (`Flight.known`: L1, L2 where it was asked, and L3). It does so before it lands.
Later loads of such a key find no copy and invalidate nothing.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping

from msgspec.structs import replace

from cachesvc.coherence.admission import Admission, Standing
from cachesvc.coherence.next_step import CopySeen, last_resort
from cachesvc.config.topology import Origin
from cachesvc.model.change import Change
from cachesvc.model.clock import MILLISECONDS
from cachesvc.model.entry import Entry, tag_digests_of
from cachesvc.model.errors import OriginError, RequestError, TierError
from cachesvc.model.footprint import shared
from cachesvc.model.partition import foreign_tags
from cachesvc.model.problems import ProblemKind
from cachesvc.model.requests import Step
from cachesvc.model.use import UNKEPT
from cachesvc.paths.flight import Failed, Flight, FoundCopy, LoadedValue, Mode
from cachesvc.paths.lifetimes import lifetimes
from cachesvc.paths.near_tiers import NearTiers
from cachesvc.paths.tally import Tally
from cachesvc.paths.unkept import Unkept
from cachesvc.telemetry.outage import Outage
from cachesvc.telemetry.traces.trace import span
from cachesvc.tiers.l3.contract import Cell, Fill, FillReply
from cachesvc.tiers.l3.leases import lease_as_of, renewed
from cachesvc.tiers.origin.budget import Turns
from cachesvc.tiers.origin.contract import Loaded, Loader

logger = logging.getLogger(__name__)

_SAME_STATUSES = (0, 200, 404)
"""The statuses of an origin that `Cache-Status` need not name: none, or the caller's own."""


class Loads:
    """The loads of one instance.

    `loaders`: one for each namespace with an origin; `turns`: one for each with an origin budget.
    """

    def __init__(
        self,
        *,
        loaders: Mapping[str, Loader],
        turns: Mapping[str, Turns],
        invalidate: Callable[[Change], Awaitable[object]],
        near_tiers: NearTiers,
        admission: Admission,
        rng: random.Random,
        tally: Tally,
        unkept: Unkept,
    ) -> None:
        """`invalidate` applies and publishes a change; raises `RequestError`."""
        self._loaders = loaders
        self._turns = turns
        self._invalidate = invalidate
        self._near_tiers = near_tiers
        self._admission = admission
        self._clock = admission.clock
        self._rng = rng
        self._tally = tally
        self._unkept = unkept
        self._outage = Outage("invalidating copies that an origin's answer replaces", logger)

    async def load(self, cell: Cell, flight: Flight, lease: str | None) -> None:
        """Loads the value, fills the tiers and lands the flight.

        Without a lease (the home is out of reach, or the lease's holder is slow) `as_of` is taken from
        this instance's own clock.
        """
        attributes = {
            "cachesvc.namespace": flight.key.namespace,
            "cachesvc.lease": "granted" if lease else "none",
        }
        with span("cache.load", attributes=attributes) as flight.span:
            await self._load(cell, flight, lease)

    async def _load(self, cell: Cell, flight: Flight, lease: str | None) -> None:
        origin = flight.namespace.origin
        assert origin is not None  # noqa: S101  only namespaces with an origin have flights that load
        as_of = lease_as_of(lease) if lease else self._clock.now_us()
        loop = asyncio.get_running_loop()
        began = loop.time()
        soft = loop.call_later(origin.soft_deadline.seconds, self.land_last_resort, flight)
        self._tally.loads += 1
        try:
            async with renewed(cell, flight.key, lease, flight.namespace.lease, origin.hard_deadline.seconds):
                loaded = await self._ask(flight, origin)
        except OriginError as failure:
            soft.cancel()
            await self._fail(flight, failure)
            return
        finally:
            soft.cancel()
        self._tally.loads_ok += 1
        entry = self._entry_of(loaded, flight, origin, as_of, took_ms=round((loop.time() - began) * 1000))
        use = loaded.use
        if use.keep and foreign_tags(flight.key.text, entry.tags):
            use = UNKEPT
        if use.keep:
            self._unkept.forget(flight.key)
        else:
            self._tally.values_unkept += 1
            self._unkept.note(flight.key)
        if use.keep and flight.keep:
            await self._keep(cell, flight, entry, lease, loaded)
            return
        flight.give_back()
        if use.keep:  # the reader, or its patience, keeps the value out of the tiers: not the origin
            use = UNKEPT
        else:
            await self._forget_older(flight)
        l3 = _answered(_step_of(flight, "l3"), loaded.status)
        flight.land(LoadedValue(entry, (l3, *_other_steps(flight)), use, _may_lag(loaded, origin)))

    async def _ask(self, flight: Flight, origin: Origin) -> Loaded:
        known = flight.known if flight.known is not None and flight.known.origin_etag else None
        loader, turns = self._loaders[flight.key.namespace], self._turns.get(flight.key.namespace)
        seconds = origin.hard_deadline.seconds
        if turns is None:
            return await loader.load(flight.key, known=known, timeout_seconds=seconds)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await turns.take(self._patience_seconds(flight, origin))
        try:
            left = max(0.0, seconds - (loop.time() - began))
            return await loader.load(flight.key, known=known, timeout_seconds=left)
        finally:
            turns.give_back()

    def _patience_seconds(self, flight: Flight, origin: Origin) -> float:
        """The time that a load may wait for a turn of the origin budget.

        A refresh that nobody waits for, and a read that a stale copy may answer, leave the turns to others.
        """
        is_answered = flight.landing is not None or flight.mode is Mode.EARLY
        if is_answered or last_resort(self.copies(flight)) is not None:
            return 0.0
        return origin.soft_deadline.seconds

    def _entry_of(self, loaded: Loaded, flight: Flight, origin: Origin, as_of: int, took_ms: int) -> Entry:
        """The entry of what the origin answered.

        An absent value (404) becomes a negative entry. A 304 brings the bytes that it validated, and
        is a fill of those bytes.
        """
        fresh_until, stale_for, error_for = lifetimes(
            flight.namespace,
            negative=loaded.absent,
            ttl_us=loaded.ttl_us,
            stale_for_us=loaded.stale_for_us,
            error_for_us=loaded.error_for_us,
            # By a clock that is an hour ahead, a value of five seconds would be fresh for an hour in every
            # instance that finds it in L2 or L3.
            now=self._admission.fences.moment_of(self._clock.now_us(), as_of + took_ms * MILLISECONDS),
            rng=self._rng,
        )
        return Entry(
            loaded.value,
            as_of - loaded.age_us - origin.lag,
            fresh_until,
            stale_for,
            error_for,
            took_ms,
            shared(loaded.content_type),
            loaded.tags,
            tag_digests_of(flight.key.namespace, loaded.tags),
            loaded.absent,
            loaded.etag or "",
            confirmed=False,
        )

    async def _keep(
        self, cell: Cell, flight: Flight, entry: Entry, lease: str | None, loaded: Loaded
    ) -> None:
        """Fills L3, then L1, lands the flight, and copies to L2.

        L3 decides: an entry that it refuses (`fenced`) is kept nowhere, and callers are told not to
        keep it: a cache on the way, which no fence reaches, would keep what was invalidated. The flight
        lands only after the writes to L3 and L1, which other readers may look for once they hear of the
        landing.
        """
        l3 = _step_of(flight, "l3")
        stored = lease is None
        if lease is not None:
            confirmed = replace(entry, confirmed=True)
            reply = await self._fill(cell, flight, Fill(flight.key, confirmed, lease))
            stored = isinstance(reply, TierError) or reply.stored
            if isinstance(reply, TierError):
                l3 = Step("l3", "bypass", detail="unavailable")
            elif stored:
                l3, entry = l3.as_stored(), confirmed
            else:
                l3 = Step("l3", l3.reason, detail="fenced")
            self._tally.fills += stored
            self._tally.fills_refused += not stored
        near = stored and self._near_tiers.keep(flight.key, flight.namespace, entry)
        rest = tuple(step.as_stored() if near else step for step in _other_steps(flight))
        # An entry without any lifetime (`max-age=0`) is in no near tier either, and says so by itself.
        is_refused = not near and (not stored or entry.kept_until > self._clock.now_us())
        trail = (_answered(l3, loaded.status), *rest)
        use = UNKEPT if is_refused else loaded.use
        flight.land(LoadedValue(entry, trail, use, _may_lag(loaded, flight.namespace.origin)))
        if near:
            await self._near_tiers.copy([(flight.key, flight.namespace, entry)])

    async def _fill(self, cell: Cell, flight: Flight, fill: Fill) -> FillReply | TierError:
        """Fills under the flight's lease.

        A fill that was answered has ended the lease; after a failure the lease is given back.
        A cancelled fill is under way all the same, and ends the lease by itself: a release that
        overtook it would have it refused.
        """
        held, flight.lease = flight.lease, None
        failed = True
        try:
            (reply,) = await cell.fill_many([fill])
            failed = isinstance(reply, TierError)
        except asyncio.CancelledError:
            failed = False
            raise
        finally:
            if failed and held is not None:
                held.give_back()
        return reply

    # what replaces the older copies -----------------------------------------------------------------

    async def _forget_older(self, flight: Flight) -> None:
        """Invalidates the key if a copy was seen that could still be answered.

        While the queue is out of reach, the copies of L1 and L2 are dropped, and the others stay until
        their windows end; one line of the log says so.
        """
        if not self._may_answer_known(flight):
            return
        self._tally.older_forgotten += 1
        key = flight.key
        try:
            await self._invalidate(Change(key.namespace, keys=(key.text,)))
        except RequestError as failure:
            self._outage.failed(failure)
            await self._near_tiers.drop([key])
        else:
            self._outage.worked()

    def _may_answer_known(self, flight: Flight) -> bool:
        known = flight.known
        return known is not None and self._standing(flight, known) not in (Standing.REFUSED, Standing.DEAD)

    # stale answers --------------------------------------------------------------------------------

    def copies(self, flight: Flight) -> tuple[CopySeen, ...]:
        """The flight's newest copy with its standing now; empty if it may not be used.

        A flight that asks the origin past all copies uses none. A fresh copy that was not answered did
        not suit its reader or was refused a moment ago: the flight does not go back to it.
        """
        known = flight.known
        if known is None or flight.mode >= Mode.RELOAD:
            return ()
        if flight.token and self._admission.token_refuses(known, flight.key, flight.token):
            return ()
        standing = self._standing(flight, known)
        if standing is Standing.FRESH:
            return ()
        return (CopySeen(flight.known_tier, standing, known.as_of, known.negative),)

    def _standing(self, flight: Flight, known: Entry) -> Standing:
        vouched_at = flight.known_vouched_at
        if vouched_at is not None:
            return self._admission.standing_past(known, flight.key, flight.namespace, vouched_at)
        return self._admission.standing(known, flight.key, flight.namespace)

    def land_last_resort(self, flight: Flight) -> bool:
        """Lands the flight with a stale copy because the origin is late or failing (RFC 5861, 4).

        Returns False, and changes nothing, if the flight has landed or no copy may stand in.
        """
        if flight.landing is not None or last_resort(self.copies(flight)) is None:
            return False
        self._tally.stale_on_error += 1
        flight.land(stale_copy(flight))
        return True

    async def _fail(self, flight: Flight, failure: OriginError) -> None:
        """Gives the lease back and lands the flight: with a stale copy if the failure allows one."""
        if failure.kind is ProblemKind.ORIGIN_BUDGET:
            self._tally.loads_over_budget += 1
        elif failure.is_answer:
            self._tally.loads_refused += 1
        else:
            self._tally.loads_failed += 1
        if flight.span is not None:
            flight.span.error = failure.kind.value
        flight.give_back()
        if not failure.allows_stale:
            await self._forget_older(flight)
        elif self.land_last_resort(flight):
            return
        is_over_budget = failure.kind is ProblemKind.ORIGIN_BUDGET
        why = "may not be asked now" if is_over_budget else "failed"
        detail = f"the origin of namespace {flight.key.namespace!r} {why}: {failure}"
        error = RequestError(failure.kind, detail, retry_after=failure.retry_after)
        step = _answered(_step_of(flight, "l3"), failure.origin_status)
        flight.land(Failed(error, (step, *_other_steps(flight))))


def _answered(step: Step, origin_status: int) -> Step:
    return step if origin_status in _SAME_STATUSES else step.as_answered(origin_status)


def _may_lag(loaded: Loaded, origin: Origin | None) -> bool:
    return loaded.age_us > 0 or (origin is not None and origin.lag > 0)


def _other_steps(flight: Flight) -> tuple[Step, ...]:
    return tuple(step for step in flight.trail if step.tier != "l3")


def _step_of(flight: Flight, tier: str) -> Step:
    return next((step for step in flight.trail if step.tier == tier), Step(tier, "request"))


def stale_copy(flight: Flight) -> FoundCopy:
    """The landing of a flight that answers its newest copy as a stale one."""
    assert flight.known is not None  # noqa: S101  `next_step` names a copy only where the flight has seen one
    return FoundCopy(
        flight.known, flight.known_tier, flight.trail, vouched_at=flight.known_vouched_at, is_stale=True
    )
