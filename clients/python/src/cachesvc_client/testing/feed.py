"""`GET /v1/fences` of the fake service: what a subscriber is told, as bytes, without I/O."""

import re
from collections.abc import Callable
from typing import Any

import msgspec

from cachesvc_client.requests.own_writes import token_of as packed
from cachesvc_client.testing.clock import FakeClock
from cachesvc_client.testing.home import Fenced, digest
from cachesvc_client.testing.http import Refused
from cachesvc_client.testing.invalidating import REGION

_ID = re.compile(r"[a-z][a-z0-9-]*=([0-9]+-[0-9]+)(?:,.*)?")


class Subscription:
    """What is still to be read. `wake` is called when there is something."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self.wake: Callable[[], object] = lambda: None
        self.is_over = False

    def tell(self, event: bytes) -> None:
        self._pending += event
        self.wake()

    def take(self) -> bytes:
        taken = bytes(self._pending)
        self._pending.clear()
        return taken

    def end(self) -> None:
        self.is_over = True
        self.wake()


class Feed:
    """The events so far, and who listens."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._floor = clock.stamp()
        self._count = 0
        self._events: list[tuple[str, bytes]] = []
        """With the position after each."""
        self._subscriptions: list[Subscription] = []
        clock.on_advance(self.beat)

    def subscribe(self, last_event_id: str) -> Subscription:
        """Raises `Refused` for what is no event id."""
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
        self._count += 1
        event = _event("fences", self._id(), _data(fenced))
        self._events.append((self._position(), event))
        for subscription in self._subscriptions:
            subscription.tell(event)
        self.beat()

    def beat(self) -> None:
        heartbeat = self._heartbeat()
        for subscription in self._subscriptions:
            subscription.tell(heartbeat)

    def end(self) -> None:
        """Every subscriber is disconnected."""
        ended, self._subscriptions = self._subscriptions, []
        for subscription in ended:
            subscription.end()

    def _position(self) -> str:
        return f"{self._floor // 1000}-{self._count}"

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
