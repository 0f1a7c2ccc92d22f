"""`/v1/{ns}/{key}`: reading, writing and invalidating one key; `:explain` says why."""

from collections.abc import Mapping
from functools import partial
from time import perf_counter

import msgspec
from aiohttp import web
from msgspec.structs import replace

from cachesvc.config.service import Server
from cachesvc.config.topology import Namespace
from cachesvc.explain.answer import Question
from cachesvc.model import cache_control, cache_groups
from cachesvc.model.caller import Caller
from cachesvc.model.change import Change
from cachesvc.model.clock import Clock
from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import RequestError
from cachesvc.model.etag import etag
from cachesvc.model.problems import ProblemKind
from cachesvc.model.requests import PLAIN, Answer, Draft, InvalidateOptions, Outcome, ReadOptions, Release
from cachesvc.model.scope import Action
from cachesvc.web.access.door import grant_of
from cachesvc.web.bytes_in_flight import BytesInFlight
from cachesvc.web.contract import Paths
from cachesvc.web.inspections import Inspections
from cachesvc.web.messages import OCTETS
from cachesvc.web.overload import Reading
from cachesvc.web.rates import RateLimits
from cachesvc.web.replies.cache_status import cache_status
from cachesvc.web.replies.problems import HURRIED, UNEXPLAINED, problem_reply, request_id_of
from cachesvc.web.replies.receipts import receipt_reply, unannounced_reply
from cachesvc.web.replies.rendering import (
    absence_lines,
    is_media_type,
    lives_of,
    not_modified_head,
    positive_head,
    seconds_of,
    use_of,
)
from cachesvc.web.replies.reply import CURRENT, Reply
from cachesvc.web.requests import conditions
from cachesvc.web.requests.bodies import JSON, read_body, refuse_encoding
from cachesvc.web.requests.callers import author_of
from cachesvc.web.requests.limits import MAX_LEASE_LENGTH, value_refusal
from cachesvc.web.requests.options import (
    is_answered_by_any_fresh_copy,
    is_below,
    options_of,
    source_lag_us_of,
)
from cachesvc.web.requests.tokens import token_line
from cachesvc.web.routing import Place
from cachesvc.web.spans import of_answer

HIT = Outcome.HIT.value
_ALONE = "scope=instance"
_EXPLAINED = ("Cachesvc-Token", "Cachesvc-Max-Lag", "Cache-Control")
"""The headers of a read that change which copies may answer it.

An explanation sends them on to the other instances that it asks.
"""


