"""The last invalidations, and the notes of readers of databases, from the regions' queues."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.maint_notifications import MaintNotificationsConfig

from cachesvc.changes.postgres.notes import Note
from cachesvc.changes.redis.source_notes import NOTES, notes_in
from cachesvc.commands.top.rows import ChangeRow
from cachesvc.model.printable import printable_in
from cachesvc.tiers.redis_connections import DEFAULT_ACCESS, Access, RedisConnections
from cachesvc.web.replies.redaction import HIDDEN

SHOWN = 6
TIMEOUT_SECONDS = 0.5


class AuditLog:
    """Reads last changes and notes from the queues. A context manager: it closes connections.

    A queue that cannot be asked from here adds nothing: an operator's machine often reaches only
    the instances.
    """

    def __init__(self, queues: Mapping[str, str], access: Access = DEFAULT_ACCESS) -> None:
        self._queues = {
            region: client for region, url in queues.items() if (client := _client(url, access)) is not None
        }
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "AuditLog":
        for client in self._queues.values():
            self._stack.push_async_callback(client.aclose)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def last(self) -> Sequence[ChangeRow]:
        """The last `SHOWN` changes of all regions, the newest first."""
        found = await asyncio.gather(*(_last(region, client) for region, client in self._queues.items()))
        return sorted((row for rows in found for row in rows), key=lambda row: row.at, reverse=True)[:SHOWN]

    async def notes(self) -> Mapping[tuple[str, str], Note]:
        """The notes of readers of databases, by region and slot."""
        found = await asyncio.gather(*map(_notes, self._queues.values()))
        return {
            (region, slot): note
            for region, notes in zip(self._queues, found, strict=True)
            for slot, note in notes.items()
        }


def _client(url: str, access: Access) -> Redis | None:
    if HIDDEN in url:  # an instance hides the password: each look would be a failed login in the queue's log
        return None
    try:
        connections: RedisConnections = RedisConnections.from_url(
            url,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
            driver_info=None,
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
            protocol=3,
            **access.settings_for(url),
        )
        return Redis.from_pool(connections)
    except ValueError:
        return None


async def _last(region: str, client: Redis) -> Sequence[ChangeRow]:
    try:
        items: Any = await client.xrevrange(
            "audit", count=SHOWN
        )  # the library's type allows for bytes and for other protocols
    except (RedisError, OSError, TimeoutError):
        return []
    return [_row(region, id_, printable_in(fields)) for id_, fields in items]


async def _notes(client: Redis) -> Mapping[str, Note]:
    try:
        answer: Any = client.hgetall(NOTES)  # redis-py has the type of both its clients here
        return notes_in(await answer)
    except (RedisError, OSError, TimeoutError):
        return {}


def _unproved(fields: Mapping[str, Any]) -> str:
    """The address of a caller without an identity, and the name that it gave itself."""
    address, says = fields.get("address", ""), fields.get("says", "")
    return f"{address}, says {says}" if address and says else address or says or fields.get("who", "")


def _row(region: str, id_: str, fields: Mapping[str, Any]) -> ChangeRow:
    soft, over = fields.get("soft") == "true", fields.get("over", "")
    return ChangeRow(
        at=int(id_.partition("-")[0]) / 1000,
        region=region,
        who=fields.get("identity") or _unproved(fields),
        instance=fields.get("instance", ""),
        namespace=fields.get("namespace", ""),
        targets=fields.get("targets", ""),
        how=f"over {over}" if over else "soft" if soft else "",
    )
