"""The intakes of one namespace object: which calls share requests with which."""

import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

from cachesvc_client.errors import CacheError
from cachesvc_client.instances.endpoints import Endpoint
from cachesvc_client.protocol.batch_limits import MAX_ITEMS, MAX_WEIGHT
from cachesvc_client.protocol.turns import WAIT_TURN, first_turn, is_late
from cachesvc_client.protocol.wire import Got, Put, PutItem
from cachesvc_client.requests.fills import Right
from cachesvc_client.requests.handed_tokens import Wanted, key_of
from cachesvc_client.sync.batching import Batcher
from cachesvc_client.sync.calls import Calls
from cachesvc_client.sync.intake import Intake, OneByOne, Spread
from cachesvc_client.sync.releases import Releases
from cachesvc_client.sync.slow_lane import Patience, SlowLane

Item = TypeVar("Item", bound=Hashable)
Answer = TypeVar("Answer")


class NamespaceIntakes:
    """An intake for each kind of call; those that batch have one of each instance below them."""

    def __init__(self, calls: Calls, *, timeout: float, batching: bool, releases: Releases) -> None:
        """`timeout`: the seconds of a call. `batching`: False, and each call is a request."""
        waiting = partial(calls.lease, wait=min(WAIT_TURN, timeout / 4))
        self._calls = calls
        self._releases = releases
        self._release_all = partial(self.put_all, timeout=timeout)
        self.look_ups: Intake[Wanted, Got] = Spread(calls.reader, partial(_reading, calls))
        """Reads with all that a batch says of a key; batches in any case."""
        self.waits: Intake[Wanted, Got] = Spread(calls.home, _together(waiting, self._give_back_unclaimed))
        """Reads that wait for the fill of another holder's lease: batches in any case."""
        self.reads: Intake[Wanted, Got]
        self.puts: Intake[PutItem, Put]
        self.leases: Intake[Wanted, Got]
        if batching:
            self.reads = self.look_ups
            self.puts = Spread(calls.home_of_item, _together(calls.put))
            self.leases = Spread(calls.reader, _together(calls.lease, self._give_back_unclaimed))
        else:
            self.reads = Spread(calls.reader, _one_by_one(calls.read_alone))
            self.puts = Spread(calls.home_of_item, _one_by_one(calls.put))
            self.leases = Spread(calls.reader, _one_by_one(calls.lease))

    def read_all(self, wanted: Sequence[Wanted], timeout: float) -> list[Got | CacheError]:
        """Returns the answers in the order of the keys, each of which is named once."""
        answers = dict(self._read_in_turns(wanted, Patience(timeout)))
        return [answers[one] for one in wanted]

    def _read_in_turns(
        self, wanted: Sequence[Wanted], patience: Patience
    ) -> Iterator[tuple[Wanted, Got | CacheError]]:
        """Yields each key with its answer.

        In turns: a key of one instance that takes all the time must leave some to the others.
        """
        turn: float | None = first_turn(len(wanted), patience.deadline - time.monotonic())
        while True:
            late: dict[Wanted, CacheError] = {}
            read = self._calls.read_slow if turn is None else partial(self._calls.read, turn=turn)
            # A key that is late is asked for again at its own instance.
            by = self._calls.by_home if turn is None else self._calls.by_reader
            for one, got in _each(by(wanted), read, patience.deadline):
                if is_late(got):
                    late[one] = got
                else:
                    yield one, got
            if not late or not patience.allows_another_turn():
                break
            wanted, turn = list(late), None
        yield from late.items()

    def lease_all(self, wanted: Sequence[Wanted], timeout: float) -> list[Got | CacheError]:
        """Returns the answers in the order of the keys, each of which is named once.

        Leases in them are this call's own: it shares its requests with nobody.
        """
        return self._leased(self._calls.by_reader(wanted), wanted, timeout, self._calls.lease)

    def lease_over(self, wanted: Sequence[Wanted], timeout: float) -> list[Got | CacheError]:
        """Does what `lease_all` does, also for keys with a fresh value."""
        over = partial(self._calls.lease, over=True)
        return self._leased(self._calls.by_home(wanted), wanted, timeout, over)

    def _leased(
        self,
        parts: Mapping[Endpoint, Sequence[Wanted]],
        wanted: Sequence[Wanted],
        timeout: float,
        lease: Callable[[Endpoint, list[Wanted], float], Sequence[Got | CacheError]],
    ) -> list[Got | CacheError]:
        answers = dict(_each(parts, lease, time.monotonic() + timeout))
        return [answers[one] for one in wanted]

    def put_all(self, items: Sequence[PutItem], timeout: float) -> list[Put | CacheError]:
        """Returns the answers in the order of the items, which have requests of their own."""
        deadline = time.monotonic() + timeout
        at_home: dict[Endpoint, list[PutItem]] = {}
        for item in items:
            at_home.setdefault(self._calls.home_of_item(item), []).append(item)
        answers = dict(_each(at_home, self._calls.put, deadline, lambda item: len(item.value)))
        return [answers[item] for item in items]

    def give_back(self, right: Right) -> None:
        """Has the release of what is left of a right sent, on another thread.

        A release that fails is not repeated: the lease ends with its life.
        """
        if (item := right.release()) is not None:
            self._releases.send(item, self._release_all)

    def _give_back_unclaimed(self, wanted: Wanted, got: Got | CacheError) -> None:
        """Gives back the lease in an answer whose callers have all gone."""
        if not isinstance(got, CacheError):
            self.give_back(Right(key_of(wanted), got.claim_lease()))


def _each(
    at_home: Mapping[Endpoint, Sequence[Item]],
    send: Callable[[Endpoint, list[Item], float], Sequence[Answer | CacheError]],
    deadline: float,
    weigh: Callable[[Item], int] = lambda _: 0,
) -> Iterator[tuple[Item, Answer | CacheError]]:
    """Yields each item with its answer.

    Each instance is sent as many requests as the number and weight of its items ask for.
    """
    for home, items in at_home.items():
        for part in _parts(items, weigh):
            try:
                yield from zip(part, send(home, part, deadline), strict=True)
            except CacheError as error:
                yield from ((item, error) for item in part)


def _parts(items: Sequence[Item], weigh: Callable[[Item], int]) -> Iterator[list[Item]]:
    part: list[Item] = []
    weight = 0
    for item in items:
        weighs = weigh(item)
        if part and (len(part) == MAX_ITEMS or weight + weighs > MAX_WEIGHT):
            yield part
            part, weight = [], 0
        part.append(item)
        weight += weighs
    if part:
        yield part


def _together(
    send: Callable[[Endpoint, list[Item], float], Sequence[Answer | CacheError]],
    unclaimed: Callable[[Item, Answer | CacheError], None] | None = None,
) -> Callable[[Endpoint], Intake[Item, Answer]]:
    return lambda home: Batcher(partial(send, home), unclaimed)


def _reading(calls: Calls, home: Endpoint) -> SlowLane[Wanted, Got]:
    read = partial(calls.read, home)
    return SlowLane(Batcher(read), Batcher(partial(calls.read_slow, home)), OneByOne(read))


def _one_by_one(
    send: Callable[[Endpoint, list[Item], float], Sequence[Answer | CacheError]],
) -> Callable[[Endpoint], Intake[Item, Answer]]:
    return lambda home: OneByOne(partial(send, home))
