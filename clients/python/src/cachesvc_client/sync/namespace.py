# Generated from aio/namespace.py by `python clients/python/unasync.py`: change that, and run this.
"""One team's part of the cache, with one type of values."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, NoReturn, ParamSpec, Self, TypeVar, overload

from cachesvc_client.errors import CacheError, PartialError
from cachesvc_client.near.near import NOTHING, Near, Shelf
from cachesvc_client.protocol.names import check_key, checked_keys
from cachesvc_client.protocol.wire import Got, Invalidation, Put, PutItem, Receipt, Wait
from cachesvc_client.requests.changes import invalidation_of
from cachesvc_client.requests.handed_tokens import Handed, Wanted
from cachesvc_client.sync.cached import CachedFunction
from cachesvc_client.sync.calls import Calls
from cachesvc_client.sync.flight import Airspace
from cachesvc_client.sync.lifecycle import Lifecycle
from cachesvc_client.sync.loading import Loader, Loads
from cachesvc_client.sync.lookaside import LookAside
from cachesvc_client.sync.namespace_intakes import NamespaceIntakes
from cachesvc_client.sync.releases import Releases
from cachesvc_client.sync.together import ManyLoader
from cachesvc_client.tracing.spans import Spans, tell_got
from cachesvc_client.values.codecs import Schema, UnreadableError
from cachesvc_client.values.context import ABSENT, check_loader
from cachesvc_client.values.durations import Duration, positive_seconds_of, seconds_of
from cachesvc_client.values.lifetimes import Lifetimes, lag_seconds_of, lifetimes_of
from cachesvc_client.values.lookups import Hit, Lookup, Miss, Unavailable, etag_of
from cachesvc_client.values.templates import Declarations, Naming, check_template

V = TypeVar("V")
D = TypeVar("D")
R = TypeVar("R")
P = ParamSpec("P")
Answered = TypeVar("Answered", Got, Put)


class Namespace(Generic[V]):
    """One namespace as a client sees it; made by `Cache.namespace`.

    Every call ends within the namespace's timeout, with an answer or a `CacheError`. The `timeout`
    of a call can only shorten that. Keys, tags and durations that break a rule raise `ValueError`
    before anything is sent. A stored value of another schema version or type is a miss.

    May be used by any number of threads, or of greenlets where gevent has patched `threading`,
    `socket` and `time`. Calls with equal timeouts share requests: give the usual timeout to the
    namespace. A call that is torn out (`gevent.Timeout`, `KeyboardInterrupt`) does not touch what
    other callers asked for; a write that is torn out may or may not have happened.
    """

    def __init__(
        self,
        life: Lifecycle,
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
        lag: float | None,
        declarations: Declarations,
        batching: bool,
        releases: Releases,
    ) -> None:
        """`lag`: the seconds by which the sources of its loaders may be behind their commits."""
        self.name = calls.namespace
        self._ready = life.ready
        self._calls = calls
        self._schema = schema
        self._loads = loads
        self._handed = handed
        self._airspace = airspace
        self._near = near
        self._shelf = shelf
        self._spans = spans
        self._timeout = timeout
        self._lag = lag
        self._declarations = declarations
        self._batching = batching
        self._releases = releases
        self.begin()

    def begin(self) -> None:
        """Makes the intakes and flights."""
        self._intakes = NamespaceIntakes(
            self._calls,
            timeout=self._timeout,
            batching=self._batching,
            releases=self._releases,
        )
        self._reads = self._intakes.reads
        self._puts = self._intakes.puts
        self._look_ups = self._intakes.look_ups
        self._look_aside = LookAside(
            self._intakes.leases,
            self._intakes.waits,
            self._intakes.lease_over,
            self._puts,
            self._intakes.lease_all,
            self._intakes.put_all,
            self._intakes.give_back,
            self._purge,
            self._stale_copy,
            self._schema,
            self._loads,
            timeout=self._timeout,
        )
        self._airspace.add(self._look_aside.flights)

    def __repr__(self) -> str:
        return f"<Namespace {self.name}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Namespace is of one process: make it at the top of a module, in each of them")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: object) -> Self:
        return self

    @property
    def near(self) -> Shelf | None:
        """The near cache of this object, or None: `near.statistics()` says how it does."""
        return self._shelf

    # reading --------------------------------------------------------------------------------------

    @overload
    def get(self, key: str, default: None = None, *, timeout: Duration | None = None) -> V | None: ...
    @overload
    def get(self, key: str, default: D, *, timeout: Duration | None = None) -> V | D: ...
    def get(self, key: str, default: Any = None, *, timeout: Duration | None = None) -> Any:
        """Returns the value, or `default` on a miss. Calls of several threads share a request."""
        shelf = self._shelf
        if shelf is not None and (value := shelf.value(key)) is not NOTHING:
            return default if value is ABSENT else value
        check_key(key)
        seconds = self._timeout if timeout is None else self._seconds(timeout)
        self._ready()
        with self._spans.call("cache.get", self.name):
            got = _answered(self._reads.join(self._handed.wanted(key), seconds))
        if not got.is_found:
            return default
        try:
            return self._schema.decode(got.value, got.content_type)
        except UnreadableError as why:
            self._loads.count_unreadable(key, why)
            return default

    def lookup(self, key: str, *, timeout: Duration | None = None) -> Lookup[V]:
        """Returns what `get` finds, and what is known about it: a `Hit`, `Miss` or `Unavailable`.

        A cache that cannot be asked is an answer here, `Unavailable`. A request that the cache
        refuses raises `CacheError`.
        """
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
        except UnreadableError as why:
            self._loads.count_unreadable(key, why)
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
        """The answer with all that a batch says of a key, also where `get` sends each key alone."""
        seconds = self._seconds(timeout)
        self._ready()
        with self._spans.call("cache.get", self.name):
            return _answered(self._look_ups.join(self._handed.wanted(key), seconds))

    def get_many(self, keys: Iterable[str], *, timeout: Duration | None = None) -> dict[str, V]:
        """Returns the values that were found.

        Raises `PartialError`, with what was found, if some keys failed. The instances are asked one
        after the other.
        """
        seconds = self._seconds(timeout)
        found, missing = self._held(checked_keys(keys))
        keys = list(dict.fromkeys(missing))
        self._ready_for(keys, found)
        with self._spans.call("cache.get", self.name, items=len(keys)):
            answers = self._intakes.read_all(self._handed.all_wanted(keys), seconds)
        decode = self._schema.decode
        failed: dict[str, CacheError] = {}
        for key, got in zip(keys, answers, strict=True):
            try:
                if isinstance(got, CacheError):
                    failed[key] = got.copy()
                elif got.is_found:
                    found[key] = decode(got.value, got.content_type)
            except UnreadableError as why:
                self._loads.count_unreadable(key, why)
        if failed:
            raise PartialError(failed, found)
        return found

    def _held(self, keys: list[str]) -> tuple[dict[str, V], list[str]]:
        """The values that the near cache has of these keys, and the keys that are to be asked for."""
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
        stale_if_error: Duration | None = None,
        tags: Iterable[str] = (),
        lag: Duration | None = None,
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
        stale_if_error: Duration | None = None,
        tags: Iterable[str] = (),
        lag: Duration | None = None,
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
        stale_if_error: Duration | None = None,
        tags: Iterable[str] = (),
        lag: Duration | None = None,
        default: Any = None,
        timeout: Duration | None = None,
    ) -> Any:
        """Returns the value, loaded by `loader(key)` and stored if nobody has it.

        Returns `default` if the value is, or loads as, `ABSENT`. A loader with a parameter named
        `ctx` is given the `LoadContext` instead of the key. There is one load per key in this
        process, and one lease per key anywhere. The arguments of the caller that starts the load
        count, and all callers that join it get the same object.

        `lag`: the loader's source may be so far behind its commits, such as a replica (instead of the
        namespace's). Without it an old value that a replica still had would count as new.

        `stale_if_error`: if the loader raises or takes too long, the value that was stored before is
        returned, up to so long after it became stale, unless it was invalidated.

        The loader runs in the call of one of its callers, and the others wait for it. It cannot be
        stopped: `timeout` bounds the wait for another caller's load, and `ctx.deadline` tells the
        loader when the cache's `load_timeout` is over. A stale value is refreshed by the call that
        got its lease; if the loader fails, the stale value is returned.

        The value is returned as it will be read later; `CodecError` is raised if it would not come
        back. An exception of the loader is raised here. With the cache out of reach the loader runs all
        the same, at most `max_loads_without_cache` at a time. A stored value of another type or of
        an earlier version is replaced. One of a later version stays: the loaded value is returned
        and not stored.
        """
        shelf = self._shelf
        if shelf is not None and (held := shelf.value(key)) is not NOTHING:
            return default if held is ABSENT else held
        check_key(key)
        check_loader(loader)
        seconds = None if timeout is None else positive_seconds_of(timeout, "timeout")
        lifetimes = lifetimes_of(ttl, stale, stale_if_error, tags, self._lag if lag is None else lag)
        self._ready()
        with self._spans.call("cache.get_or_load", self.name):
            value = self._look_aside.get_or_load(self._handed.wanted(key), loader, lifetimes, seconds)
        return default if value is ABSENT else value

    def get_or_load_many(
        self,
        keys: Iterable[str],
        loader: ManyLoader[V],
        *,
        ttl: Duration | None = None,
        stale: Duration | None = None,
        tags: Iterable[str] = (),
        lag: Duration | None = None,
        timeout: Duration | None = None,
    ) -> dict[str, V]:
        """Returns the values of keys; those that nobody has are loaded by one call of the loader.

        `loader(keys)` returns a mapping; a key that it leaves out, or maps to `ABSENT`, has no
        value, which is remembered, and is left out here as well. Keys that others are loading are
        waited for, one after the other; a key whose load fails has a loader call for itself. All else
        is as in `get_or_load`: leases, what is returned, `timeout`, exceptions.
        """
        seconds = None if timeout is None else positive_seconds_of(timeout, "timeout")
        lifetimes = lifetimes_of(ttl, stale, None, tags, self._lag if lag is None else lag)
        check_loader(loader)
        names = list(dict.fromkeys(checked_keys(keys)))
        held, missing = self._held(names)
        if missing:
            self._ready()
            with self._spans.call("cache.get_or_load", self.name, items=len(missing)):
                wanted = self._handed.all_wanted(missing)
                values = self._look_aside.get_or_load_many(wanted, loader, lifetimes, seconds)
            held.update(
                {key: value for key, value in zip(missing, values, strict=True) if value is not ABSENT}
            )
        return {key: held[key] for key in names if key in held}

    def cached(
        self,
        key: str,
        *,
        ttl: Duration | None = None,
        stale: Duration | None = None,
        stale_if_error: Duration | None = None,
        tags: Iterable[str] = (),
        ignore: Iterable[str] = (),
        lag: Duration | None = None,
        shared: bool = False,
    ) -> Callable[[Callable[P, R]], CachedFunction[P, R]]:
        """Returns a decorator: a function is then answered from this namespace.

        `key` and `tags` are templates over the function's parameters: `profile:{user_id}`. Every
        parameter but `ctx` is in the key, or named in `ignore` (no result depends on it); else two
        different calls would have one answer, and the decorator raises `ValueError`. For a method the
        key names an attribute that tells its objects apart: `{self.tenant}`.

        No two functions of a client have one template in one namespace, unless both say `shared`:
        their results are the same. `stale_if_error` and `lag` are those of `get_or_load`.
        """
        check_template(key)
        ttl_seconds = None if ttl is None else seconds_of(ttl, "ttl")
        stale_seconds = None if stale is None else seconds_of(stale, "stale")
        error_seconds = None if stale_if_error is None else seconds_of(stale_if_error, "stale_if_error")
        lag_seconds = None if lag is None else lag_seconds_of(lag)

        def decorate(function: Callable[P, R]) -> CachedFunction[P, R]:
            naming = Naming(function, key, tags, ignore)
            self._declarations.add(naming, shared=shared)
            return CachedFunction(
                self,
                function,
                naming,
                ttl=ttl_seconds,
                stale=stale_seconds,
                stale_if_error=error_seconds,
                lag=lag_seconds,
            )

        return decorate

    # writing --------------------------------------------------------------------------------------

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
        """Invalidates the key and stores the value, in one step.

        The caller vouches for the value being current: a value that was read from a source that
        others write belongs into `get_or_load`. Durations left out are the namespace's. For a moment
        after an invalidation of one of its tags or of the namespace, the call takes up to 2 clock skews
        of the service (0.2 s) longer, so that the value is there when it returns. Raises `CodecError`
        if the value would not come back as it is.
        """
        check_key(key)
        seconds = self._seconds(timeout)
        item = self._item(key, value, lifetimes_of(ttl, stale, stale_if_error, tags))
        self._ready()
        try:
            with self._spans.call("cache.set", self.name):
                _answered(self._puts.join(item, seconds, len(item.value)))
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
        """Does what `set` does, for many.

        Raises `PartialError` if some keys failed; the others are stored.
        """
        seconds = self._seconds(timeout)
        if not isinstance(values, Mapping):
            raise ValueError(f"values: a mapping of keys to values, not {type(values).__name__}")
        checked_keys(values)
        lifetimes = lifetimes_of(ttl, stale, stale_if_error, tags)
        items = [self._item(key, value, lifetimes) for key, value in values.items()]
        self._ready_for(values, {})
        try:
            with self._spans.call("cache.set", self.name, items=len(items)):
                puts = self._intakes.put_all(items, seconds)
        finally:
            self._forget(list(values))
        answers = zip(values, puts, strict=True)
        if failed := {key: put.copy() for key, put in answers if isinstance(put, CacheError)}:
            raise PartialError(failed, {})

    def _item(self, key: str, value: V, lifetimes: Lifetimes) -> PutItem:
        return lifetimes.item(key, self._schema.encode(value), self._schema.content_type)

    def touch(
        self,
        key: str,
        *,
        ttl: Duration | None = None,
        stale: Duration | None = None,
        stale_if_error: Duration | None = None,
        timeout: Duration | None = None,
    ) -> bool:
        """Lets the stored value live anew, for these durations. False if there is no fresh value.

        Durations left out are the namespace's. The protocol has no call for this: the value is read
        and stored once more, if it is still the stored one by then (`If-Match`). So a touch costs a
        read and a write of the whole value, and it invalidates: every reader of that moment goes to
        the home cell. It never brings back a value that was invalidated, except one that was
        invalidated softly between the read and the write.
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

    # invalidating ---------------------------------------------------------------------------------

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
        """Tells the cache that these changed; to be called after the change was committed.

        No read of this client that starts afterwards is answered with a value that was loaded
        before. `soft`: it may be, as stale, while the value is being loaded anew.

        `all`: the whole namespace, to be confirmed with its name. `over`: a big purge without a
        herd; copies become stale one after the other within this time. `wait`: return when every
        live instance of the region (`region`), or of all regions (`global`), has merged the
        invalidation: then no reader there, with or without a token, gets a value that was loaded
        before. If that is not so within the timeout, the receipt's `reached` is false and `missing`
        names the instances.
        """
        asked = invalidation_of(
            self.name, keys, tags=tags, all=all, confirm=confirm, soft=soft, over=over, wait=wait
        )
        return self.send(asked, timeout=timeout)

    def send(self, asked: Invalidation, *, timeout: Duration | None = None) -> Receipt:
        """Sends an `Invalidation`: one of a transaction that could not be sent, for instance."""
        self._ready()
        return self.send_also_at_close(asked, timeout)

    def send_also_at_close(self, asked: Invalidation, timeout: Duration | None = None) -> Receipt:
        """Does what `send` does, also while the client closes: for what closing waits for."""
        try:
            with self._spans.call("cache.invalidate", self.name):
                return self._calls.invalidate(asked, self._deadline(timeout))
        finally:
            if not asked.is_lenient:
                self._forget(asked.keys, asked.tags, everything=asked.all)

    def delete(self, key: str, *, timeout: Duration | None = None) -> Receipt:
        """Does what `invalidate` does, for one key."""
        check_key(key)
        self._ready()
        try:
            with self._spans.call("cache.invalidate", self.name):
                return self._calls.delete(key, self._deadline(timeout))
        finally:
            self._forget([key])

    def _forget(self, keys: list[str], tags: Iterable[str] = (), *, everything: bool = False) -> None:
        """Forgets what was known before a write, even if it failed: it may have been applied."""
        self._airspace.forget(keys, wide=bool(tags) or everything)
        self._near.drop(self.name, keys, tags, everything=everything)

    def _purge(self, key: str) -> Receipt:
        """Does what `delete` does, inside the flight of the key: that flight is not forgotten."""
        return self._calls.delete(key, self._deadline(None))

    def _ready_for(self, keys: Iterable[str], found: dict[str, V]) -> None:
        """Does what `_ready` does, for a call whose failures are told for each key."""
        try:
            self._ready()
        except CacheError as error:
            if failed := {key: error.copy() for key in keys}:
                raise PartialError(failed, found) from error

    def _stale_copy(self, wanted: Wanted, beyond: float) -> Got:
        return self._calls.read_stale(wanted, beyond, self._deadline(None))

    def _seconds(self, timeout: Duration | None) -> float:
        """The time that a call has."""
        return (
            self._timeout if timeout is None else min(self._timeout, positive_seconds_of(timeout, "timeout"))
        )

    def _deadline(self, timeout: Duration | None) -> float:
        return time.monotonic() + self._seconds(timeout)


def _answered(answer: Answered | CacheError) -> Answered:
    if isinstance(answer, CacheError):
        raise answer.copy()  # other callers of the same request raise a copy of their own
    if isinstance(answer, Got):
        tell_got(answer)
    return answer
