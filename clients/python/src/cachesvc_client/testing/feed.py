"""The bytes that subscribers of the fake service's `GET /v1/fences` are sent; no I/O here."""

import re
from collections.abc import Callable
from typing import Any

import msgspec

from cachesvc_client.requests.own_writes import token_of as packed
from cachesvc_client.testing.clock import FakeClock
from cachesvc_client.testing.contract import EPOCH, REGION
from cachesvc_client.testing.home import Fenced, digest
from cachesvc_client.testing.http import Refused

_ID = re.compile(r"[a-z][a-z0-9-]*=([0-9]+-[0-9]+(?:@[0-9a-f]{8})?)(?:,.*)?")


class Subscription:
    """The bytes that one subscriber has still to read; `wake` is called when there are more."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self.wake: Callable[[], object] = lambda: None
        self.is_over = False

    def tell(self, event: bytes) -> None:
        """Appends an event."""
        self._pending += event
        self.wake()

    def take(self) -> bytes:
        """Returns the bytes that are there, and removes them."""
        taken = bytes(self._pending)
        self._pending.clear()
        return taken

    def leave(self) -> None:
        """Notes that the subscriber is gone, and its event loop perhaps with it."""
        self.is_over = True
        self.wake = lambda: None

    def end(self) -> None:
        """Disconnects the subscriber after the bytes that are there."""
        self.is_over = True
        self.wake()


class Feed:
    """The events so far, and the subscriptions."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._floor = clock.stamp()
        self._count = 0
        self._events: list[tuple[str, bytes]] = []
        """Each event with the position after it."""
        self._subscriptions: list[Subscription] = []
        clock.on_advance(self.beat)

    def subscribe(self, last_event_id: str) -> Subscription:
        """Returns a subscription that begins after the event of this id.

        If the event is not known, the subscription begins with a `reset`. Raises `Refused` for a
        text that is no event id; an empty text is allowed.
        """
        match = _ID.fullmatch(last_event_id)
        if last_event_id and match is None:
            raise Refused(400, "bad-header", f"{last_event_id[:64]!r} is no event id", "Last-Event-ID")
        subscription = Subscription()
        known = [position for position, _ in self._events]
        if match is not None and match[1] in known:
            for _, event in self._events[known.index(match[1]) + 1 :]:
                subscription.tell(event)
        else:
            subscription.tell(
                _event("reset", self._id(), {"floor": self._floor, "reason": "this subscription is new"})
            )
        subscription.tell(self._heartbeat())
        self._subscriptions.append(subscription)
        return subscription

    def told(self, fenced: list[Fenced]) -> None:
        """Sends the fences to all subscribers as one event, and a heartbeat after it."""
        self._count += 1
        event = _event("fences", self._id(), _data(fenced))
        self._events.append((self._position(), event))
        for subscription in self._subscriptions:
            subscription.tell(event)
        self.beat()

    def beat(self) -> None:
        """Sends a heartbeat to all subscribers."""
        heartbeat = self._heartbeat()
        self._subscriptions = [one for one in self._subscriptions if not one.is_over]
        for subscription in self._subscriptions:
            subscription.tell(heartbeat)

    def end(self) -> None:
        """Disconnects every subscriber."""
        ended, self._subscriptions = self._subscriptions, []
        for subscription in ended:
            subscription.end()

    def _position(self) -> str:
        return f"{self._floor // 1000}-{self._count}@{EPOCH}"

    def _id(self) -> str:
        return f"{REGION}={self._position()}"

    def _heartbeat(self) -> bytes:
        now = self._clock.now_us()
        return _event(
            "heartbeat", self._id(), {"complete_to": {REGION: now}, "floor": self._floor, "now": now}
        )


def _data(fenced: list[Fenced]) -> dict[str, Any]:
    exact = [one for one in fenced if "/" in one.target or "#" in one.target]
    pairs = {
        soft: [(digest(one.target), one.at) for one in exact if one.soft is soft and not one.over]
        for soft in (False, True)
    }
    members = {
        "fences": packed(pairs[False]),
        "soft": packed(pairs[True]),
        "paced": [[f"{digest(one.target):016x}", one.at, one.over] for one in exact if one.over],
        "namespaces": [[one.target, one.at, one.soft, one.over] for one in fenced if one not in exact],
    }
    return {name: member for name, member in members.items() if member}


def _event(kind: str, id_: str, data: dict[str, Any]) -> bytes:
    return b"event: %b\nid: %b\ndata: %b\n\n" % (kind.encode(), id_.encode(), msgspec.json.encode(data))
