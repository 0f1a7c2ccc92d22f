# Generated from aio/cache.py by `python clients/python/unasync.py`: change that, and run this.
"""The client: where the instances are, how long to wait for them, and the namespaces."""

import random
import ssl
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar, overload

from yarl import URL

from cachesvc_client.instances.endpoints import urls_of
from cachesvc_client.instances.profiles import IN_REGION, Profile, profile_with
from cachesvc_client.instances.region import Region
from cachesvc_client.instances.tls import Tls, context_of
from cachesvc_client.instances.zone import zone_of
from cachesvc_client.near.feed import NearFeed
from cachesvc_client.near.near import Near
from cachesvc_client.near.settings import NearSettings
from cachesvc_client.protocol.names import check_caller, check_namespace, check_receipt_id
from cachesvc_client.protocol.wire import Receipt, ReceiptState
from cachesvc_client.requests.bearer import TokenSource, check_source
from cachesvc_client.requests.changes import invalidation_in
from cachesvc_client.requests.handed_tokens import Handed
from cachesvc_client.requests.namespace_requests import NamespaceRequests, receipt_request, receipt_state
from cachesvc_client.requests.own_writes import pairs_of
from cachesvc_client.requests.unsent import Unsent
from cachesvc_client.sync.bearer import Bearer
from cachesvc_client.sync.calls import Calls
from cachesvc_client.sync.feed import Feeding
from cachesvc_client.sync.flight import Airspace
from cachesvc_client.sync.lifecycle import Lifecycle
from cachesvc_client.sync.loading import Loads
from cachesvc_client.sync.namespace import Namespace
from cachesvc_client.sync.on_commit import OnCommit
from cachesvc_client.sync.own_writes import SharedOwnWrites
from cachesvc_client.sync.releases import Releases
from cachesvc_client.sync.resending import Resending
from cachesvc_client.sync.session import Session
from cachesvc_client.sync.transport import UNBATCHED_CONNECTIONS, Transport
from cachesvc_client.tracing.spans import Spans
from cachesvc_client.tracing.traceparent import Traceparent, opentelemetry_traceparent
from cachesvc_client.values.codecs import BYTES, Codec, Schema, json_of
from cachesvc_client.values.durations import Duration, header_of, positive_seconds_of, seconds_of
from cachesvc_client.values.lifetimes import lag_seconds_of
from cachesvc_client.values.statistics import Statistics
from cachesvc_client.values.templates import Declarations

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

V = TypeVar("V")


