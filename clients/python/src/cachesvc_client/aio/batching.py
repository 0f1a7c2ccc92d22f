"""Many callers, one request.

    idle: join a, join b (one loop tick)       → [a b] departs at the end of the tick
    all lanes in flight: join c, join d        → c and d wait together
    a lane is free, or `MAX_DELAY` has passed, or the batch is full → [c d] departs
    c is late (its origin is still loading it) → d is answered, c changes to the slow lane

The delay bounds what a slow batch costs the keys behind it; the slow lane bounds what a slow key
costs the keys beside it. Equal items of a batch that has not departed share a slot. An item never
joins a batch that has departed: that may be answered with what was true before the item was asked
for. An order costs one future, and no task, timer or lock.

    join_all [a … z] → departs by itself and at once

It is a batch already, and costs one future for all of its items.

Each instance has batches of its own (`Spread`): only items for the same instance leave together.

Cancelling an order takes its caller out, never the batch. An item that nobody waits for when its
batch departs is not sent.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine, Hashable, Mapping, Sequence
from contextvars import Context, copy_context
from functools import partial
from itertools import chain
from typing import Generic, TypeVar

from cachesvc_client.aio.intake import Send, Spread
from cachesvc_client.aio.slow_lane import SlowLane
from cachesvc_client.errors import CacheError
from cachesvc_client.protocol.batch_limits import MAX_DELAY, MAX_ITEMS, MAX_WAITING, MAX_WEIGHT, MIN_OWN
from cachesvc_client.protocol.turns import is_late
from cachesvc_client.tracing import spans

LANES = 2
"""Batches under way before the next one waits.