class Entries:
    """The handlers of the calls about one key."""

    def __init__(
        self,
        limits: Server,
        namespaces: Mapping[str, Namespace],
        paths: Paths,
        clock: Clock,
        reading: Reading,
        in_flight: BytesInFlight,
        inspections: Inspections,
        fair_seconds: float,
        rates: RateLimits,
    ) -> None:
        """`reading` counts the requests whose body is on its way, `in_flight` the bytes of bodies.

        A deadline below `fair_seconds` that is not kept is the caller's haste.
        """
        self._fair_seconds = fair_seconds
        self._rates = rates
        self._reading = reading
        self._in_flight = in_flight
        self._inspections = inspections
        self._limits = limits
        self._namespaces = namespaces
        self._reader = paths.reader
        self._writer = paths.writer
        self._invalidator = paths.invalidator
        self._explainer = paths.explainer
        self._fences = paths.fences
        self._spread = paths.hot_keys.spread
        self._clock = clock

    # reading --------------------------------------------------------------------------------------

    def hit(self, entry: Entry, key: Key) -> Reply:
        """Returns the reply to a plain `GET` that L1 answers with a positive, fresh copy."""
        return Reply(200, self.hit_head(entry, key), entry.value, outcome=HIT)

    def hit_head(self, entry: Entry, key: Key) -> bytes:
        """Returns the head of that reply, without the lines that every answer has.

        This is the hottest code of the service.
        """
        age, ttl = seconds_of(entry, self._clock.now_us())
        head = positive_head(entry, f"cachesvc-l1; hit; ttl={ttl}", age, ttl)
        if self._spread.hot:
            head += self._spread_line(key)
        return head.encode("latin-1")

    async def read(self, request: web.BaseRequest, place: Place) -> Reply:
        """Answers a `GET` or `HEAD` with options. Raises `RequestError` for a header out of rule."""
        asked = conditions.conditions_of(request.headers)
        options = options_of(request.headers, self._limits.request_timeout.seconds)
        if options.lease:  # the right to fill
            grant_of(request).require_keys(Action.WRITE, place.namespace, (place.key.text,))
        if (
            is_answered_by_any_fresh_copy(options)
            and (entry := self._reader.peek(place.namespace, place.key)) is not None
        ):
            self._count_hit(place, entry, grant_of(request).caller)
            answer = Answer(Outcome.ABSENT if entry.negative else Outcome.HIT, entry, "l1")
            watermark = CURRENT
        else:
            watermark = self._fences.watermark
            answer = await self._from_beyond(place, options, grant_of(request).caller)
        reply = self._answered(request_id_of(request.headers), place.key, answer, options, asked)
        reply.watermark = watermark
        return reply

    async def read_plainly(
        self, request: web.BaseRequest, place: Place, absent: Entry | None, caller: Caller
    ) -> Reply:
        """Answers a `GET` that asks nothing special, after L1 was asked.

        `absent` is the negative entry that L1 had, if any.
        """
        watermark = self._fences.watermark
        if absent is not None:
            self._count_hit(place, absent, caller)
            answer = Answer(Outcome.ABSENT, absent, "l1")
        else:
            answer = await self._from_beyond(place, PLAIN, caller)
        return self.answered_plainly(place.key, answer, watermark, request_id_of(request.headers))

    def answered_plainly(self, key: Key, answer: Answer, watermark: int, request_id: str = "") -> Reply:
        """Returns the reply to a `GET` that asks nothing special.

        `watermark`: the one of the moment at which the read began.
        """
        reply = self._answered(request_id, key, answer, PLAIN, conditions.NONE)
        reply.watermark = watermark
        return reply

    def _count_hit(self, place: Place, entry: Entry, caller: Caller) -> None:
        """Charges an L1 hit to the rates. Raises `RequestError` (`rate-limited`)."""
        if self._rates.is_on:
            self._rates.check_hit(place.namespace, len(entry.value), perf_counter(), caller)

    async def _from_beyond(self, place: Place, options: ReadOptions, caller: Caller) -> Answer:
        """Reads beyond L1. Raises `RequestError` (`rate-limited`)."""
        if not self._rates.is_on:
            return await self._reader.get(place.key, options)
        self._rates.check("reads", place.namespace, caller=caller)
        answer = await self._reader.get(place.key, options)
        if answer.entry is not None:
            self._rates.charge_bytes(place.namespace, len(answer.entry.value), caller)
        return answer

    def _answered(
        self,
        request_id: str,
        key: Key,
        answer: Answer,
        options: ReadOptions,
        asked: conditions.Conditions,
    ) -> Reply:
        try:
            reply = self._said(request_id, key, answer, options, asked)
        except RequestError:
            self._reader.give_back(key, answer)
            raise
        if answer.lease:
            reply.undelivered = partial(self._reader.give_back, key, answer)
        reply.attributes = partial(of_answer, answer)
        reply.has_waited = options.wait_seconds > 0
        return reply

    def _spread_line(self, key: Key) -> str:
        """Returns the header line that tells the reader of a hot key to spread it, or nothing."""
        instances = self._spread.of(key.digest, self._clock.now_us())
        return f"Cachesvc-Spread: {instances}\r\n" if instances else ""

    def _said(
        self,
        request_id: str,
        key: Key,
        answer: Answer,
        options: ReadOptions,
        asked: conditions.Conditions,
    ) -> Reply:
        """Returns the reply for this answer. Raises `RequestError` only for a failed precondition."""
        entry = answer.entry
        if answer.outcome is Outcome.ERROR or entry is None:
            return self._without_value(request_id, answer, options)
        age, ttl = lives_of(answer, entry, self._clock.now_us())
        status, use = cache_status(answer, ttl), use_of(answer)
        more = f"Cachesvc-Lease: {answer.lease}\r\n" if answer.lease else ""
        if not entry.confirmed:
            more += f"Cachesvc-Seen: {self._fences.seen_until(entry)}\r\n"
        if answer.unmet:
            more += "Cachesvc-Unmet: 1\r\n"
        if answer.use.keep:
            more += self._spread_line(key)
        if entry.negative:
            lines = absence_lines(entry, status, age, ttl, use) + more
            return _problem(request_id, _KNOWN_ABSENT, answer, lines, Outcome.ABSENT.value)
        if asked.if_match and not conditions.matches_strongly(asked.if_match, etag(entry)):
            raise RequestError(
                ProblemKind.PRECONDITION_FAILED, f"the value's ETag is {etag(entry)}", field="If-Match"
            )
        if asked.if_none_match and conditions.matches_weakly(asked.if_none_match, etag(entry)):
            head = not_modified_head(entry, status, age, ttl, use) + more
            return Reply(304, head.encode("latin-1"), outcome=answer.outcome.value)
        head = positive_head(entry, status, age, ttl, use) + more
        return Reply(200, head.encode("latin-1"), entry.value, outcome=answer.outcome.value)

    def _without_value(self, request_id: str, answer: Answer, options: ReadOptions) -> Reply:
        """Returns the reply for a miss or a failure."""
        status = cache_status(answer, 0)
        lines = (
            f"Cache-Control: no-store\r\nCache-Status: {status}\r\n"
            if status
            else "Cache-Control: no-store\r\n"
        )
        if answer.outcome is Outcome.ERROR:
            error = answer.error or UNEXPLAINED
            is_hurried = error.kind is ProblemKind.DEADLINE and is_below(options, self._fair_seconds)
            return _problem(request_id, error, answer, lines, HURRIED if is_hurried else "")
        if options.only_if_cached:
            return _problem(request_id, _NOT_CACHED, answer, lines, Outcome.MISS.value)
        if answer.unkept:
            lines += "Cachesvc-Unkept: 1\r\n"
        return _problem(request_id, _LEASED if answer.lease else _MISS, answer, lines, Outcome.MISS.value)

    async def explain(self, request: web.BaseRequest, place: Place) -> Reply:
        """Explains the read that has these headers.

        Another instance asks with `scope=instance`; its answer has only the copies that this instance sees.
        Raises `RequestError`: `overloaded` if it is one too many in this second.
        """
        if place.query not in ("", _ALONE):
            raise RequestError(ProblemKind.BAD_QUERY, f"here: {_ALONE}", field="query")
        self._inspections.admit()
        options = options_of(request.headers, self._limits.request_timeout.seconds)
        sent = {name: request.headers[name] for name in _EXPLAINED if name in request.headers}
        body = msgspec.json.encode(
            await self._explainer.answer(place.key, Question(options, sent, place.query == _ALONE))
        )
        return Reply(200, _json_head(len(body)), body)

    # writing --------------------------------------------------------------------------------------

    async def write(self, request: web.BaseRequest, place: Place) -> Reply:
        """Answers a `PUT`: 204 if the value is stored, else raises `RequestError`.

        A fill that is refused for what it brings gives its lease back.
        """
        lease = _lease(request)
        try:
            draft = self._draft(request, place.namespace, lease)
            if self._rates.is_on:
                self._rates.check("writes", place.namespace, caller=grant_of(request).caller)
            value = await self._value(request, place.namespace)
        except RequestError as error:
            if lease:
                reason = Release.FAILED if error.kind is ProblemKind.RATE_LIMITED else Release.UNKEPT
                await self._writer.put_many([(place.key, Draft(b"", lease=lease, release=reason))])
            raise
        if self._rates.is_on:
            self._rates.charge_bytes(place.namespace, len(value), grant_of(request).caller)
        written = await self._writer.put(place.key, replace(draft, value=value))
        if written.error is not None:
            raise written.error
        if not written.stored:
            raise _not_stored(written.reason)
        lines = f"ETag: {etag(written.entry)}\r\n" if written.entry is not None else ""
        lines += token_line(written.token)
        if written.unannounced:
            return unannounced_reply(written.unannounced, written.token, lines)
        return Reply(204, f"HTTP/1.1 204 No Content\r\n{lines}".encode(), outcome="stored")

    async def _value(self, request: web.BaseRequest, namespace: str) -> bytes:
        """Returns the body. Raises `RequestError` if it is too large, or not as announced."""
        with self._reading:
            value = await read_body(request, self._limits.max_body, self._in_flight, namespace)
        if refusal := value_refusal(len(value), self._namespaces[namespace], "body"):
            raise refusal
        return value

    def _draft(self, request: web.BaseRequest, namespace: str, lease: str | None) -> Draft:
        """Returns what the headers of a `PUT` ask for; all are checked before the body is read."""
        headers = request.headers
        refuse_encoding(request)
        asked = conditions.conditions_of(headers)
        if "Content-Range" in headers:
            raise RequestError(ProblemKind.BAD_HEADER, "a value is written whole", field="Content-Range")
        content_type = headers.get("Content-Type", OCTETS)
        if not is_media_type(content_type):
            raise RequestError(
                ProblemKind.BAD_HEADER, "not a media type, such as application/json", field="Content-Type"
            )
        if asked.if_none_match not in ((), (conditions.ANY,)):
            raise RequestError(
                ProblemKind.BAD_HEADER,
                "with PUT it can only be * (store if there is none)",
                field="If-None-Match",
            )
        lifetimes = cache_control.write_lifetimes_of(", ".join(headers.getall("Cache-Control", [])))
        return Draft(
            b"",
            content_type=content_type,
            tags=_tags(request, self._namespaces[namespace].tags_max),
            ttl_us=lifetimes.ttl_us,
            stale_for_us=lifetimes.stale_for_us,
            error_for_us=lifetimes.error_for_us,
            lease=lease,
            source_lag_us=source_lag_us_of(headers),
            if_absent=bool(asked.if_none_match),
            if_match=asked.if_match,
        )

    async def release(self, request: web.BaseRequest, place: Place) -> Reply:
        """Answers a `POST` to a key, which gives a lease back: 204, also if it was not in force.

        Raises `RequestError`.
        """
        lease = _lease(request)
        if lease is None:
            raise RequestError(
                ProblemKind.BAD_LEASE, "a POST to a key gives a lease back: name it", field="Cachesvc-Lease"
            )
        field = "Cachesvc-Release"
        try:
            reason = Release(request.headers.get(field, "").strip())
        except ValueError:
            raise RequestError(ProblemKind.BAD_HEADER, f"say {' or '.join(Release)}", field=field) from None
        await self._writer.put(place.key, Draft(b"", lease=lease, release=reason))
        return Reply(204, b"HTTP/1.1 204 No Content\r\n", outcome="released")

    async def invalidate(self, request: web.BaseRequest, place: Place) -> Reply:
        """Answers a `DELETE`, which invalidates the key, with a receipt. Raises `RequestError`."""
        for field in ("If-Match", "If-None-Match", "Cachesvc-Lease"):
            if field in request.headers:
                raise RequestError(
                    ProblemKind.CONTRADICTION,
                    "DELETE invalidates whatever is there: it has no condition",
                    field=field,
                )
        options = InvalidateOptions(author=author_of(request))
        if self._rates.is_on:
            self._rates.check("invalidations", place.namespace, caller=grant_of(request).caller)
        return receipt_reply(
            await self._invalidator.invalidate(Change(place.namespace, keys=(place.key.text,)), options)
        )


