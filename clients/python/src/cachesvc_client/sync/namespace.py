"""One team's part of the cache, with one type of values, for threads."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Generic, ParamSpec, TypeVar, overload

from cachesvc_client.errors import CacheError, PartialError
from cachesvc_client.instances.endpoints import Endpoint
from cachesvc_client.near.near import NOTHING, Near, Shelf
from cachesvc_client.protocol.batch_limits import MAX_ITEMS, MAX_WEIGHT
from cachesvc_client.protocol.names import check_key, checked_keys
from cachesvc_client.protocol.turns import SLOW_TURN, WAIT_TURN, first_turn, is_late
from cachesvc_client.protocol.wire import Got, Invalidation, Put, PutItem, Receipt, Wait
from cachesvc_client.requests.changes import invalidation_of
from cachesvc_client.requests.handed_tokens import Handed, Wanted, key_of
from cachesvc_client.sync.batching import Batcher, Intake, OneByOne, Spread
from cachesvc_client.sync.cached import CachedFunction
from cachesvc_client.sync.calls import Calls
from cachesvc_client.sync.flight import Airspace
from cachesvc_client.sync.loading import Loader, Loads
from cachesvc_client.sync.lookaside import LookAside
from cachesvc_client.sync.slow_lane import Patience, SlowLane
from cachesvc_client.tracing.spans import Spans, tell_got
from cachesvc_client.values.codecs import Schema, UnreadableError
from cachesvc_client.values.context import ABSENT
from cachesvc_client.values.durations import Duration, positive_seconds_of, seconds_of
from cachesvc_client.values.lifetimes import Lifetimes, lifetimes_of
from cachesvc_client.values.lookups import Hit, Lookup, Miss, Unavailable, etag_of
from cachesvc_client.values.templates import Naming

V = TypeVar("V")
D = TypeVar("D")
I = TypeVar("I")  # noqa: E741  an item
A = TypeVar("A")
R = TypeVar("R")
P = ParamSpec("P")
Answered = TypeVar("Answered", Got, Put)


class Namespace(Generic[V]):
    """Made by `Cache.namespace`. What its methods mean is said in `cachesvc_client.Namespace`, for both flavours.

    Every call ends within the namespace's timeout with an answer or a `CacheError`; a call's own `timeout` can only shorten
    it. Calls with equal timeouts share requests: give the usual one to the namespace. Keys, tags and durations out of rule raise
    `ValueError` before anything is sent. May be used by any number of threads, or of greenlets where gevent has patched
    `threading`, `socket` and `time`.
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
        waits: Intake[Wanted, Got] = Spread(calls.home, _together(waiting))
        self._look_ups: Intake[Wanted, Got] = Spread(calls.home, partial(_reading, calls))
        if batching:
            self._reads = self._look_ups
            self._puts: Intake[PutItem, Put] = Spread(calls.home_of_item, _together(calls.put))
            leases: Intake[Wanted, Got] = Spread(calls.home, _together(calls.lease))
        else:
            self._reads = Spread(calls.home, _one_by_one(calls.read_alone))
            self._puts = Spread(calls.home_of_item, _one_by_one(calls.put))
            leases = Spread(calls.home, _one_by_one(calls.lease))
        self._look_aside = LookAside(leases, waits, self._puts, self._purge, schema, loads, timeout=timeout)
        airspace.add(self._look_aside.flights)

    def __repr__(self) -> str:
        return f"<Namespace {self.name}>"

    @property
    def near(self) -> Shelf | None:
        """The near cache of this object, if it has one: `near.statistics()`."""
        return self._shelf

    # reading --------------------------------------------------------------------------------------------------------

    @overload
    def get(self, key: str, default: None = None, *, timeout: Duration | None = None) -> V | None: ...
    @overload
    def get(self, key: str, default: D, *, timeout: Duration | None = None) -> V | D: ...
    def get(self, key: str, default: Any = None, *, timeout: Duration | None = None) -> Any:
        """The value, or `default` on a miss. Calls of several threads share a request."""
        shelf = self._shelf
        if shelf is not None and (value := shelf.value(key)) is not NOTHING:
            return default if value is ABSENT else value
        check_key(key)
        with self._spans.call("cache.get", self.name):
            got = _answered(self._reads.join(self._handed.wanted(key), self._seconds(timeout)))
        if not got.is_found:
            return default
        try:
            return self._schema.decode(got.value, got.content_type)
        except UnreadableError:
            self._loads.count_unreadable()
            return default

    def lookup(self, key: str, *, timeout: Duration | None = None) -> Lookup[V]:
        """`get`, with what is known about the value. That the cache cannot be asked is an answer here, and no exception."""
        check_key(key)
        got = self._shelf.got(key) if self._shelf is not None else None
        try:
            got = got or self._asked(key, timeout)
        except CacheError as error:
            if not error.is_outage:
                raise
            return Unavailable(error)
        if not got.is_found:
            return Miss("absent" if got.outcome == "absent" else "miss")
        try:
            value = self._schema.decode(got.value, got.content_type)
        except UnreadableError:
            self._loads.count_unreadable()
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

    def _asked(self, key: str, timeout: Duration | None) -> Got:
        """With all that a batch says of a key, also where single reads are sent alone."""
        with self._spans.call("cache.get", self.name):
            return _answered(self._look_ups.join(self._handed.wanted(key), self._seconds(timeout)))

    def get_many(self, keys: Iterable[str], *, timeout: Duration | None = None) -> dict[str, V]:
        """The values that were found. `PartialError` if some keys failed; it has what the others brought. A request for each
        instance that has some of them, one after the other.
        """
        patience = Patience(self._seconds(timeout))
        found, missing = self._held(checked_keys(keys))
        wanted = [self._handed.wanted(key) for key in dict.fromkeys(missing)]
        failed: dict[str, CacheError] = {}
        with self._spans.call("cache.get", self.name, items=len(wanted)):
            answers = list(self._read_each(wanted, patience))
        for one, got in answers:
            key = key_of(one)
            try:
                if isinstance(got, CacheError):
                    failed[key] = got.copy()
                elif got.is_found:
                    found[key] = self._schema.decode(got.value, got.content_type)
            except UnreadableError:
                self._loads.count_unreadable()
        if failed:
            raise PartialError(failed, found)
        return found

    def _read_each(
        self, wanted: list[Wanted], patience: Patience
    ) -> Iterator[tuple[Wanted, Got | CacheError]]:
        """In turns: a key of one instance that takes all the time must leave some to the other instances."""
        turn = first_turn(len(wanted), patience.deadline - time.monotonic())
        while True:
            late: dict[Wanted, CacheError] = {}
            for one, got in self._each(
                wanted, self._calls.home, partial(self._calls.read, turn=turn), patience.deadline
            ):
                if is_late(got):
                    late[one] = got
                else:
                    yield one, got
            if not late or not patience.allows_another_turn():
                break
            wanted, turn = list(late), SLOW_TURN
        yield from late.items()

    def _held(self, keys: list[str]) -> tuple[dict[str, V], list[str]]:
        """What the near cache has of these, and what is to be asked for."""
        shelf = self._shelf
        if shelf is None:
            return {}, keys
        values = {key: shelf.value(key) for key in keys}
        found = {key: value for key, value in values.items() if value is not NOTHING and value is not ABSENT}
        return found, [key for key, value in values.items() if value is NOTHING]

    @overload
    def get_or_load(
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
    def get_or_load(
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
    def get_or_load(
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
        """The value, loaded by `loader(key)` and stored if nobody has it; `default` if it is (or loads as) `ABSENT`.

        The loader runs in the call of one of its callers, and the others wait. It cannot be stopped: `timeout` bounds the wait
        for others, and `load_timeout` is what `ctx.deadline` says. A stale value is refreshed by the call that got its lease.
        """
        shelf = self._shelf
        if shelf is not None and (held := shelf.value(key)) is not NOTHING:
            return default if held is ABSENT else held
        check_key(key)
        seconds = None if timeout is None else positive_seconds_of(timeout, "timeout")
        lifetimes = lifetimes_of(ttl, stale, None, tags)
        with self._spans.call("cache.get_or_load", self.name):
            value = self._look_aside.get_or_load(self._handed.wanted(key), loader, lifetimes, seconds)
        return default if value is ABSENT else value

    def cached(
        self,
        key: str,
        *,
        ttl: Duration | None = None,
        stale: Duration | None = None,
        tags: Iterable[str] = (),
        ignore: Iterable[str] = (),
    ) -> Callable[[Callable[P, R]], CachedFunction[P, R]]:
        """Answer a function from this namespace. `key` and `tags` are templates over its parameters: `profile:{user_id}`.

        Every parameter is in the key, or named in `ignore` (no result depends on it), or is `self`, `cls` or `ctx`: else two
        different calls would have one answer. Raises `ValueError` when the function is decorated.
        """
        ttl_seconds = None if ttl is None else seconds_of(ttl, "ttl")
        stale_seconds = None if stale is None else seconds_of(stale, "stale")

        def decorate(function: Callable[P, R]) -> CachedFunction[P, R]:
            return CachedFunction(
                self, function, Naming(function, key, tags, ignore), ttl=ttl_seconds, stale=stale_seconds
            )

        return decorate

    # writing --------------------------------------------------------------------------------------------------------

    def set(
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
        """Invalidate the key and store the value, in one step. What was read from a source that others write belongs into
        `get_or_load`.
        """
        check_key(key)
        item = self._item(key, value, lifetimes_of(ttl, stale, stale_if_error, tags))
        try:
            with self._spans.call("cache.set", self.name):
                _answered(self._puts.join(item, self._seconds(timeout), len(item.value)))
        finally:
            self._forget([key])

    def set_many(
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
        deadline = self._deadline(timeout)
        checked_keys(values)
        lifetimes = lifetimes_of(ttl, stale, stale_if_error, tags)
        items = [self._item(key, value, lifetimes) for key, value in values.items()]
        try:
            with self._spans.call("cache.set", self.name, items=len(items)):
                puts = list(
                    self._each(
                        items,
                        self._calls.home_of_item,
                        self._calls.put,
                        deadline,
                        lambda item: len(item.value),
                    )
                )
        finally:
            self._forget(list(values))
        if failed := {item.key: put.copy() for item, put in puts if isinstance(put, CacheError)}:
            raise PartialError(failed, {})

    def _item(self, key: str, value: V, lifetimes: Lifetimes) -> PutItem:
        return lifetimes.item(key, self._schema.encode(value), self._schema.content_type)

    def _each(
        self,
        items: Iterable[I],
        home_of: Callable[[I], Endpoint],
        send: Callable[[Endpoint, list[I], float], Sequence[A | CacheError]],
        deadline: float,
        weigh: Callable[[I], int] = lambda _: 0,
    ) -> Iterator[tuple[I, A | CacheError]]:
        """Each item with its answer. They go to their instances, in as many requests as their number and weight ask for."""
        at_home: dict[Endpoint, list[I]] = {}
        for item in items:
            at_home.setdefault(home_of(item), []).append(item)
        for home, theirs in at_home.items():
            for part in _parts(theirs, weigh):
                try:
                    yield from zip(part, send(home, part, deadline), strict=True)
                except CacheError as error:
                    yield from ((item, error) for item in part)

    def touch(
        self,
        key: str,
        *,
        ttl: Duration | None = None,
        stale: Duration | None = None,
        stale_if_error: Duration | None = None,
        timeout: Duration | None = None,
    ) -> bool:
        """Let the stored value live anew, for these durations. False if there is no fresh one. Costs a read and a write of the
        value, and invalidates: see the async flavour.
        """
        check_key(key)
        lifetimes = lifetimes_of(ttl, stale, stale_if_error)
        deadline = self._deadline(timeout)
        got = self._asked(key, timeout)
        if got.outcome not in ("hit", "loaded"):
            return False
        try:
            with self._spans.call("cache.set", self.name):
                return self._calls.touch(key, got, lifetimes, deadline)
        finally:
            self._forget([key])

    # invalidating ---------------------------------------------------------------------------------------------------

    def invalidate(
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
        """
        asked = invalidation_of(
            self.name, keys, tags=tags, all=all, confirm=confirm, soft=soft, over=over, wait=wait
        )
        return self.send(asked, timeout=timeout)

    def send(self, asked: Invalidation, *, timeout: Duration | None = None) -> Receipt:
        """`invalidate`, as a document: one of a transaction that could not be sent, for instance."""
        try:
            with self._spans.call("cache.invalidate", self.name):
                return self._calls.invalidate(asked, self._deadline(timeout))
        finally:
            if not asked.is_lenient:
                self._forget(asked.keys, asked.tags, everything=asked.all)

    def delete(self, key: str, *, timeout: Duration | None = None) -> Receipt:
        """`invalidate` for one key."""
        check_key(key)
        try:
            with self._spans.call("cache.invalidate", self.name):
                return self._calls.delete(key, self._deadline(timeout))
        finally:
            self._forget([key])

    def _forget(self, keys: list[str], tags: Iterable[str] = (), *, everything: bool = False) -> None:
        """What was there before a write; also after its failure, as it may have been applied all the same."""
        self._airspace.forget(keys, wide=bool(tags) or everything)
        self._near.drop(self.name, keys, tags, everything=everything)

    def _purge(self, key: str) -> Receipt:
        """`delete`, from inside the flight of the key, which is not to be forgotten for it."""
        return self._calls.delete(key, self._deadline(None))

    def _seconds(self, timeout: Duration | None) -> float:
        return (
            self._timeout if timeout is None else min(self._timeout, positive_seconds_of(timeout, "timeout"))
        )

    def _deadline(self, timeout: Duration | None) -> float:
        return time.monotonic() + self._seconds(timeout)


def _answered(answer: Answered | CacheError) -> Answered:
    if isinstance(answer, CacheError):
        raise answer.copy()  # the others that it concerns raise one of their own
    if isinstance(answer, Got):
        tell_got(answer)
    return answer


def _together(
    send: Callable[[Endpoint, list[I], float], Sequence[A | CacheError]],
) -> Callable[[Endpoint], Intake[I, A]]:
    return lambda home: Batcher(partial(send, home))


def _reading(calls: Calls, home: Endpoint) -> SlowLane[Wanted, Got]:
    read = partial(calls.read, home)
    return SlowLane(Batcher(read), Batcher(partial(calls.read, home, turn=SLOW_TURN)), OneByOne(read))


def _one_by_one(
    send: Callable[[Endpoint, list[I], float], Sequence[A | CacheError]],
) -> Callable[[Endpoint], Intake[I, A]]:
    return lambda home: OneByOne(partial(send, home))


def _parts(items: Sequence[I], weigh: Callable[[I], int]) -> Iterator[list[I]]:
    part: list[I] = []
    weight = 0
    for item in items:
        weighs = weigh(item)
        if part and (len(part) == MAX_ITEMS or weight + weighs > MAX_WEIGHT):
            yield part
            part, weight = [], 0
        part.append(item)
        weight += weighs
    if part:
        yield part
