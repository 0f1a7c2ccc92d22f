"""The notes of readers of databases at a region's queue: the hash `changes:sources`."""

from collections.abc import Mapping
from typing import Any

from cachesvc.changes.postgres.notes import Note, decode, encode
from cachesvc.changes.redis.server import TIMEOUT, RedisServer
from cachesvc.tiers.redis_connections import DEFAULT_ACCESS, Access

NOTES = "changes:sources"
"""The name of the hash."""


class RedisNotes:
    """The notes on one Redis server."""

    def __init__(self, url: str, region: str, access: Access = DEFAULT_ACCESS) -> None:
        self._server = RedisServer(url, f"notes of {region}", TIMEOUT, access)

    def __repr__(self) -> str:
        return f"<RedisNotes {self._server.where}>"

    async def read(self, slot: str) -> Note:
        asking: Any = self._server.redis.hget(NOTES, slot)  # redis-py has the type of both its clients here
        found: Note = await self._server.guarded(asking, taken=decode)
        return found

    async def write(self, slot: str, note: Note) -> None:
        writing: Any = self._server.redis.hset(NOTES, slot, encode(note))
        await self._server.guarded(writing)

    async def stop(self) -> None:
        await self._server.stop()


def notes_in(answer: Mapping[str, str]) -> dict[str, Note]:
    """Returns the notes in the whole hash, by slot."""
    return {slot: decode(text.encode()) for slot, text in answer.items()}
