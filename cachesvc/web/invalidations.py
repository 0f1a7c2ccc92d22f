"""`POST /v1/invalidations`: a change as a plain document or as a CloudEvent."""

from collections.abc import Mapping

import msgspec
from aiohttp import web

from cachesvc.config import Server
from cachesvc.errors import RequestError
from cachesvc.model import Change
from cachesvc.topology import Namespace
from cachesvc.web.bodies import CLOUDEVENT, JSON, MSGPACK, Decodes, decode, media_type_of, read_body
from cachesvc.web.messages import ChangeEvent
from cachesvc.web.places import Place, check_namespace, check_tags, key_of
from cachesvc.web.receipts import receipt_reply
from cachesvc.web.reply import Reply
from cachesvc.web.surface import Invalidating

_PLAIN: dict[str, Decodes[Change]] = {JSON: msgspec.json.Decoder(Change), MSGPACK: msgspec.msgpack.Decoder(Change)}
_EVENT = msgspec.json.Decoder(ChangeEvent)


class Invalidations:
    def __init__(self, limits: Server, namespaces: Mapping[str, Namespace], invalidator: Invalidating) -> None:
        self._limits = limits
        self._namespaces = namespaces
        self._invalidator = invalidator

    async def post(self, request: web.BaseRequest, place: Place) -> Reply:
        media = media_type_of(request, JSON, MSGPACK, CLOUDEVENT)
        body = await read_body(request, self._limits.max_body)
        at = "$.data" if media == CLOUDEVENT else "$"
        change = decode(_EVENT, body).data if media == CLOUDEVENT else decode(_PLAIN[media], body)
        self._check(change, at)
        return receipt_reply(await self._invalidator.invalidate(change))

    def _check(self, change: Change, at: str) -> None:
        """Raises `RequestError` with the path of what is out of rule."""
        check_namespace(change.namespace, self._namespaces, f"{at}.namespace")
        count = len(change.keys) + len(change.tags)
        if count > self._limits.max_batch_keys:
            raise RequestError(413, "too-many-keys", f"{count} keys and tags, at most {self._limits.max_batch_keys}", field=at)
        if not count and not change.all:
            raise RequestError(400, "no-target", "name keys or tags, or say all: true", field=at)
        for i, key in enumerate(change.keys):
            key_of(change.namespace, key, f"{at}.keys[{i}]")
        check_tags(change.tags, f"{at}.tags")