class Cache:
    """A client of the instances of one region.

    Its first call opens it, until `close`; a block, `with cache`, opens it until the block ends.
    Blocks may be nested, also over several threads: the end of the last one closes.

    To be used by any number of threads, or of greenlets where gevent has patched `threading`,
    `socket` and `time`, and on both sides of a fork: the child makes connections of its own, and
    honours what was written before the fork. Calls that are under way when the client is closed end
    with their answers or a `CacheError`.
    """

    def __init__(
        self,
        urls: list[URL],
        profile: Profile,
        *,
        discover: bool,
        batching: bool,
        caller: str,
        zone: str,
        traceparent: Traceparent,
        token: TokenSource | None,
        session: Session | None,
        tls: ssl.SSLContext | None,
        tracer_provider: "TracerProvider | None",
    ) -> None:
        spread = random.Random()  # noqa: S311  spreads load, guards nothing
        self._points_at = (urls, session is None)
        """The configured URLs, and True if what is known of the instances is shared."""
        self._region = Region(urls, spread, discover=discover, shared=session is None, zone=zone)
        connections = profile.max_connections if batching else UNBATCHED_CONNECTIONS
        self._bearer = Bearer(token, tls_only=self._region.has_tls)
        self._transport = Transport(
            self._region,
            profile,
            max_connections=connections,
            traceparent=traceparent,
            bearer=self._bearer,
            session=session,
            tls=tls,
        )
        self._timeout = profile.timeout
        self._batching = batching
        self._caller = caller
        self._own_writes = SharedOwnWrites(time.monotonic)
        self._near = Near(time.monotonic, self._own_writes.heed)
        feed = NearFeed(self._near, self._region.feed_urls, spread)
        self._feeding = Feeding(self._near, feed, self._bearer, tls)
        self._handed = Handed()
        self._spans = Spans(tracer_provider)
        self._loads = Loads(
            timeout=profile.load_timeout,
            lease_wait=profile.lease_wait,
            most_without_cache=profile.max_loads_without_cache,
        )
        self._airspaces: dict[str, Airspace] = {}
        self._declarations: dict[str, Declarations] = {}
        self._releases = Releases()
        self._resending = Resending(Unsent(time.monotonic, spread))
        self._life = Lifecycle(self._transport, self._feeding, self._releases, self._resending, self._timeout)

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        profile: Profile = IN_REGION,
        default_timeout: Duration | None = None,
        load_timeout: Duration | None = None,
        lease_wait: Duration | None = None,
        max_loads_without_cache: int | None = None,
        batching: bool = True,
        discover: bool = True,
        caller: str = "",
        zone: str | None = None,
        token: TokenSource | None = None,
        traceparent: Traceparent = opentelemetry_traceparent,
        session: Session | None = None,
        tls: Tls | ssl.SSLContext | None = None,
        tracer_provider: "TracerProvider | None" = None,
    ) -> "Cache":
        """Returns a client of the instance at `url`, or of the first reachable one of several.

        Several are separated by commas, in order of preference.

        - `profile`: what to expect of the way there (`LAPTOP`, `IN_REGION`, `LOW_LATENCY`). The four
          durations and numbers that follow replace parts of it.
        - `default_timeout`: of a call of the cache.
        - `load_timeout`: of a loader.
        - `lease_wait`: how long `get_or_load` waits for another process that holds the lease, before
          it loads without one.
        - `max_loads_without_cache`: loaders that run at a time when the cache is out of reach.
        - `batching`: False, and every single call is a request of its own.
        - `discover`: the region's instances are asked directly, each for its share of the keys;
          False: only the instances named here.
        - `caller`: the name that the service's audit has beside the proved identity and the address.
        - `zone`: the zone that this process is in. As long as enough of the instances in it are well,
          only these are asked. Unless given, the variable `CACHESVC_ZONE` says it.
        - `token`: what shows the service who this client is (`Authorization: Bearer`): a text, the path
          of a file (a `pathlib.Path`), which is read again when it changes, or a function that returns
          the token. If the service refuses the token, it is fetched once more; then calls
          raise `UnauthenticatedError`. A client of an `https://` URL sends it over TLS only.
        - `traceparent`: asked for the current trace at each request; unless given, OpenTelemetry's,
          if the process uses it.
        - `session`: a `urllib3.PoolManager` of yours, which stays open; renew it after a fork.
        - `tls`: the certificates for `https://` instances, if the system's authorities are not enough.
        - `tracer_provider`: where the client's spans go, instead of the process's provider.
        """
        for name, given, part in (
            ("traceparent", traceparent, "__call__"),
            ("session", session, "request"),
            ("tracer_provider", tracer_provider, "get_tracer"),
        ):
            if given is not None and not callable(getattr(given, part, None)):
                raise ValueError(f"{name}: {given!r} has no {part}")
        if tls is not None and session is not None:
            raise ValueError("tls: is of no use beside session=, which has its own")
        return cls(
            urls_of(url),
            profile_with(
                profile,
                timeout=None
                if default_timeout is None
                else positive_seconds_of(default_timeout, "default_timeout"),
                load_timeout=None
                if load_timeout is None
                else positive_seconds_of(load_timeout, "load_timeout"),
                lease_wait=None if lease_wait is None else seconds_of(lease_wait, "lease_wait"),
                max_loads_without_cache=max_loads_without_cache,
            ),
            batching=batching,
            discover=discover,
            caller=check_caller(caller),
            zone=zone_of(zone),
            token=check_source(token),
            traceparent=traceparent,
            session=session,
            tls=context_of(tls),
            tracer_provider=tracer_provider,
        )

    @overload
    def namespace(
        self,
        name: str,
        *,
        version: int = 0,
        timeout: Duration | None = None,
        max_lag: Duration | None = None,
        lag: Duration | None = None,
        near: NearSettings | None = None,
    ) -> Namespace[bytes]: ...
    @overload
    def namespace(
        self,
        name: str,
        *,
        codec: Codec[V],
        version: int = 0,
        timeout: Duration | None = None,
        max_lag: Duration | None = None,
        lag: Duration | None = None,
        near: NearSettings | None = None,
    ) -> Namespace[V]: ...
    @overload
    def namespace(
        self,
        name: str,
        *,
        type: type[V],
        version: int = 0,
        timeout: Duration | None = None,
        max_lag: Duration | None = None,
        lag: Duration | None = None,
        near: NearSettings | None = None,
    ) -> Namespace[V]: ...
    def namespace(
        self,
        name: str,
        *,
        codec: Codec[Any] | None = None,
        type: type[Any] | None = None,  # noqa: A002  the word callers think of
        version: int = 0,
        timeout: Duration | None = None,
        max_lag: Duration | None = None,
        lag: Duration | None = None,
        near: NearSettings | None = None,
    ) -> Namespace[Any]:
        """Returns a namespace whose values are bytes, or of a codec, or of a type as JSON.

        - `codec`: `JSON`, `MSGPACK`, or your own.
        - `version`: of the values' schema, from 1; count it up when the type changes so that code of
          the other version could not read the values.
        - `timeout`: of its calls, instead of the profile's.
        - `max_lag`: the longest staleness bound that its readers accept.
        - `lag`: how far the sources of its loaders may be behind their commits: the delay of a
          replica, for instance. A call of `get_or_load` can say another one.
        - `near`: keep copies in this process of what batches read; a thread then follows the
          region's fences.

        Keep the object: calls share requests, and copies, within one of them.
        """
        if near is not None and not isinstance(near, NearSettings):
            raise ValueError(f"near: NearSettings(), not {near!r}")
        if codec is not None and type is not None:
            raise ValueError("codec and type: give one of them")
        longest = "" if max_lag is None else header_of(positive_seconds_of(max_lag, "max_lag"))
        schema: Schema[Any] = Schema(
            codec if codec is not None else json_of(type) if type is not None else BYTES, version
        )
        shelf = None if near is None else self._near.shelf(check_namespace(name), near, schema)
        self._feeding.start_if_used()
        requests = NamespaceRequests(
            check_namespace(name),
            self._own_writes,
            self._near,
            shelf=shelf,
            max_lag=longest,
            caller=self._caller,
            region=self._region,
        )
        return Namespace(
            self._life,
            Calls(requests, self._transport),
            schema,
            self._loads,
            self._handed,
            self._airspaces.setdefault(name, Airspace()),
            self._near,
            shelf,
            self._spans,
            timeout=self._timeout if timeout is None else positive_seconds_of(timeout, "timeout"),
            lag=None if lag is None else lag_seconds_of(lag),
            declarations=self._declarations.setdefault(name, Declarations()),
            batching=self._batching,
            releases=self._releases,
        )

    @property
    def feed(self) -> NearFeed:
        """The feed of fences that the near caches follow: `feed.statistics()` says how it does."""
        return self._feeding.feed

    def on_commit(self) -> OnCommit:
        """Returns a block whose invalidations are sent when it ends, and not if it raises.

        `with cache.on_commit() as tx`. What could not be sent is sent again in the background,
        if its failure may pass (`NotSentError.is_sent_again`).
        """
        return OnCommit(self._life, self._resending)

    def send(self, document: str) -> Receipt:
        """Sends an invalidation that was kept in an outbox (`OnCommit.noted`).

        Raises `CacheError` if it could not be sent, and `ValueError` for a text that is none.
        """
        asked = invalidation_in(document)
        namespace: Namespace[bytes] = self.namespace(asked.namespace)
        return namespace.send(asked)

    def token(self) -> str:
        """Returns what this client has written in the last minute, as a token for another client.

        There, reads within `with cache.with_token(token)` show these writes. Empty if there are none;
        the newest 255 keys and tags if there are more.
        """
        return self._own_writes.token()

    def with_token(self, token: str) -> AbstractContextManager[None]:
        """Returns a block whose reads honour the token of another client, or of a `Receipt`.

        The token holds on the thread or greenlet that enters the block. An
        empty token asks for nothing. Raises `ValueError` for a text that is no token, or that has
        too many parts.
        """
        self._near.merge(pairs_of(token))
        return self._handed.block(token)

    def receipt(self, id: str) -> ReceiptState:  # noqa: A002  the word of the receipt
        """Returns how far the invalidation with this receipt has got by now.

        Raises `CacheError` (`no-such-receipt`) if there was none in the last 15 minutes.
        """
        check_receipt_id(id)
        self._life.ready()
        deadline = time.monotonic() + self._timeout
        return receipt_state(self._transport.send(receipt_request(id), deadline))

    @contextmanager
    def redirected(self, session: Session, url: str) -> Iterator[None]:
        """Returns a block in which all requests go over `session` to `url`: for tests.

        `cachesvc_client.testing` has sessions (`FakeService.serving`, `off`). At both ends of the block
        the client forgets what it knew: instances, own writes, copies, loads under way, and what waits
        to be sent again. It may be open or not, and namespaces and cached functions stay as they are.
        """
        before, pointed_at = self._transport.replace_session(session), self._points_at
        self._begin_anew(urls_of(url), is_shared=False)
        try:
            yield
        finally:
            self._transport.replace_session(before)
            self._begin_anew(*pointed_at)

    def _begin_anew(self, urls: list[URL], is_shared: bool) -> None:
        self._points_at = (urls, is_shared)
        self._region.begin_anew(urls, shared=is_shared)
        self._own_writes.forget()
        self._resending.unsent.clear()
        for airspace in self._airspaces.values():
            airspace.forget([], wide=True)
        self._feeding.begin_anew()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Cache is of one process: make it at the top of a module, in each of them")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: object) -> Self:
        return self

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
            self._transport.retries,
            loads.unreadable,
            loads.unkept,
            loads.stood_in,
            len(self._resending.unsent),
            loads.early,
        )

    def __repr__(self) -> str:
        state = "open" if self._life.is_open else "closed"
        return f"<Cache {self._region!r} [{state}]>"

    def __enter__(self) -> Self:
        self._life.enter()
        return self

    def __exit__(self, *_: object) -> None:
        self._life.leave()

    def open(self) -> Self:
        """Opens the client until `close`, whatever blocks are entered and left meanwhile."""
        self._life.open()
        return self

    def close(self) -> None:
        """Closes the client, for those who cannot use a block; calls then raise `CacheError`."""
        self._life.close()
