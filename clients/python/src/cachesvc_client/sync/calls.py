"""One namespace's requests over the transport. Deadlines are times on `time.monotonic`, `home` is the instance to ask first."""

import time
from collections.abc import Callable, Sequence

from cachesvc_client.errors import CacheError
from cachesvc_client.instances.endpoints import Endpoint
from cachesvc_client.protocol.turns import first_turn
from cachesvc_client.protocol.wire import Got, Invalidation, Put, PutItem, Receipt
from cachesvc_client.requests.handed_tokens import Wanted
from cachesvc_client.requests.http import Reply, Request
from cachesvc_client.requests.namespace_requests import NamespaceRequests
from cachesvc_client.sync.transport import Transport
from cachesvc_client.values.lifetimes import Lifetimes


class Calls:
    def __init__(self, requests: NamespaceRequests, transport: Transport) -> None:
        self.namespace = requests.namespace
        self._requests = requests
        self._transport = transport

    def home(self, wanted: Wanted) -> Endpoint:
        """The one place that decides whom a key is asked of."""
        return self._transport.home(self._requests.digest(wanted))

    def home_of_item(self, item: PutItem) -> Endpoint:
        return self.home(item.key)

    def read(
        self, home: Endpoint, wanted: list[Wanted], deadline: float, turn: float | None = None
    ) -> Sequence[Got | CacheError]:
        """Keys that are not there after `turn` seconds (unless said, a first turn) are answered as late."""
        seconds = first_turn(len(wanted), deadline - time.monotonic()) if turn is None else turn
        return self._each_part(
            wanted, home, deadline, lambda part, token: self._requests.read(part, token, seconds)
        )

    def lease(
        self, home: Endpoint, wanted: list[Wanted], deadline: float, wait: float = 0.0
    ) -> Sequence[Got | CacheError]:
        return self._each_part(
            wanted, home, deadline, lambda part, token: self._requests.lease(part, token, wait)
        )

    def _each_part(
        self,
        wanted: list[Wanted],
        home: Endpoint,
        deadline: float,
        ask: Callable[[Sequence[Wanted], str], Request],
    ) -> list[Got | CacheError]:
        answers: list[Got | CacheError] = []
        for part, token in self._requests.parts(wanted):
            asked_at = time.monotonic()
            answers += self._requests.got(
                self._transport.send(ask(part, token), deadline, home), part, asked_at
            )
        return answers

    def read_alone(self, home: Endpoint, wanted: list[Wanted], deadline: float) -> Sequence[Got | CacheError]:
        """One key, by `GET`."""
        ((part, token),) = self._requests.parts(wanted)
        request = self._requests.read_alone(part[0], token)
        return [self._requests.got_alone(self._transport.send(request, deadline, home))]

    def put(self, home: Endpoint, items: list[PutItem], deadline: float) -> Sequence[Put | CacheError]:
        return self._requests.put_results(
            self._transport.send(self._requests.put(items), deadline, home), items
        )

    def touch(self, key: str, got: Got, lifetimes: Lifetimes, deadline: float) -> bool:
        return self._requests.touched(
            self._to_home(key, self._requests.touch(key, got, lifetimes), deadline), key
        )

    def delete(self, key: str, deadline: float) -> Receipt:
        return self._requests.receipt(self._to_home(key, self._requests.delete(key), deadline), [key])

    def _to_home(self, key: str, request: Request, deadline: float) -> Reply:
        return self._transport.send(request, deadline, self.home(key))

    def invalidate(self, asked: Invalidation, deadline: float) -> Receipt:
        reply = self._transport.send(self._requests.invalidate(asked), deadline)
        return self._requests.receipt(reply, asked.keys, lenient=asked.is_lenient)
