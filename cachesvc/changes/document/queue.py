"""The document in the Redis of one region's queue: a list of records, and a hash of texts.

One script compares and puts (`put_document.lua`). Readers ask for the newest record alone, and for
its text only if it is new to them.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from cachesvc.changes.document.contract import (
    HISTORY,
    LARGEST_BYTES,
    ConflictError,
    Document,
    DocumentStore,
    Version,
)
from cachesvc.changes.redis.server import TIMEOUT, RedisServer, RefusedError
from cachesvc.model.errors import TierError
from cachesvc.tiers.answer_shapes import ShapeError, data, parts
from cachesvc.tiers.redis_connections import DEFAULT_ACCESS, Access

RECORDS, DOCUMENTS = "topology:records", "topology:documents"


class QueueDocument(DocumentStore):
    """The document of one queue's server."""

    def __init__(
        self, url: str, region: str, access: Access = DEFAULT_ACCESS, keys: Sequence[bytes] = ()
    ) -> None:
        super().__init__(f"queue {region}", keys)
        self.url = url
        self._server = RedisServer(url, self.where, TIMEOUT, access)
        self._put = self._server.unspanned("put_document")

    async def newest(self) -> Version | None:
        redis: Any = self._server.redis
        found: Version | None = await self._server.guarded(redis.lindex(RECORDS, 0), taken=_record)
        return None if found is None else self._genuine(found)

    async def load(self, number: int | None = None) -> Document | None:
        versions = await self.history()
        chosen = next((one for one in versions if number in (None, one.number)), None)
        if chosen is None:
            return None
        redis: Any = self._server.redis
        text: str | None = await self._server.guarded(redis.hget(DOCUMENTS, str(chosen.number)), taken=_text)
        return None if text is None else Document(self._genuine(chosen), text).checked(self.where)

    async def compare_and_set(self, document: Document, expected: Version | None) -> Sequence[TierError]:
        text = document.text.encode()
        if len(text) > LARGEST_BYTES:
            raise RefusedError(self.where, f"the document has more than {LARGEST_BYTES >> 20} MiB")
        record = msgspec.json.encode(document.version)
        seen = expected.hash if expected is not None else ""
        args = [seen, document.version.number, record, text, HISTORY]
        is_put, found = await self._put(args, lambda said: (bool(parts(said)[0]), _record(said[1])))
        if not is_put:
            raise ConflictError(self.where, found)
        return ()

    async def history(self) -> Sequence[Version]:
        redis: Any = self._server.redis
        found: Sequence[Version] = await self._server.guarded(
            redis.lrange(RECORDS, 0, HISTORY - 1), taken=lambda said: [_known(one) for one in parts(said)]
        )
        return found

    async def close(self) -> None:
        await self._server.stop()


def _record(said: Any) -> Version | None:
    return None if said is None or not data(said) else _known(said)


def _known(said: Any) -> Version:
    """Returns the version of a record. Raises `ShapeError`."""
    try:
        return msgspec.json.decode(data(said), type=Version)
    except msgspec.MsgspecError as error:
        raise ShapeError("a record of another form") from error


def _text(said: Any) -> str | None:
    """Returns the text. Raises `ShapeError` if it is not UTF-8."""
    if said is None:
        return None
    try:
        return data(said).decode()
    except UnicodeDecodeError as error:
        raise ShapeError("a text that is not UTF-8") from error
