"""The fake service: it routes requests, plays faults, records calls, and makes clients."""

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Self
from urllib.parse import unquote_to_bytes

from msgspec import Struct

import cachesvc_client.sync
from cachesvc_client.aio.cache import Cache
from cachesvc_client.testing.address import PROFILE, URL
from cachesvc_client.testing.asking import asked_of, key_of, timeout_of
from cachesvc_client.testing.async_session import AsyncSession
from cachesvc_client.testing.batch import Batches
from cachesvc_client.testing.clock import FakeClock
from cachesvc_client.testing.contract import INSTANCE, REGION, Contract
from cachesvc_client.testing.faults import Dropped, Failing, Faults
from cachesvc_client.testing.feed import Feed, Subscription
from cachesvc_client.testing.home import Draft, Fenced, Home
from cachesvc_client.testing.http import Refused, Request, Response, json_response
from cachesvc_client.testing.invalidating import Invalidations
from cachesvc_client.testing.reading import Reader
from cachesvc_client.testing.single import SingleKeys
from cachesvc_client.testing.sync_session import SyncSession
from cachesvc_client.values.durations import Duration, seconds_of

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_RECEIPT_ID = re.compile(r"[a-z][a-z0-9-]*:[0-9]+-[0-9]+")
_SILENT = ("/v1/topology", "/v1/fences")
"""Paths that a client asks for at times of its own choice.

These requests are not recorded, and no fault of the script falls on them.
"""


class Recorded(Struct, frozen=True):
    """A request that the fake service has received."""

    method: str
    target: str
    headers: Mapping[str, str]
    """The headers; their names are in lower case."""
    document: Any
    """The body decoded, or the bytes if it does not decode; None if there was no body."""


