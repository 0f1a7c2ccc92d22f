"""The near cache's subscription to `GET /v1/fences`, without its I/O.

A runner (`aio/feed_task.py` on an event loop, `sync/feed_thread.py` on a thread) connects, hands in
the bytes that it reads, and says when the connection ended. Everything else is decided here: the
request's headers, the effect of an event on the near cache, and where and when to try again.

    url() ─► connect with headers() ─► opened() ─► received(bytes)… ─► lost() ─► pause() ─► url() …

The id of an event is remembered after the event has been applied. So if the connection breaks
before an event is applied, the event is sent again on resumption.
"""

import binascii
import logging
import random
import struct
from base64 import urlsafe_b64decode
from collections.abc import Callable, Sequence

import msgspec
from msgspec import Struct

from cachesvc_client.near.near import Near, Pair, target_digest
from cachesvc_client.near.watermark import SILENCE_SECONDS
from cachesvc_client.protocol.sse import ServerEvent, SseError, SseParser

log = logging.getLogger(__name__)

PATH = "/v1/fences"
READ_TIMEOUT = SILENCE_SECONDS
"""Seconds without a byte after which the feed counts as broken."""
CONNECT_TIMEOUT = 2.0
"""Seconds."""
FIRST_PAUSE = 0.05
"""Seconds: the upper limit of the first pause; it doubles with each failure."""
LONGEST_PAUSE = 2.0
"""Seconds: the upper limit of every pause."""

LONGEST_ID = 4096
"""Characters of the longest id of an event: a position for each region."""

_PAIR = struct.Struct(">QQ")


class FeedError(Exception):
    """The feed cannot be followed further.

    Either the instance refused the request, or it sent something that breaks the protocol.
    """


class _Fences(Struct):
    fences: str = ""
    soft: str = ""
    paced: list[tuple[str, int, int]] = []
    namespaces: list[tuple[str, int, bool, int]] = []


class _Heartbeat(Struct):
    complete_to: dict[str, int]
    floor: int
    now: int


class _Reset(Struct):
    floor: int
    reason: str = ""


_fences = msgspec.json.Decoder(_Fences).decode
_heartbeat = msgspec.json.Decoder(_Heartbeat).decode
_reset = msgspec.json.Decoder(_Reset).decode


class FeedStatistics(Struct, frozen=True):
    """Counters of one feed since the client was made, and the feed's present state."""

    is_up: bool
    connects: int
    """Connections that an instance answered with status 200."""
    resets: int
    """`reset` events: at each, fences may have been missing."""
    events: int
    failures: int
    """Failures that the feed does not know; the first of an outage is logged, with traceback."""
    last_id: str
    """The id of the last event that was applied; empty if the next connection begins anew."""


