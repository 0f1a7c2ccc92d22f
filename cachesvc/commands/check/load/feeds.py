"""Follows `GET /v1/fences` of each instance, which says how far the instance has merged.

    instance merges a batch ── sends it with the vector of positions ──► Merged, on arrival

The recorded moment is a little later than the merge itself, so a read that started after it
started after the merge. A `reset` counts as well: behind its position lies either a merged fence
or a floor, and both refuse older copies.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import TypeAlias

import aiohttp
from msgspec import Struct

from cachesvc.commands.check.history import Merged
from cachesvc.commands.check.load.instances import Instance
from cachesvc.commands.check.load.origin import Note, Now

AGAIN_SECONDS = 0.2
"""The pause between the end of a subscription and the next one."""
SILENCE_SECONDS = 5.0
"""The longest silence. Heartbeats come twice a second, so a feed that is silent for longer
is dead, and its instance perhaps stopped."""


class FeedEvent(Struct, frozen=True):
    """One server-sent event."""

    kind: str
    """`fences`, `heartbeat` or `reset`. The checker's own kind `subscribed` says that the next
    event may be older than its arrival."""
    id: str = ""
    data: bytes = b""

    @property
    def vector(self) -> dict[str, str]:
        """The position in each region's stream, by region. Raises `ValueError`."""
        return vector_of(self.id)


Take: TypeAlias = Callable[[FeedEvent], None]


class EventParser:
    """Parses the bytes of a stream into events (WHATWG HTML, 9.2.6).

    Lines end in LF or CRLF; an event ends with an empty line.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._fields: dict[bytes, bytes] = {}

    def feed(self, chunk: bytes) -> list[FeedEvent]:
        """Returns the events that the chunk completes."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return [event for line in lines if (event := self._line(line.removesuffix(b"\r"))) is not None]

    def _line(self, line: bytes) -> FeedEvent | None:
        if line:
            name, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if name == b"data" and b"data" in self._fields:
                value = self._fields[b"data"] + b"\n" + value
            self._fields[name] = (
                value  # a comment's name is empty: it is kept until the event ends, and never asked for
            )
            return None
        fields, self._fields = self._fields, {}
        if b"event" not in fields:
            return None
        return FeedEvent(fields[b"event"].decode(), fields.get(b"id", b"").decode(), fields.get(b"data", b""))


def vector_of(text: str) -> dict[str, str]:
    """Returns the positions of an event's id by region. Raises `ValueError`.

    An id is such as `eu=1700-3@5f3a9c01,us=1700-0@07d1e2b4`.
    """
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    if not all(region and is_pair and position for region, is_pair, position in pairs):
        raise ValueError(f"{text[:200]!r} is no vector of positions")
    return {region: position for region, _, position in pairs}


class Feed:
    """The subscription to one instance."""

    def __init__(self, instance: Instance, http: aiohttp.ClientSession, take: Take) -> None:
        self.instance = instance
        self.resets = 0
        self.broken = 0
        """How many subscriptions ended."""
        self.started = asyncio.Event()
        """Set when the first event has come."""
        self.why = "nothing was sent"
        """The reason for the end of the last subscription."""
        self._http = http
        self._take = take
        self._last_id = ""

    def __repr__(self) -> str:
        return (
            f"<Feed of {self.instance.name} at {self._last_id or 'no position'}:"
            f" {self.broken} breaks, {self.resets} resets>"
        )

    async def follow(self) -> None:
        """Follows the feed until it is cancelled; after an end it subscribes again, from the last
        event.

        An instance that closes a subscription, or refuses one, may be starting anew: it counts as
        gone until it says that it is ready. After mere silence it does not count as gone: its
        answers when it wakes up are to be judged.
        """
        while True:
            try:
                await self._subscribe()
                self.instance.is_gone = True
            except TimeoutError as error:  # comes first: aiohttp's own is a `ClientError` as well
                self.why = str(error) or "silence"
            except (aiohttp.ClientError, OSError) as error:
                self.why = str(error) or type(error).__name__
                self.instance.is_gone = True
            self.broken += 1
            await asyncio.sleep(AGAIN_SECONDS)

    async def _subscribe(self) -> None:
        headers = {"Accept": "text/event-stream"} | (
            {"Last-Event-ID": self._last_id} if self._last_id else {}
        )
        timeout = aiohttp.ClientTimeout(sock_connect=SILENCE_SECONDS, sock_read=SILENCE_SECONDS)
        async with self._http.get(
            f"{self.instance.url}/v1/fences",
            headers=headers,
            timeout=timeout,
            raise_for_status=True,
            allow_redirects=False,
        ) as answer:
            self._take(FeedEvent("subscribed"))
            parser = EventParser()
            async for chunk in answer.content.iter_any():
                for event in parser.feed(chunk):
                    self._received(event)

    def _received(self, event: FeedEvent) -> None:
        self._last_id = event.id or self._last_id
        self.resets += event.kind == "reset"
        self._take(event)
        self.started.set()


class Merges:
    """Records the positions of one instance, whenever one moves.

    A position before an earlier one means that the instance has started anew.
    """

    def __init__(self, instance: str, note: Note, now: Now) -> None:
        self._instance = instance
        self._note = note
        self._now = now
        self._positions: dict[str, str] = {}

    def take(self, event: FeedEvent) -> None:
        """Records the positions that the event has moved."""
        moment = self._now()
        for region, position in self._moved(event.vector.items()):
            self._note(Merged(self._instance, region, position, moment))

    def _moved(self, vector: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        moved = [(region, position) for region, position in vector if self._positions.get(region) != position]
        self._positions.update(moved)
        return moved
