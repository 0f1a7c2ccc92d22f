"""`get_or_load` for threads: read a key, or be the one caller that loads it.

    fresh                       → answer
    stale, lease granted        → load, fill with the lease, answer what was loaded;
                                  if the loader fails, the stale value
    stale, lease held           → answer
    fresh, due early            → load and fill if the lease is granted, answer what was loaded;
                                  else, and if the loader fails, the fresh value
    known absent                → absent
    miss, lease granted         → load, fill with the lease, answer
    miss, lease held elsewhere  → wait for that fill; take over if its holder gives up;
                                  after too long: load and do not fill;
                                  values of the key cannot be kept: load at once, do not fill
    unreadable                  → as a miss: replace it, once for all callers;
                                  of a newer version: load and do not fill
    the origin budget is used   → a value within `stale_if_error` of the caller, or the refusal
    the cache is out of reach   → load and do not fill, at most so many at a time

All of this runs on the caller's thread. Where the async flavour refreshes a stale value in the
background, here the one caller that got the lease refreshes it in its call, while all others are
answered at once. A thread of the client's own would be cheaper for that caller and wrong for its
loader: what loaders use is bound to the thread or greenlet of the request (database sessions,
application contexts), and at the end of the process a daemon thread is cut off in the middle.

The first read never waits for the fill of another holder: it shares its request with keys that
are hits, and one answer comes for all. Only keys that have to wait ask again, among themselves, in
short turns.

A lease is given back by every load that ends without a fill: its loader raised, it was torn out of
its call, or it brought a value that cannot be encoded or that the service refuses (`Right`). The
release is sent on a thread of its own (`releases.py`): no caller waits for one.

Why a value that was loaded without a lease is never filled, and why a newer version's values stay:
`cachesvc_client.aio.lookaside`.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from cachesvc_client.errors import CacheError, CodecError
from cachesvc_client.protocol.turns import SHORT_TURN
from cachesvc_client.protocol.wire import Got, Put, PutItem
from cachesvc_client.requests.early import EarlyLoads
from cachesvc_client.requests.fills import Right, fill_of, sealed_of
from cachesvc_client.requests.handed_tokens import Wanted, key_of
from cachesvc_client.sync import forks
from cachesvc_client.sync.flight import Brought, End, Failed, Flights, GaveUpError
from cachesvc_client.sync.intake import Intake
from cachesvc_client.sync.loading import Loader, Loads
from cachesvc_client.sync.together import ManyLoader, loaded
from cachesvc_client.tracing.spans import inner, tell_collapsed, tell_got
from cachesvc_client.values.codecs import Schema, UnreadableError
from cachesvc_client.values.context import ABSENT, Absent
from cachesvc_client.values.lifetimes import Lifetimes

V = TypeVar("V")

log = logging.getLogger(__name__)


class _Ask(NamedTuple, Generic[V]):
    """One call of `get_or_load`."""

    wanted: Wanted
    loader: Loader[V]
    lifetimes: Lifetimes
    deadline: float
    """The end of the caller's time on `time.monotonic`; a load that has begun is not given up."""

    @property
    def key(self) -> str:
        return key_of(self.wanted)


class _ManyLoads(NamedTuple, Generic[V]):
    """The keys of one call for many that are to be loaded."""

    rights: list[tuple[Wanted, Right]]
    """Each with the right to fill it."""
    unfilled: list[Wanted]