_KNOWN_ABSENT = RequestError(ProblemKind.KNOWN_ABSENT, "the origin said that there is no such value")
_MISS = RequestError(ProblemKind.CACHE_MISS, "there is no copy, and nothing to load it from here")
_LEASED = RequestError(ProblemKind.CACHE_MISS, "there is no copy: load it and PUT it with Cachesvc-Lease")
_NOT_CACHED = RequestError(
    ProblemKind.NOT_CACHED, "no tier holds a copy that this request takes", field="Cache-Control"
)


def _problem(request_id: str, error: RequestError, answer: Answer, lines: str, outcome: str) -> Reply:
    if answer.lease:
        lines += f"Cachesvc-Lease: {answer.lease}\r\n"
    return problem_reply(error, request_id, lines=lines.encode("latin-1"), outcome=outcome)


def _not_stored(reason: str) -> RequestError:
    if reason == "precondition":
        return RequestError(
            ProblemKind.PRECONDITION_FAILED, "what is stored is not what the condition asks for"
        )
    return RequestError(
        ProblemKind.FENCED,
        "an invalidation or the lease's end came in between: read again",
        field="Cachesvc-Lease",
    )


def _tags(request: web.BaseRequest, most: int) -> tuple[str, ...]:
    field = "Cache-Groups"
    lines = request.headers.getall(field, [])
    try:
        return cache_groups.parse(", ".join(lines), max_tags=most)
    except ValueError as error:
        raise RequestError(ProblemKind.BAD_TAG, str(error), field=field) from None


def _lease(request: web.BaseRequest) -> str | None:
    field = "Cachesvc-Lease"
    lease = request.headers.get(field)
    if lease is not None and not (
        0 < len(lease) <= MAX_LEASE_LENGTH and lease.isascii() and lease.isprintable()
    ):
        raise RequestError(
            ProblemKind.BAD_LEASE,
            "not a lease token: send the one that the miss was answered with",
            field=field,
        )
    return lease


def _json_head(size: int) -> bytes:
    return (
        f"HTTP/1.1 200 OK\r\nContent-Type: {JSON}\r\nContent-Length: {size}\r\nCache-Control: no-store\r\n"
    ).encode()