While one is at the server, the answer of the other is taken apart here.
"""

Item = TypeVar("Item", bound=Hashable)
Answer = TypeVar("Answer")
Home = TypeVar("Home", bound=Hashable)


class _Batch(Generic[Item, Answer]):
    __slots__ = ("callers", "context", "deadline", "loop", "slots", "timer", "weight")

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout: float) -> None:
        self.loop = loop
        self.deadline = loop.time() + timeout
        self.context: Context = copy_context()
        """The context of the caller that began the batch: the request belongs to its trace."""
        self.slots: dict[Item, list[asyncio.Future[Answer | CacheError]]] = {}
        self.timer: asyncio.TimerHandle | None = None
        """Set at the end of the tick in which the batch began, if it has to wait longer."""
        self.weight = 0
        self.callers: dict[spans.Call, None] = {}
        """The callers whose traces are sampled, in the order in which they joined."""


class Batcher(Generic[Item, Answer]):
    """One stream of batches with equal options.

    An order is answered within `timeout` seconds of the first order of its batch.
    """

    def __init__(
        self,
        send: Send[Item, Answer],
        *,
        timeout: float,
        tasks: set[asyncio.Task[None]],
        max_delay: float = MAX_DELAY,
        slow_lane: SlowLane[Item, Answer] | None = None,
        unclaimed: Callable[[Item, Answer | CacheError], None] | None = None,
    ) -> None:
        """`slow_lane` takes late items that were not sent alone. Without it, late is an answer.

        `unclaimed` is given the answers to items whose callers have all gone meanwhile.
        """
        self._send = send
        self._timeout = timeout
        self._tasks = tasks
        self._max_delay = max_delay
        self._slow_lane = slow_lane
        self._unclaimed = unclaimed
        self._open: _Batch[Item, Answer] | None = None
        self._in_flight = 0
        self._unanswered = 0

    def join(
        self, item: Item, timeout: float = math.inf, weight: int = 0, *, deadline: float = math.inf
    ) -> asyncio.Future[Answer | CacheError]:
        """Returns the order for an item. It is answered in `timeout` seconds or in the batcher's.

        `timeout` bounds this order and not the batch, which others have joined. `deadline`, on the
        loop's clock, bounds the batch: it has the first deadline of all its items.
        """
        batch = self._open
        if batch is None:
            batch = self._begin()
        elif weight and batch.weight + weight > MAX_WEIGHT:
            self._depart(batch)
            batch = self._begin()
        if deadline < batch.deadline:
            batch.deadline = deadline
        if callers := spans.callers():
            batch.callers.update(dict.fromkeys(callers))
        future: asyncio.Future[Answer | CacheError] = batch.loop.create_future()
        if timeout < self._timeout:
            _end_in(timeout, future)
        waiting = batch.slots.get(item)
        if waiting is not None:
            waiting.append(future)
            return future
        self._admit(1)
        batch.weight += weight
        batch.slots[item] = [future]
        if len(batch.slots) == MAX_ITEMS:
            self._depart(batch)
        return future

    def join_all(
        self, items: Sequence[Item], timeout: float = math.inf
    ) -> list[asyncio.Future[list[Answer | CacheError]]]:
        """Returns the orders for what one caller asks for at once, in the order of the items.

        Each item is named once. The answers come in `timeout` seconds or in the batcher's own.
        """
        if len(items) < MIN_OWN:
            return [asyncio.gather(*(self.join(item, timeout) for item in items))]
        self._admit(len(items))
        deadline = asyncio.get_running_loop().time() + min(timeout, self._timeout)
        return [
            self._depart_alone(items[start : start + MAX_ITEMS], deadline)
            for start in range(0, len(items), MAX_ITEMS)
        ]

    def _admit(self, items: int) -> None:
        if self._unanswered + items > MAX_WAITING:
            raise CacheError(
                "overloaded", f"{MAX_WAITING} keys of this client wait for the cache already", retryable=True
            )
        self._unanswered += items

    def _begin(self) -> _Batch[Item, Answer]:
        batch = self._open = _Batch[Item, Answer](asyncio.get_running_loop(), self._timeout)
        batch.loop.call_soon(self._end_of_tick, batch)
        return batch

    def _end_of_tick(self, batch: _Batch[Item, Answer]) -> None:
        if batch is not self._open:
            return
        if self._in_flight < LANES:
            self._depart(batch)
        else:
            batch.timer = batch.loop.call_later(self._max_delay, self._overdue, batch)

    def _overdue(self, batch: _Batch[Item, Answer]) -> None:
        if batch is self._open:
            self._depart(batch)

    def _depart(self, batch: _Batch[Item, Answer]) -> None:
        self._open = None
        if batch.timer is not None:
            batch.timer.cancel()
        if batch.callers:
            batch.context.run(spans.carry, batch.callers)
        self._launch(self._carry(batch), batch.context)

    def _depart_alone(
        self, items: Sequence[Item], deadline: float
    ) -> asyncio.Future[list[Answer | CacheError]]:
        order: asyncio.Future[list[Answer | CacheError]] = asyncio.get_running_loop().create_future()
        self._launch(self._carry_alone(items, deadline, order), copy_context())
        return order

    def _launch(self, carrying: Coroutine[None, None, None], context: Context) -> None:
        self._in_flight += 1
        task = asyncio.get_running_loop().create_task(carrying, name="cache batch", context=context)
        self._tasks.add(task)
        task.add_done_callback(self._landed)

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._in_flight -= 1
        # The answered callers were woken before this ran, so their next items are in the batch.
        if self._open is not None and self._open.timer is not None and self._in_flight < LANES:
            self._depart(self._open)

    async def _carry(self, batch: _Batch[Item, Answer]) -> None:
        taken = len(batch.slots)
        slots = {
            item: waiting
            for item, waiting in batch.slots.items()
            if not waiting[0].done() or _is_awaited(waiting)
        }
        answers: Sequence[Answer | CacheError] = [_closed()] * len(slots)
        try:
            if slots:
                answers = await self._answers(list(slots), batch.deadline)
        finally:
            self._unanswered -= taken
            slow_lane = self._lane_of_late(len(slots), batch.deadline)
            for (item, waiting), answer in zip(slots.items(), answers, strict=True):
                if slow_lane is not None and is_late(answer):
                    slow_lane.take(item, answer, waiting, batch.deadline)
                    continue
                if self._unclaimed is not None and not _is_awaited(waiting):
                    self._unclaimed(item, answer)
                for future in waiting:
                    if not future.done():
                        future.set_result(answer)

    async def _carry_alone(
        self, items: Sequence[Item], deadline: float, order: asyncio.Future[list[Answer | CacheError]]
    ) -> None:
        answers: list[Answer | CacheError] = [_closed()] * len(items)
        try:
            if not order.done():  # its caller has not left
                answers = list(await self._answers(list(items), deadline))
        finally:
            self._unanswered -= len(items)
            if not order.done():
                self._answer(order, items, answers, deadline)

    def _answer(
        self,
        order: asyncio.Future[list[Answer | CacheError]],
        items: Sequence[Item],
        answers: list[Answer | CacheError],
        deadline: float,
    ) -> None:
        """Answers the order: at once, or when its late items have come out of the slow lane."""
        slow_lane = self._lane_of_late(len(items), deadline)
        failures = [(place, answer) for place, answer in enumerate(answers) if isinstance(answer, CacheError)]
        late = [(place, failure) for place, failure in failures if is_late(failure)]
        if slow_lane is None or not late:
            order.set_result(answers)
            return
        loop = asyncio.get_running_loop()
        later: list[asyncio.Future[Answer | CacheError]] = [loop.create_future() for _ in late]
        for (place, answer), waiting in zip(late, later, strict=True):
            slow_lane.take(items[place], answer, [waiting], deadline)
        rest = asyncio.gather(*later)
        rest.add_done_callback(partial(_complete, order, answers, [place for place, _ in late]))
        order.add_done_callback(lambda _: rest.cancel())  # a caller that left waits for none of them

    def _lane_of_late(self, items: int, deadline: float) -> SlowLane[Item, Answer] | None:
        """The slow lane for the late items of a batch of this size. None: late is their answer."""
        return self._slow_lane if items > 1 and asyncio.get_running_loop().time() < deadline else None

    async def _answers(self, items: list[Item], deadline: float) -> Sequence[Answer | CacheError]:
        try:
            return await self._send(items, deadline)
        except CacheError as error:
            return [error] * len(items)
        except Exception as error:  # noqa: BLE001  callers that are not told would wait for ever
            return [CacheError("bad-answer", f"{type(error).__name__}: {error}")] * len(items)


def _end_in(seconds: float, order: asyncio.Future[Answer | CacheError]) -> None:
    """Answers an order with an error after this time, if nothing else has answered it."""

    def end() -> None:
        if not order.done():
            order.set_result(CacheError("deadline", f"no answer within {seconds:g} s", retryable=True))

    timer = asyncio.get_running_loop().call_later(seconds, end)
    order.add_done_callback(lambda _: timer.cancel())


def _closed() -> CacheError:
    """The answer to the orders of a batch that is cancelled."""
    return CacheError("closed", "the cache was closed")


def _complete(
    order: asyncio.Future[list[Answer | CacheError]],
    answers: list[Answer | CacheError],
    places: list[int],
    rest: asyncio.Future[list[Answer | CacheError]],
) -> None:
    if not order.done():
        for place, answer in zip(places, rest.result(), strict=True):
            answers[place] = answer
        order.set_result(answers)


def _is_awaited(waiting: list[asyncio.Future[Answer]]) -> bool:
    return any(not future.done() for future in waiting)


class SpreadBatches(Spread[Home, Item, Answer]):
    """Batches for each instance, and what one caller asks for at once, spread over them."""

    def __init__(
        self,
        home_of: Callable[[Item], Home],
        by_home: Callable[[Sequence[Item]], Mapping[Home, Sequence[Item]]],
        batcher_for: Callable[[Home], Batcher[Item, Answer]],
    ) -> None:
        super().__init__(home_of, self._batcher)
        self._by_home = by_home
        self._batcher_for = batcher_for
        self._batchers: dict[Home, Batcher[Item, Answer]] = {}

    def _batcher(self, home: Home) -> Batcher[Item, Answer]:
        batcher = self._batchers.get(home)
        if batcher is None:
            batcher = self._batchers[home] = self._batcher_for(home)
        return batcher

    async def join_all(self, items: Sequence[Item], timeout: float = math.inf) -> list[Answer | CacheError]:
        """Returns the answers in the order of the items, each of which is named once."""
        parts = self._by_home(items)
        orders = [
            order for home, part in parts.items() for order in self._batcher(home).join_all(part, timeout)
        ]
        answers = list(chain.from_iterable(await asyncio.gather(*orders)))
        if len(parts) == 1:  # nearly always, and then they are in order
            return answers
        found = dict(zip(chain.from_iterable(parts.values()), answers, strict=True))
        return [found[item] for item in items]