class LookAside(Generic[V]):
    """The reads of one namespace object that load what is missing."""

    def __init__(
        self,
        leases: Intake[Wanted, Got],
        waits: Intake[Wanted, Got],
        lease_over: Callable[[Sequence[Wanted], float], list[Got | CacheError]],
        puts: Intake[PutItem, Put],
        lease_all: Callable[[Sequence[Wanted], float], list[Got | CacheError]],
        put_all: Callable[[Sequence[PutItem], float], list[Put | CacheError]],
        give_back: Callable[[Right], None],
        delete: Callable[[str], object],
        stale_copy: Callable[[Wanted, float], Got],
        schema: Schema[V],
        loads: Loads,
        *,
        timeout: float,
    ) -> None:
        """`timeout`: the seconds of a call. `lease_over`: asks for leases, whatever is stored."""
        self._leases = leases
        self._waits = waits
        self._puts = puts
        self._lease_all = lease_all
        self._lease_over = lease_over
        self._put_all = put_all
        self._give_back = give_back
        self._delete = delete
        self._stale_copy = stale_copy
        self._schema = schema
        self._loads = loads
        self._timeout = timeout
        self.flights: Flights[V | Absent] = Flights()
        self.after_fork()
        forks.register(self)

    def after_fork(self) -> None:
        self._claim = threading.Lock()  # two threads that share an answer must not both take its lease
        self._early = EarlyLoads(time.monotonic)  # guarded by `_claim`

    def get_or_load(
        self, wanted: Wanted, loader: Loader[V], lifetimes: Lifetimes, timeout: float | None = None
    ) -> V | Absent:
        """Returns the value; `timeout` bounds the wait, and not a load that this caller has begun.

        Raises the loader's exception; `CacheError` if the cache refuses the request, and not if the
        cache is out of reach.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        ask = _Ask(wanted, loader, lifetimes, deadline)
        while True:
            flight = self.flights.get(wanted)
            if flight is not None:
                tell_collapsed()
            end = self._read(ask) if flight is None else flight.end(deadline)
            if isinstance(end, Failed):
                raise end.error
            if end is not None:
                return end.value

    # many keys at once ----------------------------------------------------------------------------

    def get_or_load_many(
        self,
        wanted: Sequence[Wanted],
        loader: ManyLoader[V],
        lifetimes: Lifetimes,
        timeout: float | None = None,
    ) -> list[V | Absent]:
        """Returns the values in the order of the keys, each of which is named once.

        One call of the loader has all keys that are missing. Those that another caller is loading are
        waited for behind it, one after the other. Raises as `get_or_load`.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        values: dict[Wanted, V | Absent] = {}
        alone = [one for one in wanted if self.flights.get(one) is not None]
        flying = set(alone)
        asked = [one for one in wanted if one not in flying]
        answers = self._lease_all(asked, min(self._timeout, max(0.0, deadline - time.monotonic())))
        loads = _ManyLoads[V]([], [])
        early: list[Wanted] = []
        try:
            for one, got in zip(asked, answers, strict=True):
                if isinstance(got, CacheError):
                    if not got.is_outage or time.monotonic() >= deadline:
                        raise got.copy()
                    (alone if got.forbids_load else loads.unfilled).append(one)
                    continue
                right = Right(key_of(one), got.claim_lease())
                if right.lease:
                    loads.rights.append((one, right))
                try:
                    if got.outcome != "miss":
                        values[one] = self._value_of(got)
                        if got.early and not right.lease and timeout is None:
                            early.append(one)
                        continue
                except UnreadableError as why:
                    if why.newer:  # it stays, and the value is loaded for its caller alone
                        self._give_back(right)
                    elif right.lease:
                        self._loads.count_unreadable(right.key, why)
                if not right.lease:
                    (loads.unfilled if got.unkept else alone).append(one)
            self._load_many(loads, loader, lifetimes, values)
        finally:
            for _, right in loads.rights:
                self._give_back(right)
        self._load_early(early, values, lambda due, found: self._load_many(due, loader, lifetimes, found))
        for one in alone:
            left = None if timeout is None else max(0.0, deadline - time.monotonic())
            values[one] = self.get_or_load(one, lambda key: loaded(loader, [key])[key], lifetimes, left)
        return [values[one] for one in wanted]

    def _load_many(
        self,
        loads: "_ManyLoads[V]",
        loader: ManyLoader[V],
        lifetimes: Lifetimes,
        values: dict[Wanted, V | Absent],
    ) -> None:
        """Loads all keys of `loads` into `values`; stale values stay if the loader fails."""
        rights = [(one, right) for one, right in loads.rights if right.lease]
        wanted = [*(one for one, _ in rights), *loads.unfilled]
        if not wanted:
            return
        overdue_at = time.monotonic() + self._timeout + self._loads.timeout
        flights = {
            one: self.flights.begin(one, overdue_at, anew=True)[0] for one, _ in rights if one not in values
        }
        try:
            brought = self._loads.run_many([key_of(one) for one in wanted], loader, leased=len(rights))
            sealed = {one: sealed_of(right, brought[right.key], self._schema) for one, right in rights}
            for one in wanted:
                seal = sealed.get(one)
                value = brought[key_of(one)]
                values[one] = (
                    self._answer(value) if one not in sealed else ABSENT if seal is None else seal.value
                )
            items = [
                fill_of(right, sealed[one], lifetimes, self._schema.content_type) for one, right in rights
            ]
            with inner("cache.set"):
                puts = self._put_all(items, self._timeout)
            for (_, right), put in zip(rights, puts, strict=True):
                right.filled(put)
                self._loads.count_fill(right.key, put)
        except Exception as error:
            for flight in flights.values():
                self.flights.end(flight, Failed(error))
            if isinstance(error, CodecError) or not all(one in values for one in wanted):
                raise
            log.debug("the refresh of %d keys failed: %r", len(wanted), error)
        finally:
            for one, flight in flights.items():
                if not flight.landed.is_set():
                    self.flights.end(flight, Brought(values[one]) if one in values else None)

    def _read(self, ask: _Ask[V]) -> End[V | Absent]:
        got = self._leases.join(ask.wanted, self._time_for(ask))
        if isinstance(got, CacheError):
            if not got.is_outage or time.monotonic() >= ask.deadline:
                raise got.copy()
            if got.forbids_load:
                return Brought(self._last_resort(ask, got.copy()))
            return self._flown(ask, Right(ask.key), lambda: self._load_unfilled(ask))
        right = Right(ask.key, self._lease_of(got))
        try:
            tell_got(got, lease=bool(right.lease))
            if got.outcome == "miss":
                return self._flown(ask, right, lambda: self._land(ask, right, got))
            try:
                value = self._value_of(got)
            except UnreadableError as unreadable:
                why = unreadable
                return self._flown(ask, right, lambda: self._replaced(ask, right, why))
            if got.early and not right.lease and ask.deadline == math.inf:  # else a hit could be late
                return Brought(self._early_value(ask, value))
            return Brought(self._refreshed(ask, right, value) if right.lease else value)
        finally:
            self._give_back(right)

    def _flown(self, ask: _Ask[V], right: Right, load: Callable[[], V | Absent]) -> End[V | Absent]:
        """Joins the flight of the key, or runs a new one.

        Always a new one if the caller has the lease: the flight to be joined may be waiting for just that
        lease.
        """
        longest = self._timeout + self._loads.lease_wait + self._loads.timeout
        flight, leads = self.flights.begin(ask.wanted, time.monotonic() + longest, anew=bool(right.lease))
        return self.flights.run(flight, load) if leads else flight.end(ask.deadline)

    def _time_for(self, ask: _Ask[V]) -> float:
        """The seconds of one read: those of the namespace at most, so that callers share requests."""
        return (
            self._timeout
            if ask.deadline == math.inf
            else min(self._timeout, max(0.0, ask.deadline - time.monotonic()))
        )

    def _lease_of(self, got: Got) -> str:
        with self._claim:
            return got.claim_lease()

    def _value_of(self, got: Got) -> V | Absent:
        """Raises `UnreadableError`."""
        return self._schema.decode(got.value, got.content_type) if got.is_found else ABSENT

    # the loads, in flight -------------------------------------------------------------------------

    def _land(self, ask: _Ask[V], right: Right, got: Got | None = None) -> V | Absent:
        """Answers a miss: loads with the lease, or waits for the fill of the lease's holder.

        `got` is the miss. If an instance was asked before and gave no answer, the lease may be one that
        it granted to nobody, so the wait is a call's time at most.
        """
        patience = time.monotonic() + self._loads.lease_wait
        while not right.lease:
            now = time.monotonic()
            if now >= ask.deadline:
                raise GaveUpError("deadline", f"nobody had loaded {ask.key!r} in time", retryable=True)
            if got is not None and got.is_moved:
                patience = min(patience, now + self._timeout)
            if got is not None and got.unkept:
                return self._answer(self._loads.run_unkept(ask.key, ask.loader, ask.lifetimes))
            if now >= patience:
                return self._load_unfilled(ask)
            answer = self._waits.join(ask.wanted, self._time_for(ask))
            if isinstance(answer, CacheError):
                if answer.forbids_load:
                    return self._last_resort(ask, answer.copy())
                return self._load_unfilled(ask)
            got = answer
            right.lease = self._lease_of(got)
            if got.outcome != "miss" and not right.lease:
                try:
                    return self._value_of(got)
                except UnreadableError:  # the holder stores values of another version
                    return self._load_unfilled(ask)
            if not right.lease and not got.unkept:
                time.sleep(max(0.0, now + SHORT_TURN - time.monotonic()))
        return self._load(ask, right)

    def _replaced(self, ask: _Ask[V], right: Right, why: UnreadableError) -> V | Absent:
        """Replaces a stored value that cannot be read: invalidates it, to get a lease, and loads."""
        self._loads.count_unreadable(ask.key, why)
        if why.newer:
            self._give_back(right)
            return self._load_unfilled(ask)
        got: Got | None = None
        if not right.lease:
            # An earlier flight may have replaced the value since it was read.
            again = self._leases.join(ask.wanted, self._time_for(ask))
            if isinstance(again, CacheError):
                if again.forbids_load:
                    return self._last_resort(ask, again.copy())
                return self._load_unfilled(ask)
            got = again
            right.lease = self._lease_of(got)
            if got.outcome != "miss" and not right.lease:
                try:
                    return self._value_of(got)
                except UnreadableError:
                    return self._invalidated(ask, right)
        return self._land(ask, right, got)

    def _invalidated(self, ask: _Ask[V], right: Right) -> V | Absent:
        try:
            self._delete(ask.key)
        except CacheError:
            return self._load_unfilled(ask)
        return self._land(ask, right)

    def _refreshed(self, ask: _Ask[V], right: Right, stale: V | Absent) -> V | Absent:
        """Loads outside a flight: other callers are answered with the stale value meanwhile."""
        try:
            return self._load(ask, right)
        except CodecError:  # it would fail each time, and the value would stay stale
            raise
        except Exception as error:  # noqa: BLE001  the loader is the caller's and may raise anything
            log.debug("the refresh of %r failed: %r", ask.key, error)
            return stale

    def _early_value(self, ask: _Ask[V], fresh: V | Absent) -> V | Absent:
        """Returns what an early load brings, or else the fresh value."""
        values = {ask.wanted: fresh}

        def load(due: _ManyLoads[V], found: dict[Wanted, V | Absent]) -> None:
            for one, right in due.rights:
                found[one] = self._stored(right, self._loads.run(ask.key, ask.loader, ask.lifetimes))

        self._load_early([ask.wanted], values, load)
        return values[ask.wanted]

    def _load_early(
        self,
        wanted: Sequence[Wanted],
        values: dict[Wanted, V | Absent],
        load: Callable[[_ManyLoads[V], dict[Wanted, V | Absent]], None],
    ) -> None:
        """Loads fresh values anew where the leases are granted; if that fails, `values` stay.

        The wait for the leases is a fourth of a call's time at most: the caller has its answer already.
        """
        with self._claim:
            due = [one for one in wanted if self._early.begin(key_of(one))]
        if not due:
            return
        rights: list[tuple[Wanted, Right]] = []
        is_filled = False
        try:
            for one, got in zip(due, self._lease_over(due, self._timeout / 4), strict=True):
                if not isinstance(got, CacheError) and (lease := self._lease_of(got)):
                    rights.append((one, Right(key_of(one), lease)))
            if rights:
                self._loads.count_early(len(rights))
                load(_ManyLoads(rights, []), values)
                is_filled = True
        except Exception as error:  # noqa: BLE001  the loader is the caller's and may raise anything
            level = logging.ERROR if isinstance(error, CodecError) else logging.DEBUG
            log.log(level, "the early load of %s failed: %r", [key_of(one) for one, _ in rights], error)
        finally:
            for _, right in rights:
                self._give_back(right)
            filled = {key_of(one) for one, _ in rights} if is_filled else set()
            with self._claim:
                for one in due:
                    self._early.end(key_of(one), is_filled=key_of(one) in filled)

    def _load(self, ask: _Ask[V], right: Right) -> V | Absent:
        try:
            brought = self._loads.run(ask.key, ask.loader, ask.lifetimes)
        except Exception as error:  # noqa: BLE001  the loader is the caller's and may raise anything
            return self._last_resort(ask, error)
        return self._stored(right, brought)

    def _stored(self, right: Right, brought: tuple[V | Absent, Lifetimes]) -> V | Absent:
        """Returns a loaded value as it is answered, after its fill was answered."""
        value, lifetimes = brought
        sealed = sealed_of(right, value, self._schema)
        item = fill_of(right, sealed, lifetimes, self._schema.content_type)
        with inner("cache.set"):
            filled = self._filled(item)
        right.filled(filled)
        self._loads.count_fill(right.key, filled)
        return ABSENT if sealed is None else sealed.value

    def _last_resort(self, ask: _Ask[V], error: Exception) -> V | Absent:
        """Returns the stale value that the caller takes for a failed load, or raises the failure."""
        if not ask.lifetimes.stale_if_error:
            raise error
        try:
            got = self._stale_copy(ask.wanted, ask.lifetimes.stale_if_error)
            value = self._value_of(got)
        except (CacheError, UnreadableError):
            raise error from None
        if not got.is_found:
            raise error
        self._loads.count_stood_in(ask.key, error)
        return value

    def _filled(self, item: PutItem) -> Put | CacheError:
        """The answer to a fill. A fill for which this client has no room fails like any other."""
        try:
            return self._puts.join(item, self._timeout, len(item.value))
        except CacheError as error:
            return error

    def _load_unfilled(self, ask: _Ask[V]) -> V | Absent:
        return self._answer(self._loads.run_without_cache(ask.key, ask.loader, ask.lifetimes))

    def _answer(self, value: V | Absent) -> V | Absent:
        """The answer of a load whose value is not stored: as if it were stored."""
        return value if value is ABSENT else self._schema.seal(value).value
