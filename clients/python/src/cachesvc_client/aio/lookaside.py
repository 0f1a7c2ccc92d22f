"""`get_or_load`: read a key, or be the one caller that loads it.

    fresh                       → answer
    stale, lease granted        → answer, and load in the background
    stale, lease held           → answer
    fresh, due early            → answer, and load in the background if the lease is granted
    known absent                → absent
    miss, lease granted         → load, fill with the lease, answer
    miss, lease held elsewhere  → wait for that fill; take over if its holder gives up;
                                  after too long: load and do not fill;
                                  values of the key cannot be kept: load at once, do not fill
    the load fails              → a value within `stale_if_error` of the caller, or the failure
    unreadable                  → as a miss: replace it, once for all callers;
                                  of a newer version: load and do not fill
    the origin budget is used   → a value within `stale_if_error` of the caller, or the refusal
    the cache is out of reach   → load and do not fill, at most so many at a time

The first read never waits for the fill of another holder: it shares its request with keys that
are hits, and one answer comes for all. Only keys that have to wait ask again, among themselves, in
short turns.

A lease is given back by every load that ends without a fill: its loader raised or took too long, it
was cancelled, or it brought a value that cannot be encoded or that the service refuses (`Right`).
Releases share requests with fills. No caller waits for one, or is told that one failed.

A value that was loaded without a lease is never filled: it might be older than an invalidation, and
nobody would check it against that.

A loaded value is answered as it is decoded from the bytes that are stored (`codecs.py`), also if it
is not stored: hit or miss, callers get the same.

In a rolling deploy the values of the newer version stay. If the older version replaced them too,
the two would take turns at every key, and each turn costs an invalidation and a load.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Generic, TypeVar, cast

from cachesvc_client.aio.flight import Flights, landed, log_failure
from cachesvc_client.aio.intake import Intake
from cachesvc_client.aio.loading import Loaded, Loader, Loads
from cachesvc_client.aio.tasks import Tasks
from cachesvc_client.aio.together import ManyLoader, Together
from cachesvc_client.errors import CacheError
from cachesvc_client.protocol.turns import SHORT_TURN
from cachesvc_client.protocol.wire import Got, Put, PutItem
from cachesvc_client.requests.early import EarlyLoads
from cachesvc_client.requests.fills import Right, fill_of, sealed_of
from cachesvc_client.requests.handed_tokens import Wanted, key_of
from cachesvc_client.tracing.spans import inner, tell_collapsed, tell_got
from cachesvc_client.values.codecs import Schema, UnreadableError
from cachesvc_client.values.context import ABSENT, Absent
from cachesvc_client.values.lifetimes import Lifetimes

V = TypeVar("V")
Answer = TypeVar("Answer")


class LookAside(Generic[V]):
    """The reads of one namespace object that load what is missing."""

    def __init__(
        self,
        leases: Intake[Wanted, Got],
        waits: Intake[Wanted, Got],
        lease_over: Callable[[Sequence[Wanted]], Awaitable[list[Got | CacheError]]],
        puts: Intake[PutItem, Put],
        give_back: Callable[[Right], None],
        delete: Callable[[str], Awaitable[object]],
        stale_copy: Callable[[Wanted, float], Awaitable[Got]],
        schema: Schema[V],
        loads: Loads,
        *,
        timeout: float,
        tasks: Tasks,
    ) -> None:
        """`timeout`: the seconds of a call. `lease_over`: asks for leases, whatever is stored."""
        self._leases = leases
        self._waits = waits
        self._lease_over = lease_over
        self._early = EarlyLoads(time.monotonic)
        self._puts = puts
        self._give_back = give_back
        self._delete = delete
        self._stale_copy = stale_copy
        self._schema = schema
        self._loads = loads
        self._timeout = timeout
        self._running = tasks.loads
        self.flights: Flights[V | Absent] = Flights(tasks.loads)

    async def get_or_load(
        self, wanted: Wanted, loader: Loader[V], lifetimes: Lifetimes, timeout: float | None = None
    ) -> V | Absent:
        """Returns the value, in `timeout` seconds if given; the load goes on when they are over.

        Raises the loader's exception; `CacheError` if the cache refuses the request, and not if the
        cache is out of reach.
        """
        return await _within(timeout, self._read_or_load(wanted, loader, lifetimes))

    async def get_or_load_many(
        self,
        wanted: Sequence[Wanted],
        loader: ManyLoader[V],
        lifetimes: Lifetimes,
        timeout: float | None = None,
    ) -> list[V | Absent]:
        """Returns the values in the order of the keys, each of which is named once.

        All answers are waited for before a load begins, so that one call of the loader has all keys
        that are missing. Raises as `get_or_load`.
        """
        return await _within(
            timeout, self._read_or_load_many(wanted, Together(loader, self._running), lifetimes)
        )

    async def _read_or_load_many(
        self, wanted: Sequence[Wanted], loader: Together[V], lifetimes: Lifetimes
    ) -> list[V | Absent]:
        loop = asyncio.get_running_loop()
        asking = {
            one: loop.create_task(self._answer_of(self._leases, one))
            for one in wanted
            if self.flights.get(one) is None
        }
        try:
            if asking:
                await asyncio.wait(asking.values())
        except asyncio.CancelledError:
            for one, task in asking.items():
                if not task.cancel() and not task.cancelled() and task.exception() is None:
                    self._give_back_unclaimed(one, task.result())
            raise
        early: list[Wanted] = []
        ends = await asyncio.gather(
            *[
                self._answered(one, asking[one].result(), loader, lifetimes, early)
                if one in asking
                else self._read_or_load(one, loader, lifetimes)
                for one in wanted
            ],
            return_exceptions=True,
        )
        self._load_early(early, loader, lifetimes)
        for end in ends:
            if isinstance(end, BaseException):
                raise end
        return cast(list[V | Absent], ends)

    async def _read_or_load(self, wanted: Wanted, loader: Loader[V], lifetimes: Lifetimes) -> V | Absent:
        flight = self.flights.get(wanted)
        if flight is not None:
            tell_collapsed()
            return await landed(flight)
        got = await self._answer_of(self._leases, wanted)
        return await self._answered(wanted, got, loader, lifetimes)

    async def _answered(
        self,
        wanted: Wanted,
        got: Got | CacheError,
        loader: Loader[V],
        lifetimes: Lifetimes,
        early: list[Wanted] | None = None,
    ) -> V | Absent:
        """Returns the value of an answer, or loads it.

        A key that is due early is added to `early`, or its load is begun if `early` is None.
        """
        if isinstance(got, CacheError):
            if not got.is_outage:
                raise got.copy()
            if got.forbids_load:
                return await self._last_resort(wanted, lifetimes, got.copy())
            nothing = Right(key_of(wanted))
            return await landed(
                self._flown(wanted, nothing, lambda: self._load_unfilled(wanted, loader, lifetimes))
            )
        right = Right(key_of(wanted), got.claim_lease())
        tell_got(got, lease=bool(right.lease))
        if got.outcome == "miss":
            return await landed(
                self._flown(wanted, right, lambda: self._land(wanted, right, loader, lifetimes, got))
            )
        try:
            value = self._value_of(got)
        except UnreadableError as unreadable:
            why = unreadable
            return await landed(
                self._flown(wanted, right, lambda: self._replace(wanted, right, loader, lifetimes, why))
            )
        if right.lease:
            self._flown(wanted, right, lambda: self._load(wanted, right, loader, lifetimes))
        elif got.early and early is None:
            self._load_early([wanted], loader, lifetimes)
        elif got.early and early is not None:
            early.append(wanted)
        return value

    def _load_early(self, wanted: Sequence[Wanted], loader: Loader[V], lifetimes: Lifetimes) -> None:
        """Has fresh values loaded anew, behind their callers, where the leases are granted.

        No caller joins such a load or is told of its failure: the fresh value is an answer meanwhile.
        """
        due = [one for one in wanted if self._early.begin(key_of(one))]
        if not due:
            return
        filled: set[str] = set()

        def ended(load: asyncio.Task[None]) -> None:  # also of one that was cancelled before it began
            self._running.discard(load)
            for one in due:
                self._early.end(key_of(one), is_filled=key_of(one) in filled)

        load = asyncio.create_task(self._load_due(due, loader, lifetimes, filled), name="early cache load")
        self._running.add(load)
        load.add_done_callback(ended)

    async def _load_due(
        self, due: list[Wanted], loader: Loader[V], lifetimes: Lifetimes, filled: set[str]
    ) -> None:
        rights: list[Right] = []

        async def load(right: Right) -> None:
            try:
                await self._stored(right, await self._loads.run(right.key, loader, lifetimes))
                filled.add(right.key)
            except Exception as error:  # noqa: BLE001  the loader is the caller's and may raise anything
                log_failure(right.key, error)

        try:
            answers = await self._lease_over(due)
            rights += [
                Right(key_of(one), got.claim_lease())
                for one, got in zip(due, answers, strict=True)
                if not isinstance(got, CacheError)
            ]
            self._loads.early += sum(bool(right.lease) for right in rights)
            await asyncio.gather(*[load(right) for right in rights if right.lease])
        finally:
            for right in rights:
                self._give_back(right)

    async def _answer_of(self, intake: Intake[Wanted, Got], wanted: Wanted) -> Got | CacheError:
        """The answer to a read that asks for the lease.

        If the caller is cancelled while the answer waits for its turn of the loop, the lease in it is
        given back, unless another caller of the same answer claims it in this tick.
        """
        order = intake.join(wanted, self._timeout)
        try:
            return await order
        except asyncio.CancelledError:
            if isinstance(order, asyncio.Future) and order.done() and not order.cancelled():
                asyncio.get_running_loop().call_soon(self._give_back_unclaimed, wanted, order.result())
            raise

    def _give_back_unclaimed(self, wanted: Wanted, got: Got | CacheError) -> None:
        if not isinstance(got, CacheError):
            self._give_back(Right(key_of(wanted), got.claim_lease()))

    def _flown(
        self, wanted: Wanted, right: Right, load: Callable[[], Coroutine[Any, Any, V | Absent]]
    ) -> asyncio.Task[V | Absent]:
        """The flight of the key: the running one, or a new one if this caller has the lease.

        The running one may be waiting for just that lease. However the flight ends, even before it
        has begun, what is left of its right is given back.
        """
        flight = self.flights.start(wanted, load, anew=bool(right.lease))
        flight.add_done_callback(lambda _: self._give_back(right))
        return flight

    def _value_of(self, got: Got) -> V | Absent:
        return self._schema.decode(got.value, got.content_type) if got.is_found else ABSENT

    async def _land(
        self, wanted: Wanted, right: Right, loader: Loader[V], lifetimes: Lifetimes, got: Got | None = None
    ) -> V | Absent:
        """Answers a miss: loads with the lease, or waits for the fill of the lease's holder.

        `got` is the miss. If an instance was asked before and gave no answer, the lease may be one that
        it granted to nobody, so the wait is a call's time at most.
        """
        loop = asyncio.get_running_loop()
        patience = loop.time() + self._loads.lease_wait
        while not right.lease:
            if got is not None and got.is_moved:
                patience = min(patience, loop.time() + self._timeout)
            if got is not None and got.unkept:
                return self._answer((await self._loads.run_unkept(right.key, loader, lifetimes)).value)
            if loop.time() >= patience:
                return await self._load_unfilled(wanted, loader, lifetimes)
            turn_ends = loop.time() + SHORT_TURN
            answer = await self._answer_of(self._waits, wanted)
            if isinstance(answer, CacheError):
                if answer.forbids_load:
                    return await self._last_resort(wanted, lifetimes, answer.copy())
                return await self._load_unfilled(wanted, loader, lifetimes)
            got = answer
            right.lease = got.claim_lease()
            if got.outcome != "miss" and not right.lease:
                try:
                    return self._value_of(got)
                except UnreadableError:  # the holder stores values of another version
                    return await self._load_unfilled(wanted, loader, lifetimes)
            if not right.lease and not got.unkept:
                await asyncio.sleep(turn_ends - loop.time())
        return await self._load(wanted, right, loader, lifetimes)

    async def _replace(
        self, wanted: Wanted, right: Right, loader: Loader[V], lifetimes: Lifetimes, why: UnreadableError
    ) -> V | Absent:
        """Replaces a stored value that cannot be read: invalidates it, to get a lease, and loads."""
        self._loads.count_unreadable(right.key, why)
        if why.newer:
            self._give_back(right)
            return await self._load_unfilled(wanted, loader, lifetimes)
        if not right.lease:
            try:
                await self._delete(key_of(wanted))
            except CacheError:
                return await self._load_unfilled(wanted, loader, lifetimes)
        return await self._land(wanted, right, loader, lifetimes)

    async def _load(
        self, wanted: Wanted, right: Right, loader: Loader[V], lifetimes: Lifetimes
    ) -> V | Absent:
        try:
            loaded = await self._loads.run(right.key, loader, lifetimes)
        except Exception as error:  # noqa: BLE001  the loader is the caller's and may raise anything
            return await self._last_resort(wanted, lifetimes, error)
        return await self._stored(right, loaded)

    async def _stored(self, right: Right, loaded: Loaded[V]) -> V | Absent:
        """Returns a loaded value as it is answered, after its fill was answered."""
        value, lifetimes = loaded
        sealed = sealed_of(right, value, self._schema)
        item = fill_of(right, sealed, lifetimes, self._schema.content_type)
        with inner("cache.set"):
            filled = await self._filled(item)
        right.filled(filled)
        self._loads.count_fill(right.key, filled)
        return ABSENT if sealed is None else sealed.value

    async def _last_resort(self, wanted: Wanted, lifetimes: Lifetimes, error: Exception) -> V | Absent:
        """Returns the stale value that the caller takes for a failed load, or raises the failure."""
        if not lifetimes.stale_if_error:
            raise error
        try:
            got = await self._stale_copy(wanted, lifetimes.stale_if_error)
            value = self._value_of(got)
        except (CacheError, UnreadableError):
            raise error from None
        if not got.is_found:
            raise error
        self._loads.count_stood_in(key_of(wanted), error)
        return value

    async def _filled(self, item: PutItem) -> Put | CacheError:
        """The answer to a fill. A fill for which this client has no room fails like any other."""
        try:
            return await self._puts.join(item, self._timeout, len(item.value))
        except CacheError as error:
            return error

    async def _load_unfilled(self, wanted: Wanted, loader: Loader[V], lifetimes: Lifetimes) -> V | Absent:
        value, _ = await self._loads.run_without_cache(key_of(wanted), loader, lifetimes)
        return self._answer(value)

    def _answer(self, value: V | Absent) -> V | Absent:
        """The answer of a load whose value is not stored: as if it were stored."""
        return value if value is ABSENT else self._schema.seal(value).value


async def _within(timeout: float | None, call: Awaitable[Answer]) -> Answer:
    if timeout is None:
        return await call
    try:
        async with asyncio.timeout(timeout) as limit:
            return await call
    except TimeoutError as error:
        if not limit.expired():  # the loader's own
            raise
        raise CacheError("deadline", f"no answer within {timeout:g} s", retryable=True) from error
