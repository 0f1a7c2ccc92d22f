"""Puts raw change events on a region's `changes` stream (`XADD`), as a producer outside
would."""

import uuid
from collections.abc import Mapping
from types import TracebackType

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from cachesvc.tiers.redis_connections import DEFAULT_ACCESS, Access, RedisConnections, is_demotion

STREAM = "changes"
TIMEOUT_SECONDS = 2.0


class QueueError(Exception):
    """The queue of `region` did not confirm that it took the event."""

    def __init__(self, region: str, detail: str) -> None:
        super().__init__(f"changes of {region}: {detail}")
        self.region = region


class Producers:
    """One connection pool per region. An async context manager, which closes the pools on
    leaving."""

    def __init__(self, queues: Mapping[str, str], source: str, access: Access = DEFAULT_ACCESS) -> None:
        """`queues`: URL by region. `source`: the `source` of the events, a URI reference."""
        self.regions = tuple(queues)
        self._source = source
        self._clients = {region: _client(url, access) for region, url in queues.items()}

    async def __aenter__(self) -> "Producers":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client, _ in self._clients.values():
            await client.aclose()

    async def add(self, region: str, change: Mapping[str, object]) -> str:
        """Adds a change and returns its id, `region:stream-id`.

        Raises `QueueError`; then the queue may have taken the change or not.
        """
        client, connections = self._clients[region]
        connections.follow()
        try:
            item = await client.xadd(STREAM, {"event": self._event(change)})
        except (RedisError, OSError) as error:
            if is_demotion(error):
                await connections.leave()
            raise QueueError(region, str(error)) from error
        return f"{region}:{item.decode() if isinstance(item, bytes) else item}"

    def _event(self, change: Mapping[str, object]) -> bytes:
        """The change as a CloudEvent 1.0 in structured JSON."""
        return msgspec.json.encode(
            {
                "specversion": "1.0",
                "type": "dev.cachesvc.change.v1",
                "id": uuid.uuid4().hex,
                "source": self._source,
                "datacontenttype": "application/json",
                "data": change,
            }
        )


def _client(url: str, access: Access) -> tuple[Redis, RedisConnections]:
    # The announcer retries, and records each failure.
    connections = RedisConnections.at(
        url, access, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS
    )
    return Redis.from_pool(connections), connections
