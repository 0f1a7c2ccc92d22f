"""Loads values of a namespace from its HTTP origin, as a shared cache would.

RFC 9110, 9111, 5861 and 9875 apply. A load is one GET. It asks for unencoded bytes, because an
entry has no place for a `Content-Encoding`; an encoded body is decoded (`decoding.py`), within the
same limit. Redirects are not followed: the origin of a namespace is the one that its contract
names, and a key must not be able to lead elsewhere.

    Answer                             | Is                                   | `OriginError`
    -----------------------------------|--------------------------------------|-----------------
    200, 203; 204 (no bytes)           | the value                            |
    304 to our `If-None-Match`         | the value of `known`, new lifetimes  |
    404, 410                           | absence, with lifetimes and tags     |
    408, 425, 429                      | the origin's wish to be asked later  | `ORIGIN_LIMITED`
    5xx, no or broken HTTP, body cut   | a failure of the origin              | `ORIGIN_FAILED`,
    short, timeout                     |                                      | `ORIGIN_TIMEOUT`
    everything else (301, 401, 403, …) | a refusal, which the caller is told  | `ORIGIN_REFUSED`

`OriginError` (model/errors.py) says for which of these a stale copy may be answered. `Retry-After`
is read on all of them. What the answers may be used for stands in `freshness.py`.
"""

import asyncio
import logging
import re
import ssl
from collections.abc import Mapping
from typing import NamedTuple

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy

from cachesvc.config.topology import Origin
from cachesvc.model import cache_groups
from cachesvc.model.clock import Clock
from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import ConfigError, OriginError
from cachesvc.model.problems import ProblemKind
from cachesvc.model.units import Size
from cachesvc.telemetry.link_faults import tls_fault
from cachesvc.telemetry.outage import Outage
from cachesvc.telemetry.traces.trace import traceparent
from cachesvc.tiers.clean_connector import CleanConnector, EndlessAnswerError
from cachesvc.tiers.origin.address import KeyAddress
from cachesvc.tiers.origin.contract import Loaded
from cachesvc.tiers.origin.decoding import BodyTooLargeError, DecodingError, UnknownEncodingError, decoded
from cachesvc.tiers.origin.freshness import freshness_of, retry_after_seconds
from cachesvc.tiers.origin.get_span import GetSpan, answered

logger = logging.getLogger(__name__)

MAX_HEADER_LINE = 36 << 10
"""Bytes of a header line that an origin may answer.

One `Cache-Groups` with 128 tags of 256 bytes, the most that a namespace allows, fits in."""

_VALUE = (200, 203)
_EMPTY = 204
"""No Content: the value exists and has no bytes. (The answer has no body to read.)"""
_ABSENT = (404, 410)
_LATER = (408, 425, 429)
_UNTYPED = "application/octet-stream"
_ETAG = re.compile(r'(?:W/)?"[!#-~]{0,256}"')
_CONTENT_TYPE = re.compile(r"[ -~]{1,256}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t -~]*")


class Prepared(NamedTuple):
    """An origin as loads use it."""

    address: KeyAddress
    headers: CIMultiDict[str]
    span: GetSpan
    max_body: Size
    tags_max: int


