"""The client: where the instances are, how long to wait for them, and the namespaces."""

import asyncio
import time
from typing import Any, Self, TypeVar, overload

from msgspec import Struct
from yarl import URL

from cachesvc_client.calls import Calls, receipt_state
from cachesvc_client.codecs import BYTES, Codec, json_of
from cachesvc_client.durations import Duration, header_of, positive_seconds_of, seconds_of
from cachesvc_client.endpoints import urls_of
from cachesvc_client.loading import Loads
from cachesvc_client.names import check_caller, check_namespace, check_receipt_id
from cachesvc_client.namespace import Namespace
from cachesvc_client.own_writes import OwnWrites
from cachesvc_client.transport import Session, Transport
from cachesvc_client.wire import ReceiptState

V = TypeVar("V")


class Statistics(Struct, frozen=True):
    """Counters since the client was made."""

    requests: int
    """HTTP requests sent, failed ones and second tries included."""
    failovers: int
    """Requests that met no instance or a broken connection."""
    loads: int
    """Runs of loaders."""
    loads_without_cache: int
    """Loads, started or waiting for their turn, that had no lease: the cache was out of reach or a holder took too long."""
    fenced_fills: int
    """Loaded values that were answered and not kept, as an invalidation came between."""
    failed_fills: int
    """Loaded values that could not be stored."""
    forgotten_writes: int
    """Own writes that reads may no longer honour: there were too many within a minute."""


class Cache:
    """A client of one region's instances, for one event loop, used as `async with Cache.from_url(…) as cache`.

    Leaving the block ends the loads that still run (their callers get a `CacheError`) and waits for the requests under way.
    """

    def __init__(
        self,
        urls: list[URL],
        *,
        timeout: float,
        load_timeout: float,
        lease_wait: float,
        max_loads_without_cache: int,
        batching: bool,
        caller: str,
        session: Session | None = None,
    ) -> None:
        connect_timeout = timeout if len(urls) == 1 else timeout / 2  # time is left for another one
        # Unbatched, every caller needs a connection of its own; a limit would make them queue where nobody sees it.
        most = 64 if batching else 0
        self._transport = Transport(urls, connect_timeout=connect_timeout, max_connections=most, session=session)
        self._timeout = timeout
        self._batching = batching
        self._caller = caller
        self._own_writes = OwnWrites(time.monotonic)
        self._loads = Loads(timeout=load_timeout, lease_wait=lease_wait, most_without_cache=max_loads_without_cache)
        self._batch_tasks: set[asyncio.Task[None]] = set()
        self._load_tasks: set[asyncio.Task[Any]] = set()
        self._urls = urls

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        default_timeout: Duration = "2s",
        load_timeout: Duration = "30s",
        lease_wait: Duration = "5s",
        max_loads_without_cache: int = 16,
        batching: bool = True,
        caller: str = "",
        session: Session | None = None,
    ) -> "Cache":
        """A client of the instance at `url`, or of the first reachable of several, separated by commas, in order of preference.

        `default_timeout`: of a call of the cache. `load_timeout`: of a loader. `lease_wait`: how long `get_or_load` waits for
        another process that holds the lease, before it loads for itself. `batching=False`: a request for every single call.
        `caller`: who invalidates, for the service's audit; else it notes the address. `session`: an `aiohttp.ClientSession` to
        use and leave open, or a stand-in for one (`cachesvc_client.testing`).
        """
        if max_loads_without_cache < 1:
            raise ValueError("max_loads_without_cache: at least 1")
        return cls(
            urls_of(url),
            timeout=positive_seconds_of(default_timeout, "default_timeout"),
            load_timeout=positive_seconds_of(load_timeout, "load_timeout"),
            lease_wait=seconds_of(lease_wait, "lease_wait"),
            max_loads_without_cache=max_loads_without_cache,
            batching=batching,
            caller=check_caller(caller),
            session=session,
        )

    @overload
    def namespace(self, name: str, *, timeout: Duration | None = None, max_lag: Duration | None = None) -> Namespace[bytes]: ...
    @overload
    def namespace(
        self, name: str, *, codec: Codec[V], timeout: Duration | None = None, max_lag: Duration | None = None
    ) -> Namespace[V]: ...
    @overload
    def namespace(
        self, name: str, *, type: type[V], timeout: Duration | None = None, max_lag: Duration | None = None
    ) -> Namespace[V]: ...
    def namespace(
        self,
        name: str,
        *,
        codec: Codec[Any] | None = None,
        type: type[Any] | None = None,  # noqa: A002  the word callers think of
        timeout: Duration | None = None,
        max_lag: Duration | None = None,
    ) -> Namespace[Any]:
        """A namespace with values of bytes, of a codec (`JSON`, `MSGPACK`, your own), or of a type as JSON.

        `timeout`: of its calls, instead of `default_timeout`. `max_lag`: the longest staleness bound its readers accept. Keep
        the object: calls share requests within one of them.
        """
        if codec is not None and type is not None:
            raise ValueError("codec and type: give one of them")
        lag = "" if max_lag is None else header_of(positive_seconds_of(max_lag, "max_lag"))
        return Namespace(
            Calls(check_namespace(name), self._transport, self._own_writes, max_lag=lag, caller=self._caller),
            codec if codec is not None else json_of(type) if type is not None else BYTES,
            self._loads,
            timeout=self._timeout if timeout is None else positive_seconds_of(timeout, "timeout"),
            batching=self._batching,
            batch_tasks=self._batch_tasks,
            load_tasks=self._load_tasks,
        )

    async def receipt(self, id: str) -> ReceiptState:  # noqa: A002  the word of the receipt
        """How far the invalidation with this receipt has got by now. Raises `CacheError` `no-such-receipt` if there was none in
        the last 15 minutes.
        """
        check_receipt_id(id)
        return await receipt_state(self._transport, id, asyncio.get_running_loop().time() + self._timeout)

    def statistics(self) -> Statistics:
        loads = self._loads
        return Statistics(
            self._transport.requests,
            self._transport.failovers,
            loads.started,
            loads.without_cache,
            loads.fenced,
            loads.unfilled,
            self._own_writes.dropped,
        )

    def __repr__(self) -> str:
        state = "open" if self._transport.is_open else "closed"
        work = f"{len(self._batch_tasks)} requests, {len(self._load_tasks)} loads"
        return f"<Cache {', '.join(map(str, self._urls))} [{state}, {work}]>"

    async def __aenter__(self) -> Self:
        self._transport.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """The end of the block, for those who cannot use one."""
        try:
            for load in tuple(self._load_tasks):
                load.cancel()
            if self._load_tasks:
                await asyncio.wait(self._load_tasks)
            await asyncio.sleep(0)  # orders of this tick become a batch
            while self._batch_tasks:
                await asyncio.wait(self._batch_tasks)
        finally:
            await self._transport.close()
