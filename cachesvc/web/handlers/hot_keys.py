"""`GET /v1/hotkeys?namespace=pages`: the keys that are read most, and the largest values.

Keys are named by digest. Their text is shown only with the debug token, because key text is
personal data.
"""

import hmac
from urllib.parse import parse_qsl

import msgspec
from aiohttp import web

from cachesvc.changes.audit_trail import AuditTrail
from cachesvc.config.service import Service
from cachesvc.model.entry import Key
from cachesvc.model.errors import RequestError
from cachesvc.model.problems import ProblemKind
from cachesvc.model.scope import Action
from cachesvc.telemetry.popularity.heavy_hitters import Hitter
from cachesvc.telemetry.popularity.hot_keys import Popularity
from cachesvc.telemetry.popularity.read_sample import EVERY
from cachesvc.web.access.door import grant_of
from cachesvc.web.contract import Popular
from cachesvc.web.handlers.probes import json_reply
from cachesvc.web.messages import HotKey, HotKeys, LargeValue
from cachesvc.web.replies.reply import Reply
from cachesvc.web.requests.callers import peer_of
from cachesvc.web.routing import Place, check_namespace

HEADER = "Cachesvc-Debug"
SHOWN = 20
"""The most keys in an answer."""
_encode = msgspec.json.Encoder().encode


class HotKeysView:
    """The handler of `GET /v1/hotkeys`."""

    def __init__(self, service: Service, hot_keys: Popular, trail: AuditTrail) -> None:
        self._token = service.telemetry.debug_token.encode()
        self._hot_keys = hot_keys
        self._trail = trail

    async def get(self, request: web.BaseRequest, place: Place) -> Reply:
        namespace = _namespace(place.query)
        grant = grant_of(request)
        grant.require_whole(Action.OBSERVE, namespace, "query")
        check_namespace(namespace, grant.namespaces, "query")
        with_text = self._may_see_text(request.headers.get(HEADER))
        if with_text:
            self._trail.operated(peer_of(request), "hotkeys with key text", namespace)
        return json_reply(_encode(_document(namespace, self._hot_keys.popularity(namespace), with_text)))

    def _may_see_text(self, token: str | None) -> bool:
        if token is None:
            return False
        if not self._token:
            why = (
                "nobody may see key text here: set telemetry.debug_token (CACHESVC_TELEMETRY_DEBUG_TOKEN) "
                "at the instance"
            )
            raise RequestError(ProblemKind.NO_DEBUG, why, field=HEADER)
        # `==` would take the longer, the more of the token is right: its time would give the token away.
        if not hmac.compare_digest(token.encode("utf-8", "surrogateescape"), self._token):
            raise RequestError(
                ProblemKind.NO_DEBUG, "this is not the instance's telemetry.debug_token", field=HEADER
            )
        return True


def _namespace(query: str) -> str:
    asked = parse_qsl(query, keep_blank_values=True, errors="replace")
    if [name for name, _ in asked] != ["namespace"]:
        raise RequestError(
            ProblemKind.BAD_QUERY, "say whose: ?namespace=NAME, and nothing else", field="query"
        )
    ((_, namespace),) = asked
    return namespace


def _document(namespace: str, found: Popularity, with_text: bool) -> HotKeys:
    return HotKeys(
        namespace=namespace,
        window_seconds=round(found.seconds, 3),
        reads_sampled=found.sampled,
        sampled_one_in=EVERY,
        hot=[_hot(namespace, hitter, found, with_text) for hitter in found.hitters[:SHOWN] if hitter.surely],
        largest=[
            LargeValue(_digest(namespace, text), size, text if with_text else "")
            for text, size in found.largest
        ],
    )


def _hot(namespace: str, hitter: Hitter[str], found: Popularity, with_text: bool) -> HotKey:
    return HotKey(
        digest=_digest(namespace, hitter.item),
        share=round(hitter.surely / found.sampled, 4),
        error=round(hitter.error / found.sampled, 4),
        reads_per_second=round(hitter.surely * EVERY / max(found.seconds, 1.0), 1),
        key=hitter.item if with_text else "",
    )


def _digest(namespace: str, text: str) -> str:
    return f"{Key.of(namespace, text).digest:016x}"
