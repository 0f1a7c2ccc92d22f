"""The intakes of one namespace object: which calls share requests with which."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from functools import partial
from typing import TypeVar

from cachesvc_client.aio.batching import Batcher, SpreadBatches
from cachesvc_client.aio.calls import Calls
from cachesvc_client.aio.intake import Intake, OneByOne, Spread
from cachesvc_client.aio.releases import Releases
from cachesvc_client.aio.slow_lane import SlowLane
from cachesvc_client.aio.tasks import Tasks
from cachesvc_client.errors import CacheError
from cachesvc_client.instances.endpoints import Endpoint
from cachesvc_client.protocol.batch_limits import MAX_SLOW_DELAY
from cachesvc_client.protocol.turns import WAIT_TURN
from cachesvc_client.protocol.wire import Got, Put, PutItem
from cachesvc_client.requests.fills import Right
from cachesvc_client.requests.handed_tokens import Wanted, key_of

Item = TypeVar("Item", bound=Hashable)
Answer = TypeVar("Answer")


class NamespaceIntakes:
    """An intake for each kind of call; those that batch have one of each instance below them."""

    def __init__(
        self, calls: Calls, *, timeout: float, batching: bool, releases: Releases, tasks: Tasks
    ) -> None:
        """`timeout`: the seconds of a call. `batching`: False, and each call is a request."""
        self._timeout = timeout
        self._calls = calls
        self._releases = releases
        waiting = partial(calls.lease, wait=min(WAIT_TURN, timeout / 4))
        together = partial(_together, timeout=timeout, tasks=tasks.requests)
        leasing = partial(together, unclaimed=self._give_back_unclaimed)
        look_ups: SpreadBatches[Endpoint, Wanted, Got] = SpreadBatches(
            calls.reader, calls.by_reader, partial(_reading, calls, timeout=timeout, tasks=tasks.requests)
        )
        self.look_ups: Intake[Wanted, Got] = look_ups
        """Reads with all that a batch says of a key; batches in any case."""
        self.read_all = look_ups.join_all
        self._put_batches: Intake[PutItem, Put] = Spread(calls.home_of_item, together(calls.put))
        self.waits: Intake[Wanted, Got] = Spread(calls.home, leasing(waiting))
        """Reads that wait for the fill of another holder's lease: batches in any case."""
        self.reads: Intake[Wanted, Got]
        self.puts: Intake[PutItem, Put]
        self.leases: Intake[Wanted, Got]
        if batching:
            self.reads = self.look_ups
            self.puts = self._put_batches
            self.leases = Spread(calls.reader, leasing(calls.lease))
        else:
            self.reads = Spread(calls.reader, _one_by_one(calls.read_alone))
            self.puts = Spread(calls.home_of_item, _one_by_one(calls.put))
            self.leases = Spread(calls.reader, _one_by_one(calls.lease))

    async def lease_over(self, wanted: Sequence[Wanted]) -> list[Got | CacheError]:
        """Asks for the leases of keys, whatever is stored; the answers, in the order of the keys."""
        answers: dict[Wanted, Got | CacheError] = {}

        async def ask(home: Endpoint, part: Sequence[Wanted]) -> None:
            try:
                found = await self._calls.lease(home, list(part), deadline, over=True)
            except CacheError as error:
                found = [error] * len(part)
            answers.update(zip(part, found, strict=True))

        deadline = asyncio.get_running_loop().time() + self._timeout
        await asyncio.gather(*[ask(home, part) for home, part in self._calls.by_home(wanted).items()])
        return [answers[one] for one in wanted]

    async def put_all(self, items: Sequence[PutItem], timeout: float) -> list[Put | CacheError]:
        """Returns the answers in the order of the items, which share requests with others."""
        orders = [self._put_batches.join(item, timeout, len(item.value)) for item in items]
        return [await order for order in orders]

    def give_back(self, right: Right) -> None:
        """Sends the release of what is left of a right, with the fills; nobody waits for it.

        A release that fails is not repeated: the lease ends with its life.
        """
        if (item := right.release()) is not None:
            self._releases.send(item, self.puts, self._timeout)

    def _give_back_unclaimed(self, wanted: Wanted, got: Got | CacheError) -> None:
        """Gives back the lease in an answer whose callers have all gone."""
        if not isinstance(got, CacheError):
            self.give_back(Right(key_of(wanted), got.claim_lease()))


def _together(
    send: Callable[[Endpoint, list[Item], float], Awaitable[Sequence[Answer | CacheError]]],
    *,
    timeout: float,
    tasks: set[asyncio.Task[None]],
    unclaimed: Callable[[Item, Answer | CacheError], None] | None = None,
) -> Callable[[Endpoint], Intake[Item, Answer]]:
    return lambda home: Batcher(partial(send, home), timeout=timeout, tasks=tasks, unclaimed=unclaimed)


def _reading(
    calls: Calls, home: Endpoint, *, timeout: float, tasks: set[asyncio.Task[None]]
) -> Batcher[Wanted, Got]:
    turns: Batcher[Wanted, Got] = Batcher(
        partial(calls.read_slow, home), timeout=timeout, tasks=tasks, max_delay=MAX_SLOW_DELAY
    )
    read = partial(calls.read, home)
    return Batcher(read, timeout=timeout, tasks=tasks, slow_lane=SlowLane(turns, read, tasks))


def _one_by_one(
    send: Callable[[Endpoint, list[Item], float], Awaitable[Sequence[Answer | CacheError]]],
) -> Callable[[Endpoint], Intake[Item, Answer]]:
    return lambda home: OneByOne(partial(send, home))
