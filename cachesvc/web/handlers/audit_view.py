"""`GET /v1/audit`: what callers of this instance changed and were refused.

Filters stand in the query: `?namespace=pages&identity=checkout&since=5m&limit=20`.
"""

from urllib.parse import parse_qsl

import msgspec
from aiohttp import web

from cachesvc.changes.audit_trail import AuditTrail
from cachesvc.config.service import Service
from cachesvc.model.clock import Clock
from cachesvc.model.errors import RequestError
from cachesvc.model.problems import ProblemKind
from cachesvc.model.scope import EVERY, Action
from cachesvc.model.units import Duration
from cachesvc.web.access.door import grant_of
from cachesvc.web.handlers.probes import json_reply
from cachesvc.web.messages import AuditPage
from cachesvc.web.replies.reply import Reply
from cachesvc.web.requests.limits import MOST_RECORDS
from cachesvc.web.routing import Place

FILTERS = ("namespace", "identity", "since", "limit")
USUAL = 100
"""The most records in an answer without `limit`."""
_encode = msgspec.json.Encoder().encode


class AuditView:
    """The handler of `GET /v1/audit`."""

    def __init__(self, service: Service, trail: AuditTrail, clock: Clock) -> None:
        self._region, self._instance = service.region, service.instance
        self._trail = trail
        self._clock = clock

    async def get(self, request: web.BaseRequest, place: Place) -> Reply:
        """Answers the records that the query asks for. Raises `RequestError`.

        It needs `observe` in the namespace that is asked for, or, without one, in all of them.
        """
        asked = _asked(place.query)
        since, namespace = asked.get("since", ""), asked.get("namespace", "")
        grant_of(request).require_whole(Action.OBSERVE, namespace or EVERY, "query")
        records = self._trail.find(
            namespace=namespace,
            identity=asked.get("identity", ""),
            since_us=self._clock.now_us() - _duration(since) if since else 0,
            limit=_limit(asked.get("limit", "")),
        )
        trail = self._trail
        return json_reply(
            _encode(AuditPage(self._region, self._instance, records, trail.dropped, trail.left_out))
        )


def _asked(query: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True, errors="replace")
    asked = dict(pairs)
    if len(asked) != len(pairs) or not asked.keys() <= set(FILTERS):
        raise _refusal(f"it may have {', '.join(FILTERS)}, each once")
    return asked


def _duration(text: str) -> int:
    try:
        return Duration.parse(text)
    except (ValueError, OverflowError):
        raise _refusal("since: write how far back, such as 5m") from None


def _limit(text: str) -> int:
    if not text:
        return USUAL
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= MOST_RECORDS):
        raise _refusal(f"limit: write 1 to {MOST_RECORDS}")
    return int(text)


def _refusal(why: str) -> RequestError:
    return RequestError(ProblemKind.BAD_QUERY, why, field="query")
