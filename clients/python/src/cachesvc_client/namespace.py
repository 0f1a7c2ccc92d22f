# ruff: noqa: ASYNC109  the timeout of a call ends in CacheError, and is cheaper than a timer around each
"""One team's part of the cache, with one type of values."""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping
from functools import partial
from typing import Any, Generic, TypeVar, get_args, overload

from cachesvc_client.batching import Batcher, Intake, OneByOne
from cachesvc_client.calls import Calls
from cachesvc_client.codecs import Codec
from cachesvc_client.context import ABSENT
from cachesvc_client.durations import Duration, positive_seconds_of, text_of
from cachesvc_client.errors import CacheError, PartialError
from cachesvc_client.lifetimes import Lifetimes, lifetimes_of
from cachesvc_client.loading import Loads
from cachesvc_client.lookaside import WAIT_TURN, Loader, LookAside, decoded
from cachesvc_client.names import check_key, checked_keys, checked_tags
from cachesvc_client.wire import Got, Invalidation, Put, PutItem, Receipt, Wait

V = TypeVar("V")
D = TypeVar("D")
T = TypeVar("T")


class Namespace(Generic[V]):
    """Made by `Cache.namespace`.

    Every call ends within the namespace's timeout with an answer or a `CacheError`; a call's own `timeout` can only shorten
    it. Keys, tags and durations out of rule raise `ValueError` before anything is sent. A cancelled read has no effect; a
    cancelled write may or may not have happened. Neither touches what other callers asked for at the same time.
    """

    def __init__(
        self,
        calls: Calls,
        codec: Codec[V],
        loads: Loads,
        *,
        timeout: float,
        batching: bool,
        batch_tasks: set[asyncio.Task[None]],
        load_tasks: set[asyncio.Task[Any]],
    ) -> None:
        self.name = calls.namespace
        self._calls = calls
        self._codec = codec
        self._timeout = timeout
        self._read_batches: Batcher[str, Got] = Batcher(calls.read, timeout=timeout, tasks=batch_tasks)
        self._put_batches: Batcher[PutItem, Put] = Batcher(calls.put, timeout=timeout, tasks=batch_tasks)
        self._reads: Intake[str, Got] = self._read_batches
        self._puts: Intake[PutItem, Put] = self._put_batches
        leases: Intake[str, Got] = Batcher(calls.lease, timeout=timeout, tasks=batch_tasks)
        if not batching:
            self._reads = OneByOne(calls.read_alone, timeout=timeout)
            self._puts = OneByOne(calls.put, timeout=timeout)
            leases = OneByOne(calls.lease, timeout=timeout)
        waiting = partial(calls.lease, wait=min(WAIT_TURN, timeout / 2))
        waits: Batcher[str, Got] = Batcher(waiting, timeout=timeout, tasks=batch_tasks)
        self._look_aside = LookAside(leases, waits, self._puts, codec, loads, load_tasks)

    def __repr__(self) -> str:
        return f"<Namespace {self.name}>"

    # reading --------------------------------------------------------------------------------------------------------

    @overload
    async def get(self, key: str, default: None = None, *, timeout: Duration | None = None) -> V | None: ...
    @overload
    async def get(self, key: str, default: D, *, timeout: Duration | None = None) -> V | D: ...
    async def get(self, key: str, default: Any = None, *, timeout: Duration | None = None) -> Any:
        """The value, or `default` on a miss. Calls of one moment share a request."""
        check_key(key)
        if timeout is not None:
            return await _within(positive_seconds_of(timeout, "timeout"), self.get(key, default))
        got = await self._reads.join(key)
        if isinstance(got, CacheError):
            raise got.copy()
        return decoded(self._codec, got.value) if got.is_found else default

    async def get_many(self, keys: Iterable[str], *, timeout: Duration | None = None) -> dict[str, V]:
        """The values that were found. `PartialError` if some keys failed; it has what the others brought."""
        if timeout is not None:
            return await _within(positive_seconds_of(timeout, "timeout"), self.get_many(keys))
        orders = {key: self._read_batches.join(key) for key in checked_keys(keys)}
        found: dict[str, V] = {}
        failed: dict[str, CacheError] = {}
        for key, order in orders.items():
            got = await order
            try:
                if isinstance(got, CacheError):
                    failed[key] = got.copy()
                elif got.is_found:
                    found[key] = decoded(self._codec, got.value)
            except CacheError as error:
                failed[key] = error
        if failed:
            raise PartialError(failed, found)
        return found

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

        One load per key in this process, one lease per key anywhere; the arguments of the caller that starts the load count,
        and all its callers get the same object. `timeout` bounds this caller's wait and not the load, which has the cache's
        `load_timeout`. What the loader raises is raised here. With the cache out of reach the loader runs all the same,
        `max_loads_without_cache` at a time. A value that the codec cannot read (its type has changed) is invalidated and
        loaded anew.
        """
        check_key(key)
        if timeout is not None:
            return await _within(
                positive_seconds_of(timeout, "timeout"),
                self.get_or_load(key, loader, ttl=ttl, stale=stale, tags=tags, default=default),
            )
        lifetimes = lifetimes_of(ttl, stale, None, tags)
        try:
            value = await self._look_aside.get_or_load(key, loader, lifetimes)
        except CacheError as error:
            if error.type != "undecodable":
                raise
            await self.delete(key)
            value = await self._look_aside.get_or_load(key, loader, lifetimes)
        return default if value is ABSENT else value

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
            put = await self._puts.join(item, len(item.value))
        finally:
            self._look_aside.flights.forget(key)
        if isinstance(put, CacheError):
            raise put.copy()
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
        orders = [self._put_batches.join(item, len(item.value)) for item in items]
        try:
            puts = {item.key: await order for item, order in zip(items, orders, strict=True)}
        finally:
            for key in values:
                self._look_aside.flights.forget(key)
        if failed := {key: put.copy() for key, put in puts.items() if isinstance(put, CacheError)}:
            raise PartialError(failed, {})
        return None

    def _item(self, key: str, value: V, lifetimes: Lifetimes) -> PutItem:
        return lifetimes.item(key, self._codec.encode(value), self._codec.content_type)

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
        asked = Invalidation(self.name, checked_keys(keys), checked_tags(tags), all, confirm, soft, wait=wait)
        if over is not None:
            asked.over = text_of(over, "over")
        self._check(asked)
        try:
            return await self._calls.invalidate(asked, self._deadline(timeout))
        finally:
            if not asked.is_lenient:
                self._forget(asked.keys, wide=bool(asked.tags) or all)

    def _check(self, asked: Invalidation) -> None:
        if not (asked.keys or asked.tags or asked.all):
            raise ValueError("nothing to invalidate: name keys, tags, or all=True")
        if asked.all and asked.confirm != self.name:
            raise ValueError(f"all=True purges all of {self.name!r}: if that is meant, say confirm={self.name!r} as well")
        if asked.wait not in get_args(Wait):
            raise ValueError(f"wait: {asked.wait!r} is none of {', '.join(get_args(Wait))}")

    async def delete(self, key: str, *, timeout: Duration | None = None) -> Receipt:
        """`invalidate` for one key."""
        check_key(key)
        try:
            return await self._calls.delete(key, self._deadline(timeout))
        finally:
            self._forget([key], wide=False)

    def _forget(self, keys: list[str], *, wide: bool) -> None:
        """Also after a failure: the change may have been applied all the same."""
        if wide:
            self._look_aside.flights.forget_all()
        for key in keys:
            self._look_aside.flights.forget(key)

    def _deadline(self, timeout: Duration | None) -> float:
        seconds = self._timeout if timeout is None else min(self._timeout, positive_seconds_of(timeout, "timeout"))
        return asyncio.get_running_loop().time() + seconds


async def _within(seconds: float, call: Awaitable[T]) -> T:
    """The call's answer, if it comes in time."""
    try:
        async with asyncio.timeout(seconds) as limit:
            return await call
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise CacheError("deadline", f"no answer within {seconds:g} s", retryable=True) from error