class FakeService:
    """A cache service in memory; `cachesvc_client.testing` has an example.

    It serves any number of clients, async and sync, in any threads of one process.
    """

    def __init__(self, namespaces: Mapping[str, Contract] | None = None) -> None:
        """`namespaces` are the declared namespaces.

        If it is left out every name is a namespace, with the service's default contract.
        """
        self.clock = FakeClock()
        self.calls: list[Recorded] = []
        self._namespaces = namespaces
        self._lock = threading.RLock()  # guards all state: clients may be in several threads
        self._listeners: set[Callable[[], object]] = set()
        self._faults = Faults()
        self._home = Home(self.clock, self._contract_of)
        self._reader = Reader(self._home, self.clock, self._contract_of, self._told)
        self._feed = Feed(self.clock)
        parts = (self.clock, self._contract_of, self._told)
        self._single = SingleKeys(self._home, self._reader, *parts)
        self._batches = Batches(self._home, self._reader, *parts)
        self._invalidations = Invalidations(self._home, *parts)
        self.clock.on_advance(self._changed)

    def __repr__(self) -> str:
        return f"<FakeService [{len(self._home)} values, {len(self.calls)} calls] {self.clock!r}>"

    # clients --------------------------------------------------------------------------------------

    def cache(self, **options: Any) -> Cache:
        """Returns a client, for `async with`; the options are those of `Cache.from_url`."""
        return Cache.from_url(URL, session=self.session(), **{"profile": PROFILE, **options})

    def session(self) -> AsyncSession:
        """Returns a session for tests that make their client themselves.

        They call `Cache.from_url(…, session=service.session())`.
        """
        return AsyncSession(self)

    def sync_cache(self, **options: Any) -> cachesvc_client.sync.Cache:
        """Returns a client for threads, for `with`; the options are those of `Cache.from_url`."""
        return cachesvc_client.sync.Cache.from_url(
            URL, session=SyncSession(self), **{"profile": PROFILE, **options}
        )

    @contextmanager
    def serving(self, *caches: Cache | cachesvc_client.sync.Cache) -> Iterator[Self]:
        """Returns a block in which these clients ask this service, wherever else they point.

        It is for caches at the top of a module, which tests do not make: namespaces and cached
        functions of them are used as they are. At the end of the block the clients go back to their
        service. At both ends they forget what they knew, such as their own writes.
        """
        with ExitStack() as stack:
            for cache in caches:
                session: Any = AsyncSession(self) if isinstance(cache, Cache) else SyncSession(self)
                stack.enter_context(cache.redirected(session, URL))
            yield self

    # what other clients do ------------------------------------------------------------------------

    def hold(
        self,
        namespace: str,
        key: str,
        value: bytes,
        *,
        ttl: Duration | None = None,
        tags: tuple[str, ...] = (),
    ) -> None:
        """Stores a value, as another client would."""
        with self._lock:
            seconds = None if ttl is None else seconds_of(ttl, "ttl")
            self._told([self._home.put(namespace, key, Draft(value, tags=tags, ttl=seconds))])

    def held(self, namespace: str, key: str) -> bytes | None:
        """Returns the value that a reader would be answered with now, fresh or stale.

        None if the key is a miss or known to be absent.
        """
        with self._lock:
            entry = self._home.entry(namespace, key, {})
            if entry is None or entry.draft.absent or self._home.standing(entry) not in ("fresh", "stale"):
                return None
            return entry.draft.value

    def invalidate(
        self, namespace: str, *keys: str, tags: tuple[str, ...] = (), whole: bool = False, soft: bool = False
    ) -> None:
        """Invalidates keys, tags or the `whole` namespace, as another client would."""
        with self._lock:
            self._told(self._home.invalidate(namespace, keys=keys, tags=tags, whole=whole, soft=soft))

    def take_lease(self, namespace: str, key: str) -> str:
        """Takes the key's lease, as another client that loads would, and returns its token.

        Returns an empty text if another client holds the lease already.
        """
        with self._lock:
            return self._home.grant(namespace, key)

    def due_early(self, namespace: str, key: str) -> None:
        """Asks the next `get_or_load` of the key to load its value anew, before it expires.

        The service draws this at random, the likelier the nearer the expiry is.
        """
        with self._lock:
            self._reader.due_early.add((namespace, key))

    # faults ---------------------------------------------------------------------------------------

    def fail_next(
        self,
        count: int = 1,
        kind: str = "overloaded",
        *,
        status: int = 503,
        retryable: bool = True,
        retry_after: int | None = None,
        on: str = "",
    ) -> None:
        """Answers the next `count` requests with this problem.

        With `on`, such as `:get`, only requests count whose method and target contain that text.
        """
        self._faults.add(Failing(kind, status, retryable, retry_after), count, on)

    def answer_next(self, response: Response, *, on: str = "") -> None:
        """Answers the next request with this response, whatever the request asks.

        `on` is as in `fail_next`.
        """
        self._faults.add(response, 1, on)

    def drop_next(self, count: int = 1, *, on: str = "") -> None:
        """Breaks the connection of the next `count` requests; `on` is as in `fail_next`."""
        self._faults.add(Dropped("the connection broke, as the test asked"), count, on)

    def down(self) -> None:
        """Makes the service unreachable until `up` is called; feeds of near caches end."""
        self._faults.down(True)
        self._feed.end()
        self._changed()

    def up(self) -> None:
        """Makes the service reachable again."""
        self._faults.down(False)

    def delay(self, by: Duration) -> None:
        """Lets every answer seem to take so long.

        A call whose time is shorter fails with its deadline, at once; other calls are not held up.
        Only keys that share a request wait, by the real clock, if the delay is longer than the turn
        in which they are asked for.
        """
        self._faults.delay(by)

    def lag(self, by: Duration) -> None:
        """Sets the staleness bound that answers say: invalidations may be late by so much.

        While the bound is above the `max_lag` of a namespace or of a read, only copies that are younger
        than that `max_lag` are answered.
        """
        self._reader.lag = seconds_of(by, "by")

    def miss_instances(self, *names: str) -> None:
        """Names instances, such as `us/us-b`, that do not merge in time what a call waits for."""
        self._invalidations.missing = list(names)

    # requests -------------------------------------------------------------------------------------

    def respond(self, request: Request, *, is_first: bool = True, is_patient: bool = True) -> Response | None:
        """Returns the answer, or None if the request has to wait for another caller's fill.

        After None call it again when something has changed, with `is_first` false, and with
        `is_patient` false when the time to wait is over. Raises `Dropped` or `TooLate` if the test
        asked for it.
        """
        with self._lock:
            self._faults.check_reach()
            try:
                response = self._scripted(request) if is_first else None
                response = response or self._routed(request, is_patient)
            except Refused as refused:
                response = refused.response(
                    request, {"Allow": refused.detail} if refused.status == 405 else {}
                )
            if response is not None:
                response.headers.setdefault("Cachesvc-Lag", f"{self._reader.lag:.3f}")
                self._changed()
            return response

    def _scripted(self, request: Request) -> Response | None:
        """Records the request, and returns the answer of a fault that is meant for it, if any."""
        if request.target.partition("?")[0] in _SILENT:
            return None
        self._record(request)
        return self._faults.take(request, timeout_of(request.headers))

    def wait_of(self, request: Request) -> float:
        """Returns the seconds that the request waits for another caller's fill."""
        document = _readable(request)
        return (
            float(document.get("wait", 0.0)) if isinstance(document, dict) else asked_of(request.headers).wait
        )

    def subscribe(self, request: Request) -> Subscription:
        """Returns the stream of fences; raises `Refused` or `Dropped`."""
        with self._lock:
            self._faults.check_reach()
            return self._feed.subscribe(request.headers.get("last-event-id", ""))

    def beat(self) -> None:
        """Sends a heartbeat to all subscribers.

        It is needed while nothing happens, as subscribers measure silence by the real clock.
        """
        with self._lock:
            self._feed.beat()

    def listen(self, listener: Callable[[], object]) -> Callable[[], None]:
        """Calls `listener`, in any thread, when something may have changed.

        Returns a function that ends this.
        """
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    def _changed(self) -> None:
        for listener in tuple(self._listeners):
            listener()

    def _told(self, fenced: list[Fenced]) -> None:
        self._feed.told(fenced)
        self._changed()

    def _record(self, request: Request) -> None:
        self.calls.append(Recorded(request.method, request.target, dict(request.headers), _readable(request)))

    def _contract_of(self, namespace: str) -> Contract:
        if self._namespaces is None:
            return _DEFAULT
        if namespace not in self._namespaces:
            raise Refused(404, "no-such-namespace", f"no namespace {namespace!r}", "namespace")
        return self._namespaces[namespace]

    def _routed(self, request: Request, is_patient: bool) -> Response | None:
        path, _, query = request.target.partition("?")
        match path.split("/"):
            case ["", "livez" | "readyz"]:
                return Response(200, {"Content-Type": "text/plain; charset=utf-8"}, b"ready\n")
            case ["", "v1", "topology"]:
                return json_response(self._topology(), headers={"Cache-Control": "no-store"})
            case ["", "v1", "invalidations"]:
                _allow(request, "POST")
                return self._invalidations.post(request)
            case ["", "v1", "invalidations", id_]:
                if not _RECEIPT_ID.fullmatch(id_):
                    raise Refused(400, "bad-receipt", "the id of a receipt is region:id", "id")
                return self._invalidations.state(id_)
            case ["", "v1", segment] if segment.endswith((":get", ":put")):
                _allow(request, "POST")
                return self._batch(request, segment, is_patient)
            case ["", "v1", namespace, key]:
                if query:
                    raise Refused(400, "bad-query", "this path takes no query", "query")
                return self._key(request, namespace, key, is_patient)
            case ["", "v1", _, _, _, *_]:
                raise Refused(400, "bad-key", "a key is one path segment: write '/' in it as %2F", "key")
        raise Refused(404, "no-such-path", "there is nothing at this path")

    def _batch(self, request: Request, segment: str, is_patient: bool) -> Response | None:
        namespace, _, verb = segment.rpartition(":")
        self._contract_of(namespace)
        if verb == "put":
            return self._batches.put(request, namespace)
        return self._batches.get(request, namespace, is_patient=is_patient)

    def _key(self, request: Request, namespace: str, segment: str, is_patient: bool) -> Response | None:
        _allow(request, "GET", "HEAD", "PUT", "POST", "DELETE")
        self._contract_of(namespace)
        key = key_of(_decoded(segment), "key")
        match request.method:
            case "PUT":
                return self._single.write(request, namespace, key)
            case "POST":
                return self._single.release(request, namespace, key)
            case "DELETE":
                return self._invalidations.delete(request, namespace, key)
        return self._single.read(request, namespace, key, is_patient=is_patient)

    def _topology(self) -> dict[str, Any]:
        known = self._namespaces if self._namespaces is not None else {}
        shown = {name: _shown(contract) for name, contract in known.items()}
        regions = {REGION: {"instances": {INSTANCE: URL}}}
        return {
            "version": 1,
            "here": {"region": REGION, "instance": INSTANCE},
            "regions": regions,
            "namespaces": shown,
        }


_DEFAULT = Contract()


def _readable(request: Request) -> Any:
    try:
        return request.document
    except ValueError:  # a test that sends nonsense gets to see it
        return request.body


def _allow(request: Request, *methods: str) -> None:
    if request.method not in methods:
        raise Refused(405, "method", ", ".join(methods), "method")


def _decoded(segment: str) -> str:
    if _BAD_ESCAPE.search(segment):
        raise Refused(400, "bad-escape", "write '%' as %25", "key")
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise Refused(400, "bad-key", "not UTF-8", "key") from None


def _shown(contract: Contract) -> dict[str, str]:
    names = ("ttl", "stale_while_revalidate", "stale_if_error", "negative_ttl", "max_lag", "lease")
    return {name: _duration_text(getattr(contract, name)) for name in names}


def _duration_text(seconds: float) -> str:
    """Returns the duration as people write it: `5m`, `1500ms`."""
    ms = round(seconds * 1000)
    units = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms"))
    return next((f"{ms // size}{unit}" for size, unit in units if ms and ms % size == 0), "0s")
