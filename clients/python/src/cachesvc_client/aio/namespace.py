# ruff: noqa: ASYNC109  the timeout of a call ends in CacheError, and is cheaper than a timer around each
"""One team's part of the cache, with one type of values."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Generic, ParamSpec, TypeVar, overload

from cachesvc_client.aio.batching import Batcher, Intake, OneByOne, Spread, SpreadBatches
from cachesvc_client.aio.cached import CachedFunction
from cachesvc_client.aio.calls import Calls
from cachesvc_client.aio.flight import Airspace
from cachesvc_client.aio.loading import Loader, Loads
from cachesvc_client.aio.lookaside import LookAside
from cachesvc_client.aio.slow_lane import SlowLane
from cachesvc_client.errors import CacheError, PartialError
from cachesvc_client.instances.endpoints import Endpoint
from cachesvc_client.near.near import NOTHING, Near, Shelf
from cachesvc_client.protocol.batch_limits import MAX_SLOW_DELAY
from cachesvc_client.protocol.names import check_key, checked_keys
from cachesvc_client.protocol.turns import WAIT_TURN
from cachesvc_client.protocol.wire import Got, Invalidation, Put, PutItem, Receipt, Wait
from cachesvc_client.requests.changes import invalidation_of
from cachesvc_client.requests.handed_tokens import Handed, Wanted
from cachesvc_client.tracing.spans import Spans, tell_got
from cachesvc_client.values.codecs import Schema, UnreadableError
from cachesvc_client.values.context import ABSENT
from cachesvc_client.values.durations import Duration, positive_seconds_of, seconds_of
from cachesvc_client.values.lifetimes import Lifetimes, lifetimes_of
from cachesvc_client.values.lookups import Hit, Lookup, Miss, Unavailable, etag_of
from cachesvc_client.values.templates import Naming

V = TypeVar("V")
D = TypeVar("D")
R = TypeVar("R")
T = TypeVar("T")
Item = TypeVar("Item", bound=Hashable)
Answer = TypeVar("Answer")
P = ParamSpec("P")
Answered = TypeVar("Answered", Got, Put)


class Namespace(Generic[V]):
    """Made by `Cache.namespace`.

    Every call ends within the namespace's timeout with an answer or a `CacheError`; a call's own `timeout` can only shorten
    it. Keys, tags and durations out of rule raise `ValueError` before anything is sent. A cancelled read has no effect; a
    cancelled write may or may not have happened. Neither touches what other callers asked for at the same time. A stored value
    of another schema version or type is a miss.
    """

    def __init__(
        self,
        calls: Calls,
        schema: Schema[V],
        loads: Loads,
        handed: Handed,
        airspace: Airspace,
        near: Near,
        shelf: Shelf | None,
        spans: Spans,
        *,
        timeout: float,
        batching: bool,
        batch_tasks: set[asyncio.Task[None]],
        load_tasks: set[asyncio.Task[Any]],
    ) -> None:
        self.name = calls.namespace
        self._calls = calls
        self._schema = schema
        self._loads = loads
        self._handed = handed
        self._airspace = airspace
        self._near = near
        self._shelf = shelf
        self._spans = spans
        self._timeout = timeout
        waiting = partial(calls.lease, wait=min(WAIT_TURN, timeout / 2))
        together = partial(_together, timeout=timeout, tasks=batch_tasks)
        reading = partial(_reading, calls, timeout=timeout, tasks=batch_tasks)
        self._read_batches: SpreadBatches[Endpoint, Wanted, Got] = SpreadBatches(
            calls.home, calls.by_home, reading
        )
        self._put_batches: Intake[PutItem, Put] = Spread(calls.home_of_item, together(calls.put))
        waits: Intake[Wanted, Got] = Spread(calls.home, together(waiting))
        if batching:
            self._reads: Intake[Wanted, Got] = self._read_batches
            self._puts = self._put_batches
            leases: Intake[Wanted, Got] = Spread(calls.home, together(calls.lease))
        else:
            alone = partial(_one_by_one, timeout=timeout)
            self._reads = Spread(calls.home, alone(calls.read_alone))
            self._puts = Spread(calls.home_of_item, alone(calls.put))
            leases = Spread(calls.home, alone(calls.lease))
        self._look_aside = LookAside(leases, waits, self._puts, self._purge, schema, loads, load_tasks)
        airspace.add(self._look_aside.flights)

    def __repr__(self) -> str:
        return f"<Namespace {self.name}>"

    @property
    def near(self) -> Shelf | None:
        """The near cache of this object, if it has one: `near.statistics()`."""
        return self._shelf

    # reading --------------------------------------------------------------------------------------------------------

    @overload
    async def get(self, key: str, default: None = None, *, timeout: Duration | None = None) -> V | None: ...
    @overload
    async def get(self, key: str, default: D, *, timeout: Duration | None = None) -> V | D: ...
    async def get(self, key: str, default: Any = None, *, timeout: Duration | None = None) -> Any:
        """The value, or `default` on a miss. Calls of one moment share a request."""
        shelf = self._shelf
        if shelf is not None and (value := shelf.value(key)) is not NOTHING:
            return default if value is ABSENT else value
        check_key(key)
        if timeout is not None:
            return await _within(positive_seconds_of(timeout, "timeout"), self.get(key, default))
        with self._spans.call("cache.get", self.name):
            got = _answered(await self._reads.join(self._handed.wanted(key)))
        if not got.is_found:
            return default
        try:
            return self._schema.decode(got.value, got.content_type)
        except UnreadableError:
            self._loads.unreadable += 1
            return default

    async def lookup(self, key: str, *, timeout: Duration | None = None) -> Lookup[V]:
        """`get`, with what is known about the value. That the cache cannot be asked is an answer here, and no exception; what it
        refuses is raised.
        """
        check_key(key)
        got = self._shelf.got(key) if self._shelf is not None else None
        try:
            got = got or await self._asked(key, timeout)
        except CacheError as error:
            if not error.is_outage:
                raise
            return Unavailable(error)
        if not got.is_found:
            return Miss("absent" if got.outcome == "absent" else "miss")
        try:
            value = self._schema.decode(got.value, got.content_type)
        except UnreadableError:
            self._loads.unreadable += 1
            return Miss("unreadable")
        return Hit(
            value,
            got.tier,
            got.age,
            got.ttl,
            got.outcome == "stale",
            got.lag,
            etag_of(got.value, got.content_type),
        )

    async def _asked(self, key: str, timeout: Duration | None) -> Got:
        """With all that a batch says of a key, also where single reads are sent alone."""
        if timeout is not None:
            return await _within(positive_seconds_of(timeout, "timeout"), self._asked(key, None))
        with self._spans.call("cache.get", self.name):
            return _answered(await self._read_batches.join(self._handed.wanted(key)))

    async def get_many(self, keys: Iterable[str], *, timeout: Duration | None = None) -> dict[str, V]:
        """The values that were found. `PartialError` if some keys failed; it has what the others brought."""
        if timeout is not None:
            return await _within(positive_seconds_of(timeout, "timeout"), self.get_many(keys))
        found, missing = self._held(checked_keys(keys))
        keys = list(dict.fromkeys(missing))
        with self._spans.call("cache.get", self.name, items=len(keys)):
            answers = await self._read_batches.join_all(self._handed.all_wanted(keys))
        decode = self._schema.decode
        failed: dict[str, CacheError] = {}
        for key, got in zip(keys, answers, strict=True):
            try:
                if isinstance(got, CacheError):
                    failed[key] = got.copy()
                elif got.is_found:
                    found[key] = decode(got.value, got.content_type)
            except UnreadableError:
                self._loads.unreadable += 1
        if failed:
            raise PartialError(failed, found)
        return found

    def _held(self, keys: list[str]) -> tuple[dict[str, V], list[str]]:
        """What the near cache has of these, and what is to be asked for."""
        shelf = self._shelf
        if shelf is None:
            return {}, keys
        values = {key: shelf.value(key) for key in keys}
        found = {key: value for key, value in values.items() if value is not NOTHING and value is not ABSENT}
        return found, [key for key, value in values.items() if value is NOTHING]

    @overload
    async def get_or_load(
        self,
        key: str,
        loader: Loader[V],
        *,
        ttl: Duration | None = None,
        stale: Duration | None = None,
        tags: Iterable[str] = (),
        default: None = None,
        timeout: Duration | None = None,
    ) -> V | None: ...
    @overload
    async def get_or_load(
        self,
        key: str,
        loader: Loader[V],
        *,
        ttl: Duration | None = None,
        stale: Duration | None = None,
        tags: Iterable[str] = (),
        default: D,
        timeout: Duration | None = None,
    ) -> V | D: ...
    async def get_or_load(
        self,
        key: str,
        loader: Loader[V],
        *,
        ttl: Duration | None = None,
        stale: Duration | None = None,
        tags: Iterable[str] = (),
        default: Any = None,
        timeout: Duration | None = None,
    ) -> Any:
        """The value, loaded by `await loader(key)` and stored if nobody has it; `default` if it is (or loads as) `ABSENT`.

        A loader with a parameter named `ctx` is given the `LoadContext` instead of the key. One load per key in this process, one
        lease per key anywhere; the arguments of the caller that starts the load count, and all its callers get the same object.
        `timeout` bounds this caller's wait and not the load, which has the cache's `load_timeout`. What the loader raises is
        raised here. With the cache out of reach the loader runs all the same, `max_loads_without_cache` at a time. A stored value
        of another type or an earlier version is replaced; one of a later version is loaded past, and stays.
        """
        shelf = self._shelf
        if shelf is not None and (held := shelf.value(key)) is not NOTHING:
            return default if held is ABSENT else held
        check_key(key)
        if timeout is not None:
            return await _within(
                positive_seconds_of(timeout, "timeout"),
                self.get_or_load(key, loader, ttl=ttl, stale=stale, tags=tags, default=default),
            )
        lifetimes = lifetimes_of(ttl, stale, None, tags)
        with self._spans.call("cache.get_or_load", self.name):
            value = await self._look_aside.get_or_load(self._handed.wanted(key), loader, lifetimes)
        return default if value is ABSENT else value

    def cached(
        self,
        key: str,
        *,
        ttl: Duration | None = None,
        stale: Duration | None = None,
        tags: Iterable[str] = (),
        ignore: Iterable[str] = (),
    ) -> Callable[[Callable[P, Awaitable[R]]], CachedFunction[P, R]]:
        """Answer an async function from this namespace. `key` and `tags` are templates over its parameters: `profile:{user_id}`.

        Every parameter is in the key, or named in `ignore` (no result depends on it), or is `self`, `cls` or `ctx`: else two
        different calls would have one answer. Raises `ValueError` when the function is decorated.
        """
        ttl_seconds = None if ttl is None else seconds_of(ttl, "ttl")
        stale_seconds = None if stale is None else seconds_of(stale, "stale")

        def decorate(function: Callable[P, Awaitable[R]]) -> CachedFunction[P, R]:
            return CachedFunction(
                self, function, Naming(function, key, tags, ignore), ttl=ttl_seconds, stale=stale_seconds
            )

        return decorate

    # writing --------------------------------------------------------------------------------------------------------

    async def set(
        self,
        key: str,
        value: V,
        *,
        ttl: Duration | None = None,
        stale: Duration | None = None,
        stale_if_error: Duration | None = None,
        tags: Iterable[str] = (),
        timeout: Duration | None = None,
    ) -> None:
        """Invalidate the key and store the value, in one step. That the value is current is up to the caller: what was read
        from a source that others write belongs into `get_or_load`. Durations left out are the namespace's.
        """
        check_key(key)
        if timeout is not None:
            return await _within(
                positive_seconds_of(timeout, "timeout"),
                self.set(key, value, ttl=ttl, stale=stale, stale_if_error=stale_if_error, tags=tags),
            )
        item = self._item(key, value, lifetimes_of(ttl, stale, stale_if_error, tags))
        try:
            with self._spans.call("cache.set", self.name):
                _answered(await self._puts.join(item, len(item.value)))
        finally:
            self._forget([key])
        return None

    async def set_many(
        self,
        values: Mapping[str, V],
        *,
        ttl: Duration | None = None,
        stale: Duration | None = None,
        stale_if_error: Duration | None = None,
        tags: Iterable[str] = (),
        timeout: Duration | None = None,
    ) -> None:
        """`set` for many. `PartialError` if some keys failed; the others are stored."""
        checked_keys(values)
        if timeout is not None:
            return await _within(
                positive_seconds_of(timeout, "timeout"),
                self.set_many(values, ttl=ttl, stale=stale, stale_if_error=stale_if_error, tags=tags),
            )
        lifetimes = lifetimes_of(ttl, stale, stale_if_error, tags)
        items = [self._item(key, value, lifetimes) for key, value in values.items()]
        try:
            with self._spans.call("cache.set", self.name, items=len(items)):
                orders = [self._put_batches.join(item, len(item.value)) for item in items]
                puts = {item.key: await order for item, order in zip(items, orders, strict=True)}
        finally:
            self._forget(list(values))
        if failed := {key: put.copy() for key, put in puts.items() if isinstance(put, CacheError)}:
            raise PartialError(failed, {})
        return None

    def _item(self, key: str, value: V, lifetimes: Lifetimes) -> PutItem:
        return lifetimes.item(key, self._schema.encode(value), self._schema.content_type)

    async def touch(
        self,
        key: str,
        *,
        ttl: Duration | None = None,
        stale: Duration | None = None,
        stale_if_error: Duration | None = None,
        timeout: Duration | None = None,
    ) -> bool:
        """Let the stored value live anew, for these durations (left out: the namespace's). False if there is no fresh one.

        There is no call for this: the value is read and stored once more, if it is still the stored one by then (`If-Match`).
        So a touch costs a read and a write of the whole value, and it invalidates: every reader of the moment goes to the home
        cell. It never brings back what was invalidated, except softly and at that very moment.
        """
        check_key(key)
        lifetimes = lifetimes_of(ttl, stale, stale_if_error)
        deadline = self._deadline(timeout)
        got = await self._asked(key, timeout)
        if got.outcome not in ("hit", "loaded"):
            return False
        try:
            with self._spans.call("cache.set", self.name):
                return await self._calls.touch(key, got, lifetimes, deadline)
        finally:
            self._forget([key])

    # invalidating ---------------------------------------------------------------------------------------------------

    async def invalidate(
        self,
        keys: Iterable[str] = (),
        *,
        tags: Iterable[str] = (),
        all: bool = False,  # noqa: A002  the protocol's word
        confirm: str = "",
        soft: bool = False,
        over: Duration | None = None,
        wait: Wait = "none",
        timeout: Duration | None = None,
    ) -> Receipt:
        """Say that these changed, after the change was committed. No read of this client that starts afterwards is answered
        with what was loaded before; `soft`: it may be, as stale, while it is being loaded anew.

        `all`: the whole namespace, to be confirmed with its name. `over`: a big purge without a herd; copies become stale one
        after the other within this time. `wait`: return when every live instance of the region (`region`), or of all regions
        (`global`), has merged it: then no reader there, with or without a token, gets what was loaded before. If that is not so
        within the timeout, the receipt's `reached` is false and `missing` says who.
        """
        asked = invalidation_of(
            self.name, keys, tags=tags, all=all, confirm=confirm, soft=soft, over=over, wait=wait
        )
        return await self.send(asked, timeout=timeout)

    async def send(self, asked: Invalidation, *, timeout: Duration | None = None) -> Receipt:
        """`invalidate`, as a document: one of a transaction that could not be sent, for instance."""
        try:
            with self._spans.call("cache.invalidate", self.name):
                return await self._calls.invalidate(asked, self._deadline(timeout))
        finally:
            if not asked.is_lenient:
                self._forget(asked.keys, asked.tags, everything=asked.all)

    async def delete(self, key: str, *, timeout: Duration | None = None) -> Receipt:
        """`invalidate` for one key."""
        check_key(key)
        try:
            with self._spans.call("cache.invalidate", self.name):
                return await self._calls.delete(key, self._deadline(timeout))
        finally:
            self._forget([key])

    def _forget(self, keys: list[str], tags: Iterable[str] = (), *, everything: bool = False) -> None:
        """What was there before a write; also after its failure, as it may have been applied all the same."""
        self._airspace.forget(keys, wide=bool(tags) or everything)
        self._near.drop(self.name, keys, tags, everything=everything)

    async def _purge(self, key: str) -> Receipt:
        """`delete`, from inside the flight of the key, which is not to be forgotten for it."""
        return await self._calls.delete(key, self._deadline(None))

    def _deadline(self, timeout: Duration | None) -> float:
        seconds = (
            self._timeout if timeout is None else min(self._timeout, positive_seconds_of(timeout, "timeout"))
        )
        return asyncio.get_running_loop().time() + seconds


def _answered(answer: Answered | CacheError) -> Answered:
    if isinstance(answer, CacheError):
        raise answer.copy()  # the others that it concerns raise one of their own
    if isinstance(answer, Got):
        tell_got(answer)
    return answer


def _together(
    send: Callable[[Endpoint, list[Item], float], Awaitable[Sequence[Answer | CacheError]]],
    *,
    timeout: float,
    tasks: set[asyncio.Task[None]],
) -> Callable[[Endpoint], Intake[Item, Answer]]:
    return lambda home: Batcher(partial(send, home), timeout=timeout, tasks=tasks)


def _reading(
    calls: Calls, home: Endpoint, *, timeout: float, tasks: set[asyncio.Task[None]]
) -> Batcher[Wanted, Got]:
    turns: Batcher[Wanted, Got] = Batcher(
        partial(calls.read_slow, home), timeout=timeout, tasks=tasks, max_delay=MAX_SLOW_DELAY
    )
    read = partial(calls.read, home)
    return Batcher(read, timeout=timeout, tasks=tasks, slow_lane=SlowLane(turns, read, tasks))


def _one_by_one(
    send: Callable[[Endpoint, list[Item], float], Awaitable[Sequence[Answer | CacheError]]], *, timeout: float
) -> Callable[[Endpoint], Intake[Item, Answer]]:
    return lambda home: OneByOne(partial(send, home), timeout=timeout)


async def _within(seconds: float, call: Awaitable[T]) -> T:
    """The call's answer, if it comes in time."""
    try:
        async with asyncio.timeout(seconds) as limit:
            return await call
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise CacheError("deadline", f"no answer within {seconds:g} s", retryable=True) from error
