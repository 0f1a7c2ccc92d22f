"""`POST /v1/invalidations` and `GET /v1/invalidations/{id}`.

A change is sent plain or as a CloudEvent, with options that say how it is to be done.
"""

from collections.abc import Mapping
from functools import partial

import msgspec
from aiohttp import web

from cachesvc.config.service import Service
from cachesvc.model.change import Change
from cachesvc.model.errors import RequestError
from cachesvc.model.problems import ProblemKind
from cachesvc.model.requests import Author, InvalidateOptions, Reach
from cachesvc.model.scope import Action
from cachesvc.model.units import Duration
from cachesvc.telemetry.traces.trace import Attribute
from cachesvc.web.access.door import grant_of
from cachesvc.web.access.grants import Grant
from cachesvc.web.bytes_in_flight import BytesInFlight
from cachesvc.web.contract import Invalidating
from cachesvc.web.deadlines import within
from cachesvc.web.inspections import Inspections
from cachesvc.web.messages import ChangeEvent, Invalidation
from cachesvc.web.rates import RateLimits
from cachesvc.web.replies.receipts import estimate_reply, receipt_reply, state_reply
from cachesvc.web.replies.reply import Reply
from cachesvc.web.requests.bodies import CLOUDEVENT, JSON, MSGPACK, Decodes, decode, media_type_of, read_body
from cachesvc.web.requests.callers import author_of
from cachesvc.web.requests.limits import check_count
from cachesvc.web.requests.options import timeout_of
from cachesvc.web.routing import Place, check_namespace, check_tags, key_of

WAIT_SECONDS = 5.0
"""How long `wait` lasts if the caller sends no `Cachesvc-Timeout`."""
ANSWER_SECONDS = 0.5
"""The part of `request_timeout` that `wait` leaves: to apply and publish before it, and to
answer after it which instances are missing."""

_PLAIN: dict[str, Decodes[Invalidation]] = {
    JSON: msgspec.json.Decoder(Invalidation),
    MSGPACK: msgspec.msgpack.Decoder(Invalidation),
}
_EVENT = msgspec.json.Decoder(ChangeEvent)


class Invalidations:
    """The handlers of invalidations and of their receipts."""

    def __init__(
        self,
        service: Service,
        invalidator: Invalidating,
        in_flight: BytesInFlight,
        inspections: Inspections,
        rates: RateLimits,
    ) -> None:
        self._rates = rates
        self._in_flight = in_flight
        self._inspections = inspections
        self._limits = service.server
        self._longest_over = service.coherence.fence_retention
        self._invalidator = invalidator

    async def post(self, request: web.BaseRequest, _: Place) -> Reply:
        """Answers with a receipt, or with an estimate if `dry_run`. Raises `RequestError`."""
        media = media_type_of(request, JSON, MSGPACK, CLOUDEVENT)
        timeout = timeout_of(request.headers, self._limits.request_timeout.seconds)
        body = await read_body(request, self._limits.max_body, self._in_flight)
        if media == CLOUDEVENT:
            event = decode(_EVENT, body)
            asked, at, source = event.data, "$.data", event.source
        else:
            asked, at, source = decode(_PLAIN[media], body), "$", ""
        author = author_of(request, source)
        grant = grant_of(request)
        grant.require(Action.INVALIDATE, asked.namespace, f"{at}.namespace")
        check_namespace(asked.namespace, grant.namespaces, f"{at}.namespace")
        self._check(asked, at)
        _check_targets(grant, asked, at)
        change = Change(asked.namespace, asked.keys, asked.tags, asked.all, asked.soft, asked.over)
        if asked.dry_run:
            self._inspections.admit()
            return estimate_reply(await self._invalidator.estimate(change))
        if self._rates.is_on:
            count = len(change.keys) + len(change.tags)
            self._rates.check("invalidations", change.namespace, max(1, count), grant.caller)
        invalidating = self._invalidator.invalidate(change, self._options(asked, timeout, author))
        # A call that waits for other instances answers a timeout itself: its receipt names those missing.
        bounded = (
            within(timeout, invalidating)
            if timeout is not None and asked.wait is Reach.NONE
            else invalidating
        )
        reply = receipt_reply(await bounded)
        reply.attributes = partial(_of_change, change)
        reply.concerns = change.targets
        reply.has_waited = asked.wait is not Reach.NONE
        return reply

    def _options(self, asked: Invalidation, timeout: float | None, author: Author) -> InvalidateOptions:
        longest = self._limits.request_timeout.seconds
        seconds = min(
            WAIT_SECONDS if timeout is None else timeout, max(longest - ANSWER_SECONDS, longest / 2)
        )
        return InvalidateOptions(asked.wait, seconds, author)

    def _check(self, asked: Invalidation, at: str) -> None:
        """Raises `RequestError` with the body path that is out of rule."""
        count = len(asked.keys) + len(asked.tags)
        check_count(count, self._limits, at)
        if not count and not asked.all:
            raise RequestError(ProblemKind.NO_TARGET, "name keys or tags, or say all: true", field=at)
        for i, key in enumerate(asked.keys):
            key_of(asked.namespace, key, f"{at}.keys[{i}]")
        check_tags(asked.tags, f"{at}.tags")
        if asked.over:
            self._check_over(asked.over, f"{at}.over")
        if asked.dry_run and asked.wait is not Reach.NONE:
            raise RequestError(
                ProblemKind.CONTRADICTION,
                "a dry run changes nothing that could be waited for",
                field=f"{at}.wait",
            )
        if asked.all and not asked.dry_run and asked.confirm != asked.namespace:
            why = (
                f"this purges all of {asked.namespace}: if that is meant, "
                f'send "confirm": "{asked.namespace}" as well'
            )
            raise RequestError(ProblemKind.CONFIRM_NEEDED, why, field=f"{at}.confirm")

    def _check_over(self, over: str, field: str) -> None:
        try:
            window = Duration.parse(over)
        except (ValueError, OverflowError):
            why = f"{over[:32]!r} is not a duration: write a number and one of us, ms, s, m, h, d, such as 5m"
            raise RequestError(ProblemKind.INVALID_BODY, why, field=field) from None
        if not 0 < window <= self._longest_over:
            why = (
                f"a purge is paced over more than 0 and at most {self._longest_over.seconds:g}s: "
                "so long fences are kept"
            )
            raise RequestError(ProblemKind.INVALID_BODY, why, field=field)

    async def receipt(self, _: web.BaseRequest, place: Place) -> Reply:
        """Answers how far a change has got by now. Raises `RequestError` (`no-such-receipt`)."""
        state = await self._invalidator.receipt(place.receipt)
        if state is None:
            why = "no change has this id, or it is too long ago: receipts are kept for 15 minutes"
            raise RequestError(ProblemKind.NO_SUCH_RECEIPT, why, field="id")
        return state_reply(state)


def _check_targets(grant: Grant, asked: Invalidation, at: str) -> None:
    """Raises `RequestError` for a target in a partition where the identity may not invalidate."""
    grant.require_keys(Action.INVALIDATE, asked.namespace, asked.keys, f"{at}.keys")
    grant.require_tags(Action.INVALIDATE, asked.namespace, asked.tags, f"{at}.tags")
    if asked.all:
        grant.require_whole(Action.INVALIDATE, asked.namespace, f"{at}.all")


def _of_change(change: Change) -> Mapping[str, Attribute]:
    """Returns the attributes of its span."""
    targets = len(change.keys) + len(change.tags)
    return {"cachesvc.namespace": change.namespace, "cachesvc.targets": targets, "cachesvc.all": change.all}