class HttpLoader:
    """A `Loader` over HTTP.

    A cancelled or timed-out load closes its connection; the pool holds `origin.concurrency`
    connections. A session that is passed in stays open at `stop` and must not decompress by itself
    (`ValueError`); without one, `start` opens a session. Raises `ConfigError` for an unusable origin.

    An answer whose tags cannot be understood, or are too many, is answered but may not be kept: an
    invalidation of the missing tag could not reach the copy.
    """

    def __init__(
        self,
        namespace: str,
        origin: Origin,
        *,
        clock: Clock,
        tags_max: int = 16,
        session: aiohttp.ClientSession | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        if session is not None and session.auto_decompress:
            raise ValueError(
                "HttpLoader: a session with auto_decompress takes a body that is cut short for a whole one"
            )
        self.namespace = namespace
        self.loads = 0
        """GETs that were begun."""
        self.failures = 0
        """Loads that failed; `timeouts` is part of this number."""
        self.timeouts = 0
        self.refusals = 0
        """Loads that the origin answered without a value for us (`OriginError.is_answer`)."""
        self.revalidations = 0
        """Loads that were answered 304."""
        self.untaggable = 0
        """Answers that may not be kept because of their `Cache-Groups`."""
        self.trouble = ""
        """The fault of the origin's TLS, and what to do; empty if there is none."""
        self.take(origin, tags_max)
        self._concurrency = origin.concurrency
        self._clock = clock
        self._tls = tls
        self._session = session
        self._owns_session = session is None
        self._outage = Outage(f"loading {namespace!r}", logger)

    def __repr__(self) -> str:
        counts = f"{self.loads} loads, {self.failures} failures, {self.timeouts} timeouts"
        return f"<HttpLoader {self.namespace}: {counts}>"

    def take(self, origin: Origin, tags_max: int) -> None:
        """Does what `use` does. Raises `ConfigError`, and changes nothing, for an unusable origin."""
        self.use(self.prepared(origin, tags_max))

    def prepared(self, origin: Origin, tags_max: int) -> "Prepared":
        """Returns what loads need to know. Raises `ConfigError` for an unusable origin."""
        path = f"$.namespaces.{self.namespace}.origin"
        address = KeyAddress(origin.url, path=f"{path}.url")
        headers = CIMultiDict({"Accept-Encoding": "identity", "User-Agent": "cachesvc"})
        headers.update(_checked(origin.headers, path))
        return Prepared(address, headers, GetSpan(origin.url), origin.max_body, tags_max)

    def use(self, prepared: "Prepared") -> None:
        """Loads as an origin says from now on; what runs goes on as it began.

        Its `concurrency` is not looked at.
        """
        self._address, self._headers, self._span, self._max_body, self._tags_max = prepared

    async def start(self) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=CleanConnector(limit=self._concurrency, ssl=self._tls or True),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                max_field_size=MAX_HEADER_LINE,
                timeout=aiohttp.ClientTimeout(),  # `load` has its own deadline, over the whole load
            )

    async def stop(self) -> None:
        if self._owns_session and self._session is not None:
            await self._session.close()
            self._session = None

    async def load(self, key: Key, *, known: Entry | None, timeout_seconds: float) -> Loaded:
        if self._session is None:
            raise RuntimeError(f"HttpLoader of {self.namespace!r}: load before start")
        try:
            loaded = await self._load_in_time(self._session, key, known, timeout_seconds)
        except OriginError as error:
            if error.is_answer:
                self.refusals += 1
                self._works()
            else:
                self.failures += 1
                self.trouble = tls_fault(error)
                self._outage.failed(error)
            raise
        self._works()
        return loaded

    def _works(self) -> None:
        if self._outage.is_on:
            self.trouble = ""
            self._outage.worked()

    async def _load_in_time(
        self, session: aiohttp.ClientSession, key: Key, known: Entry | None, timeout_seconds: float
    ) -> Loaded:
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._load(
                    session, key, known if known is not None and known.origin_etag else None
                )
        except TimeoutError as error:
            self.timeouts += 1
            raise self._error(
                f"no complete answer within {timeout_seconds:g} s", ProblemKind.ORIGIN_TIMEOUT
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._error(_why(error)) from error

    async def _load(self, session: aiohttp.ClientSession, key: Key, known: Entry | None) -> Loaded:
        loaded = await self._get(session, key, known)
        if loaded is None:
            loaded = await self._get(session, key, None)
        if loaded is None:
            raise self._error("answered 304 to a request without a condition", ProblemKind.ORIGIN_REFUSED)
        return loaded

    async def _get(self, session: aiohttp.ClientSession, key: Key, known: Entry | None) -> Loaded | None:
        """Sends one GET; None for a 304 that is not about `known`."""
        try:
            url = self._address.of(key.text)
        except ValueError as error:
            raise self._error(f"it cannot be asked for this key: {error}", ProblemKind.BAD_KEY) from None
        self.loads += 1
        with self._span.around() as span:
            async with session.get(url, headers=self._headers_of(known), allow_redirects=False) as response:
                answered(span, response.status)
                return await self._answer(response, known)

    def _headers_of(self, known: Entry | None) -> CIMultiDict[str]:
        """Returns request headers that are conditional on `known` and in the caller's trace.

        The trace is passed on whether it is sampled or not.
        """
        trace = traceparent()
        if known is None and not trace:
            return self._headers
        headers = self._headers.copy()
        if known is not None:
            headers["If-None-Match"] = known.origin_etag
        if trace:
            headers["traceparent"] = trace
        return headers

    async def _answer(self, response: aiohttp.ClientResponse, known: Entry | None) -> Loaded | None:
        status, headers = response.status, response.headers
        if status in _VALUE:
            return self._loaded(headers, await self._body(response), status)
        if status == _EMPTY:
            return self._loaded(headers, b"", status)
        if status in _ABSENT:
            return self._loaded(headers, b"", status, absent=True)
        if status == 304:
            return self._revalidated(headers, known)
        raise self._refusal(status, retry_after_seconds(headers, self._clock.now_us()))

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        body = await self._raw_body(response)
        try:
            return decoded(body, response.headers.get("Content-Encoding", ""), self._max_body)
        except BodyTooLargeError as error:
            raise self._too_large() from error
        except UnknownEncodingError as error:
            raise self._error(
                f"answered with {error}, which is not understood", ProblemKind.ORIGIN_REFUSED
            ) from error
        except DecodingError as error:
            raise self._error("the body could not be decoded") from error

    async def _raw_body(self, response: aiohttp.ClientResponse) -> bytes:
        if response.content_length is not None and response.content_length > self._max_body:
            raise self._too_large()
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > self._max_body:
                raise self._too_large()
            chunks.append(chunk)
        return b"".join(chunks)

    def _loaded(
        self, headers: CIMultiDictProxy[str], value: bytes, status: int, *, absent: bool = False
    ) -> Loaded:
        tags = self._tags(headers)
        freshness = freshness_of(headers, self._clock.now_us(), is_taggable=tags is not None)
        lifetimes = freshness.lifetimes
        return Loaded(
            value,
            _matching(_CONTENT_TYPE, headers.get("Content-Type")) or _UNTYPED,
            lifetimes.ttl_us,
            lifetimes.stale_for_us,
            lifetimes.error_for_us,
            tags or (),
            freshness.age_us,
            absent=absent,
            use=freshness.use,
            etag=_matching(_ETAG, headers.get("ETag")),
            status=status,
        )

    def _revalidated(self, headers: CIMultiDictProxy[str], known: Entry | None) -> Loaded | None:
        """Returns the bytes of `known` with the lifetimes of the 304.

        The tags and the ETag of `known` stay unless the 304 brings others.
        """
        if known is None or _strong(headers.get("ETag", known.origin_etag)) != _strong(known.origin_etag):
            return None
        self.revalidations += 1
        answer = self._loaded(headers, known.value, 304, absent=known.negative)
        return Loaded(
            known.value,
            known.content_type,
            answer.ttl_us,
            answer.stale_for_us,
            answer.error_for_us,
            answer.tags if "Cache-Groups" in headers else known.tags,
            answer.age_us,
            absent=known.negative,
            not_modified=True,
            use=answer.use,
            etag=answer.etag or known.origin_etag,
            status=304,
        )

    def _tags(self, headers: CIMultiDictProxy[str]) -> tuple[str, ...] | None:
        """Returns the tags of the answer; None if they cannot be understood."""
        lines = headers.getall("Cache-Groups", None)
        if lines is None:
            return ()
        try:
            return cache_groups.parse(", ".join(lines), max_tags=self._tags_max)
        except ValueError as error:
            if not self.untaggable:
                logger.warning(
                    "origin of %r: an answer is not kept, for its Cache-Groups: %s", self.namespace, error
                )
            self.untaggable += 1
            return None

    def _refusal(self, status: int, retry_after: int | None) -> OriginError:
        why = f"answered {status}"
        if status >= 500:
            return self._error(why, ProblemKind.ORIGIN_FAILED, status, retry_after)
        if status in _LATER:
            return self._error(why, ProblemKind.ORIGIN_LIMITED, status, retry_after)
        if 300 <= status < 400:
            why += ": redirects are not followed, name the final URL"
        return self._error(why, ProblemKind.ORIGIN_REFUSED, status)

    def _too_large(self) -> OriginError:
        return self._error(f"answered more than max_body, {self._max_body} bytes", ProblemKind.ORIGIN_REFUSED)

    def _error(
        self,
        why: str,
        kind: ProblemKind = ProblemKind.ORIGIN_FAILED,
        status: int = 0,
        retry_after: int | None = None,
    ) -> OriginError:
        why = f"origin of {self.namespace!r}: {why}"
        return OriginError(why, kind=kind, origin_status=status, retry_after=retry_after)


def _why(error: Exception) -> str:
    if fault := tls_fault(error):
        return fault
    match error:
        case aiohttp.ClientConnectorError():
            return "cannot be reached"
        case EndlessAnswerError():
            return "answered too many bytes beside the body"
        case aiohttp.ClientPayloadError():
            return "the body ended early"
        case aiohttp.ServerDisconnectedError():
            return "closed the connection without an answer"
        case aiohttp.ClientResponseError():
            return "answered what is not HTTP"
        case _:
            return f"the connection failed ({type(error).__name__})"


def _matching(pattern: re.Pattern[str], text: str | None) -> str | None:
    return text if text is not None and pattern.fullmatch(text) else None


def _strong(etag: str) -> str:
    """Returns the ETag for the weak comparison of `If-None-Match` (RFC 9110, 8.8.3.2)."""
    return etag.removeprefix("W/")


def _checked(headers: Mapping[str, str], path: str) -> dict[str, str]:
    for name, value in headers.items():
        if not (_HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value)):
            raise ConfigError(f"{path}.headers", f"{name!r} or its value cannot be sent in a header")
    return dict(headers)