class NearFeed:
    """The state of a client's subscription; each client has one.

    One runner calls its methods, from one thread.
    """

    def __init__(self, near: Near, instances: Callable[[], Sequence[str]], rng: random.Random) -> None:
        """`instances` returns the base URLs to choose from at the moment of the call."""
        self._near = near
        self.instances = instances
        self._rng = rng
        self._nth = rng.randrange(1 << 16)  # clients spread over the instances
        self._failures = 0
        self._parser = SseParser()
        self.last_id = ""
        self.is_up = False
        self._is_told = False
        """True if the instance has said that it stops: its end is no failure."""
        self.connects = 0
        self.resets = 0
        self.events = 0
        self.unknown_failures = 0

    def __repr__(self) -> str:
        return (
            f"<NearFeed [{'up' if self.is_up else 'down'}, {self.resets} resets]"
            f" at {self.last_id or 'no position'}>"
        )

    def statistics(self) -> FeedStatistics:
        """Returns the counters and the state of this moment."""
        return FeedStatistics(
            self.is_up, self.connects, self.resets, self.events, self.unknown_failures, self.last_id
        )

    def url(self) -> str:
        """Returns the URL to connect to: the same instance until it fails, then the next one."""
        urls = self.instances()
        return urls[self._nth % len(urls)].rstrip("/") + PATH

    def headers(self) -> dict[str, str]:
        """Returns the headers of the request; they resume after the last event that was applied."""
        resuming = {"Last-Event-ID": self.last_id} if self.last_id else {}
        return {"Accept": "text/event-stream", "Cache-Control": "no-cache", **resuming}

    def opened(self, status: int) -> None:
        """Notes that the instance has answered; raises `FeedError` unless the status is 200."""
        if status == 400:
            self.last_id = ""  # the service cannot read this id: the next attempt begins anew
        if status != 200:
            raise FeedError(f"status {status}")
        self._parser = SseParser(self.last_id)
        self.connects += 1

    def received(self, chunk: bytes) -> None:
        """Applies the events that end in `chunk`, in order.

        Raises `FeedError` for an event that breaks the protocol: nothing after it can be trusted.
        """
        try:
            for event in self._parser.feed(chunk):
                _check_id(event.id)
                self._apply(event)
                self.last_id = event.id
                self.events += 1
                self._failures = 0
                self.is_up = True
        except (
            *(SseError, msgspec.MsgspecError, binascii.Error, struct.error),
            *(ValueError, OverflowError, RecursionError),
        ) as error:
            raise FeedError(f"not what the protocol says: {error}") from error

    def failed(self, error: Exception) -> None:
        """Notes a failure that the runner does not know, as the loss of the connection.

        An event that was being applied has no id yet, so it is sent again. Should it fail each time,
        near caches stay bypassed.
        """
        self.unknown_failures += 1
        if self.is_up or not self._failures:
            log.error("the feed of fences failed", exc_info=error)
        self.lost(type(error).__name__)

    def lost(self, why: object) -> None:
        """Notes that the connection could not be made, has ended, or was silent; `why` is logged.

        Near caches are bypassed from then on. One warning is logged per outage, not one per attempt; none
        for an instance that has said that it stops.
        """
        self._near.down()
        if self._is_told:
            log.debug("the feed of fences moves to another instance: this one stops")
        else:
            if self.is_up or not self._failures:
                log.warning("the feed of fences is down, near caches are bypassed: %s", why)
            self._failures += 1
        self.is_up = self._is_told = False
        self._nth += 1

    def closed(self) -> None:
        """Notes that no runner follows the feed any more: near caches are bypassed."""
        self._near.down()
        self.is_up = False

    def after_fork(self) -> None:
        """Prepares the feed in a forked child; to be called before a runner starts there."""
        self._near.after_fork()

    def forget(self) -> None:
        """Begins anew at another service; to be called while no runner runs."""
        self._near.forget()
        self.last_id = ""

    def pause(self) -> float:
        """Returns the seconds until the next attempt; the pause is random.

        It is short after a first failure, because another instance is likely to be well. It is
        random because all clients of an instance that died connect anew at the same moment.
        """
        return self._rng.uniform(0.0, min(FIRST_PAUSE * 2.0 ** min(self._failures - 1, 16), LONGEST_PAUSE))

    def _apply(self, event: ServerEvent) -> None:
        if event.kind == "fences":
            self._merge(_fences(event.data))
        elif event.kind == "heartbeat":
            beat = _heartbeat(event.data)
            self._near.raise_floor(beat.floor)
            self._near.heartbeat(min(beat.complete_to.values(), default=0), beat.now)
        elif event.kind == "reset":
            self.resets += 1
            self._near.raise_floor(_reset(event.data).floor, _queues_of(event.id))
        elif event.kind == "stopping":
            self._is_told = True

    def _merge(self, told: _Fences) -> None:
        near = self._near
        near.merge(_pairs(told.fences))
        near.merge(_pairs(told.soft), soft=True)
        for digest, at, over in told.paced:
            near.pace(int(digest, 16), at, over)
        for namespace, at, soft, over in told.namespaces:
            target = target_digest(namespace)
            near.know_namespace(target)
            if over:
                near.pace(target, at, over)
            else:
                near.merge([(target, at)], soft=soft)


def _queues_of(id_: str) -> str:
    """Returns the queues that an event's id has positions of, as answers name them."""
    members = [member.partition("=") for member in id_.split(",") if member]
    return ",".join(sorted(f"{region}@{position.partition('@')[2]}" for region, _, position in members))


def _check_id(id_: str) -> None:
    """Raises `ValueError` for an id that cannot go into a header."""
    if len(id_) > LONGEST_ID or not (id_.isascii() and id_.isprintable()):
        raise ValueError("an id that is none of the service's")


def _pairs(text: str) -> list[Pair]:
    return list(_PAIR.iter_unpack(urlsafe_b64decode(text + "=" * (-len(text) % 4))))
