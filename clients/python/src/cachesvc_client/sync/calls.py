# Generated from aio/calls.py by `python clients/python/unasync.py`: change that, and run this.
"""The calls of one namespace: its requests are sent, and their replies read.

Deadlines are times on `time.monotonic`. `home` is the instance to ask first.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial

from cachesvc_client.errors import CacheError
from cachesvc_client.instances.endpoints import Endpoint
from cachesvc_client.protocol.turns import SLOW_TURN, first_turn, is_late, without_room
from cachesvc_client.protocol.wire import Got, Invalidation, Put, PutItem, Receipt
from cachesvc_client.requests.handed_tokens import Wanted
from cachesvc_client.requests.http import Reply, Request, told
from cachesvc_client.requests.namespace_requests import NamespaceRequests
from cachesvc_client.sync.transport import Transport
from cachesvc_client.values.lifetimes import Lifetimes


class Calls:
    def __init__(self, requests: NamespaceRequests, transport: Transport) -> None:
        self.namespace = requests.namespace
        self._requests = requests
        self._transport = transport

    def home(self, wanted: Wanted) -> Endpoint:
        """The instance that a key is asked of. Decided here, or by `reader`, for every call."""
        return self._transport.sole_home or self._transport.home(self._requests.digest(wanted))

    def reader(self, wanted: Wanted) -> Endpoint:
        """The instance that a key is read from: that of `home`, unless it is a hot key."""
        return self._transport.sole_home or self._transport.reader(self._requests.digest(wanted))

    def home_of_item(self, item: PutItem) -> Endpoint:
        return self.home(item.key)

    def by_home(self, wanted: Sequence[Wanted]) -> dict[Endpoint, Sequence[Wanted]]:
        """The instances that many keys are asked of, each with its keys in their order."""
        return self._parted(wanted, self.home)

    def by_reader(self, wanted: Sequence[Wanted]) -> dict[Endpoint, Sequence[Wanted]]:
        """The instances that many keys are read from, each with its keys in their order."""
        return self._parted(wanted, self.reader)

    def _parted(
        self, wanted: Sequence[Wanted], choose: Callable[[Wanted], Endpoint]
    ) -> dict[Endpoint, Sequence[Wanted]]:
        sole = self._transport.sole_home
        if sole is not None and wanted:
            return {sole: wanted}
        parts: dict[Endpoint, list[Wanted]] = {}
        for one in wanted:
            parts.setdefault(choose(one), []).append(one)
        return dict(parts)

    def read(
        self, home: Endpoint, wanted: list[Wanted], deadline: float, turn: float | None = None
    ) -> Sequence[Got | CacheError]:
        """Reads keys; those that are not there after `turn` seconds are answered as late.

        Unless given, the turn is a first one. A key that is asked for alone has all of the time.
        """
        if turn is None and len(wanted) == 1:
            return self._read_one(home, wanted, deadline)
        if turn is None:
            turn = first_turn(len(wanted), deadline - time.monotonic())
        return self._each_part(partial(self._requests.read, turn=turn), home, wanted, deadline)

    def _read_one(self, home: Endpoint, wanted: list[Wanted], deadline: float) -> Sequence[Got | CacheError]:
        """Reads one key; if it is late, the instance that said so has all the time left."""
        ((part, token),) = self._requests.parts(wanted)
        request = self._requests.read(part, token)
        asked_at = time.monotonic()
        reply = self._transport.send(request, deadline, home)
        answers = self._requests.got(reply, part, asked_at)
        if reply.is_share and is_late(answers[0]):
            asked_at = time.monotonic()
            reply = self._transport.send(request.staying(), deadline, reply.endpoint)
            answers = self._requests.got(reply, part, asked_at)
        return answers

    def read_slow(self, home: Endpoint, wanted: list[Wanted], deadline: float) -> Sequence[Got | CacheError]:
        """Reads keys that were late, for one more turn, or until the first of their deadlines.

        The connection is given up at the deadline: the caller that sends this waits for it.
        """
        turn = min(SLOW_TURN, told(deadline - time.monotonic()))
        return self.read(home, wanted, deadline, turn)

    def lease(
        self, home: Endpoint, wanted: list[Wanted], deadline: float, wait: float = 0.0, *, over: bool = False
    ) -> Sequence[Got | CacheError]:
        ask = partial(self._requests.lease, wait=wait, over=over)
        return self._each_part(ask, home, wanted, deadline)

    def _each_part(
        self,
        ask: Callable[[list[Wanted], str], Request],
        home: Endpoint,
        wanted: list[Wanted],
        deadline: float,
    ) -> Sequence[Got | CacheError]:
        """Asks until every key is answered: an answer that is full leaves out keys, one never all."""
        answers = self._asked(ask, home, wanted, deadline)
        left = without_room(answers)
        if not left:
            return answers
        found = list(answers)
        while left:
            try:
                more = self._asked(ask, home, [wanted[place] for place in left], deadline)
            except CacheError as error:
                more = [error] * len(left)
            for place, answer in zip(left, more, strict=True):
                found[place] = answer
            again = without_room(more)
            if len(again) == len(left):
                break
            left = [left[place] for place in again]
        return found

    def _asked(
        self,
        ask: Callable[[list[Wanted], str], Request],
        home: Endpoint,
        wanted: list[Wanted],
        deadline: float,
    ) -> Sequence[Got | CacheError]:
        parts = [(part, ask(part, token)) for part, token in self._requests.parts(wanted)]
        asked_at = time.monotonic()
        if len(parts) == 1:  # nearly always
            part, request = parts[0]
            return self._requests.got(self._transport.send(request, deadline, home), part, asked_at)
        send = partial(self._transport.send, deadline=deadline, home=home)
        replies = list(map(send, [request for _, request in parts]))
        results = (
            self._requests.got(reply, part, asked_at) for (part, _), reply in zip(parts, replies, strict=True)
        )
        return [got for part in results for got in part]

    def read_alone(self, home: Endpoint, wanted: list[Wanted], deadline: float) -> Sequence[Got | CacheError]:
        """Reads one key by `GET`."""
        ((part, token),) = self._requests.parts(wanted)
        request = self._requests.read_alone(part[0], token)
        asked_at = time.monotonic()
        reply = self._transport.send(request, deadline, home)
        return [self._requests.got_alone(reply, part[0], asked_at)]

    def read_stale(self, wanted: Wanted, beyond: float, deadline: float) -> Got:
        """Reads a copy that may be stale for `beyond` seconds, at the instance that fills went to."""
        ((part, token),) = self._requests.parts([wanted])
        request = self._requests.read_stale(part[0], token, beyond)
        reply = self._transport.send(request, deadline, self.home(wanted))
        return self._requests.got_alone(reply, part[0])

    def put(self, home: Endpoint, items: list[PutItem], deadline: float) -> Sequence[Put | CacheError]:
        reply = self._transport.send(self._requests.put(items), deadline, home)
        return self._requests.put_results(reply, items)

    def touch(self, key: str, got: Got, lifetimes: Lifetimes, deadline: float) -> bool:
        reply = self._to_home(key, self._requests.touch(key, got, lifetimes), deadline)
        return self._requests.touched(reply, key)

    def delete(self, key: str, deadline: float) -> Receipt:
        return self._requests.receipt(self._to_home(key, self._requests.delete(key), deadline), [key])

    def _to_home(self, key: str, request: Request, deadline: float) -> Reply:
        return self._transport.send(request, deadline, self.home(key))

    def invalidate(self, asked: Invalidation, deadline: float) -> Receipt:
        reply = self._transport.send(self._requests.invalidate(asked), deadline)
        return self._requests.receipt(reply, asked.keys, lenient=asked.is_lenient)
