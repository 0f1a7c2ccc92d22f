"""The batcher: single requests of many callers leave in one exchange with a server.

There is one batcher per server and kind of operation.

    idle:       submit a, submit b (same loop tick)   → batch [a b] is sent at the end of the tick
    in flight:  submit c, submit d, submit e          → c, d and e wait
    answered:   a and b are answered, their callers run and may submit f → batch [c d e f] is sent

So batches grow with the load by themselves: an idle server answers a single item at once, a busy
server gets large batches. One call of `submit` or `submit_many` costs one future; nothing else is
made per item: no task, timer or lock.

A batch runs in a context of its own, not in the context of the caller that happened to come first:
an exchange for many callers belongs to the trace of one of them only if an `ExchangeSpan` says so.

Cancelling a future takes its caller out, never the batch: a submitted item is still sent, and its
result is given to `unclaimed`, if there is one, else dropped.

Two bounds hold. A batch has at most `max_batch` items and, where items are weighed, at most
`most_weight` together (a single item may be heavier): large values do not take the time limit of
the small ones beside them. And of the items that wait there are at most `max_waiting`: a call that
does not fit is answered at once with a `TierUnavailableError` as its value. Only a call that has
more items than that by itself is taken as soon as there is any room: otherwise an idle server would
refuse it for ever.

**Lanes.** The items of each namespace wait in a lane of their own, in batches. The lanes take
turns: a batch is the oldest of the next lane, and the oldest of the others join it as long as they
fit. So a namespace with ten thousand items to read delays another by one batch. And a lane
leaves an eighth
of the room for waiting items to the others (Choudhury & Hahne, Dynamic queue length thresholds,
IEEE/ACM Transactions on Networking 6(2), 1998).
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextvars import Context
from typing import Any, Generic, TypeAlias, TypeVar

from msgspec import Struct

from cachesvc.model.errors import TierError, TierUnavailableError
from cachesvc.telemetry.metrics.histogram import SIZES, Histogram
from cachesvc.telemetry.traces.exchange_span import ExchangeSpan, failure_in
from cachesvc.telemetry.traces.trace import Span, current

T = TypeVar("T")
R = TypeVar("R")

Run: TypeAlias = Callable[[list[T]], Awaitable[Sequence[R | TierError]]]
Unclaimed: TypeAlias = Callable[[Sequence[T], Sequence[R | TierError]], None]
"""Is called with items and their results when the caller of these items was cancelled."""


class BatcherStatistics(Struct, frozen=True):
    """Counters since the start, and the state now."""

    batches: int
    """Batches that were sent."""
    items: int
    """Items in the batches that were sent; `items / batches` is the mean size."""
    refused: int
    """Items that were not taken, because too many waited or the batcher was closed."""
    waiting: int
    """Items that wait for the next batch now."""
    in_flight: int
    """Batches that were sent and are not answered yet."""


NOTHING = object()
"""Stands for a result that there is not."""
LANE_PART = 7
"""A lane may have so many times the items for which there is room left."""


class _Batch:
    """Items of several calls, side by side.

    `items` is flat; `counts` says for each future how many of the items are its own (0: one item,
    answered as itself and not as a list). `callers` are the sampled spans that the items came from.
    """

    __slots__ = ("callers", "counts", "futures", "items", "weight")

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.futures: list[asyncio.Future[Any]] = []
        self.counts: list[int] = []
        self.callers: list[Span] = []
        self.weight = 0

    def add(self, other: "_Batch") -> None:
        """Puts the items of another batch behind those of this one."""
        self.items += other.items
        self.futures += other.futures
        self.counts += other.counts
        self.callers += other.callers
        self.weight += other.weight

    def answer(
        self, results: Sequence[Any], unclaimed: Unclaimed[Any, Any] | None = None, again: object = NOTHING
    ) -> "list[tuple[Any, asyncio.Future[Any]]]":
        """Gives each future its part of `results`; a future that is done had its caller cancelled.

        Returns the single items whose result is `again`, and their futures, which were given nothing.
        """
        at = 0
        left = []
        for future, count in zip(self.futures, self.counts, strict=True):
            begin = at
            if count:
                result: Any = results[at : at + count]
                at += count
            else:
                result = results[at]
                at += 1
                if result is again and not future.done():
                    left.append((self.items[begin], future))
                    continue
            if not future.done():
                future.set_result(result)
            elif unclaimed is not None:
                unclaimed(self.items[begin:at], results[begin:at])
        return left

    def answer_all(self, result: object) -> None:
        """Gives the same result to every item."""
        self.answer([result] * len(self.items))

    def crash(self, error: BaseException) -> None:
        """Raises `error` to every caller that still waits."""
        for future in self.futures:
            if not future.done():
                future.set_exception(error)


class _Lane:
    """The items of one namespace that wait."""

    __slots__ = ("open", "ready", "waiting")

    def __init__(self) -> None:
        self.open = _Batch()
        """Takes new items."""
        self.ready: deque[_Batch] = deque()
        """Older than `open`, oldest first."""
        self.waiting = 0

    def begin_batch(self) -> _Batch:
        """Returns an open batch without items.

        The batch before it, if it has items, is ready to send.
        """
        if self.open.items:
            self.ready.append(self.open)
            self.open = _Batch()
        return self.open

    def oldest(self) -> _Batch:
        return self.ready[0] if self.ready else self.open

    def take(self) -> _Batch:
        """Returns the oldest batch, which waits no longer."""
        if not self.ready:
            self.begin_batch()
        batch = self.ready.popleft()
        self.waiting -= len(batch.items)
        return batch


def _one_lane(item: object) -> str:
    return ""


class Batcher(Generic[T, R]):
    """Collects items for `run` and hands each caller its own results.

    `run(items)` returns one result per item, in order; `run` owns the list. A `TierError` that `run`
    raises becomes the result of every item of that batch; any other exception is a defect and is raised
    to every caller of that batch. `run` bounds its own time: the batcher has no timer.

    A batcher belongs to one event loop and is not thread-safe.
    """

    def __init__(
        self,
        run: "Run[T, R]",
        max_batch: int,
        *,
        max_waiting: int = 65_536,
        in_flight: int = 1,
        name: str = "batcher",
        exchange_span: ExchangeSpan | None = None,
        unclaimed: Unclaimed[T, R] | None = None,
        weigh: Callable[[Sequence[T]], int] | None = None,
        most_weight: int = 1 << 20,
        lane_of: Callable[[T], str] = _one_lane,
        again: object = NOTHING,
    ):
        """Makes a batcher that has sent nothing yet.

        `max_batch` bounds the items of a batch, `max_waiting` the items that wait, `in_flight` the
        batches that may be in flight at once. `weigh` returns the weight of items, such as their bytes,
        and `most_weight` bounds that of a batch; without `weigh` items have no weight. `lane_of`
        returns the namespace of an item; a call has that of its first item. With `exchange_span`, a
        batch with an item of a traced caller is a span. `unclaimed` is given the results whose caller
        was cancelled; it must not raise. A single item whose result is the object `again` is sent again,
        as by `resubmit`. Raises `ValueError` if a bound is below 1.
        """
        if min(max_batch, max_waiting, in_flight) < 1:
            raise ValueError(f"{name}: max_batch, max_waiting and in_flight must be at least 1")
        self.name = name
        self._run = run
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._free_slots = in_flight
        self._exchange_span = exchange_span
        self._unclaimed = unclaimed
        self._weigh = weigh
        self._most_weight = most_weight
        self._context = Context()
        self._lane_of = lane_of
        self._has_lanes = lane_of is not _one_lane
        self._again = again
        self._lanes: dict[str, _Lane] = {}
        """The lanes by name: as many as there are namespaces with items of this kind."""
        self._turns: deque[_Lane] = deque()
        """The lanes with items that wait, the next one first."""
        self._waiting = 0
        self._send_is_due = False
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._batches = 0
        self._items = 0
        self._refused = 0
        self.sizes = Histogram.of(SIZES)
        """Number of items in each batch that was sent."""

    def submit(self, item: T) -> "asyncio.Future[R | TierError]":
        """Returns the future result of one item.

        Never raises: a refusal is a `TierUnavailableError` as the result.
        """
        # What the methods for many items do step by step is done here in one pass: it is once per read.
        future: asyncio.Future[R | TierError] = asyncio.get_running_loop().create_future()
        lane = self._lanes.get(self._lane_of(item)) or self._lane(item)
        waiting, left = self._waiting, self._max_waiting - self._waiting
        if self._closed or left < 1 or (self._has_lanes and lane.waiting > LANE_PART * left):
            self._refused += 1
            future.set_result(self._refusal())
            return future
        batch = lane.open
        weight = 0 if self._weigh is None else self._weigh((item,))
        if (held := len(batch.items)) and (
            held >= self._max_batch or batch.weight + weight > self._most_weight
        ):
            batch = lane.begin_batch()
        batch.weight += weight
        batch.items.append(item)
        batch.futures.append(future)
        batch.counts.append(0)
        if (caller := current()) is not None:
            batch.callers.append(caller)
        if not lane.waiting:
            self._turns.append(lane)
        lane.waiting += 1
        self._waiting = waiting + 1
        if not self._send_is_due and self._free_slots:
            self._schedule_send()
        return future

    def submit_many(self, items: Sequence[T]) -> "asyncio.Future[Sequence[R | TierError]]":
        """Returns the future results of many items, in order.

        More than `max_batch` items leave in several batches. Never raises: a refusal is a
        `TierUnavailableError` as the result of every item.
        """
        future: asyncio.Future[Sequence[R | TierError]] = asyncio.get_running_loop().create_future()
        count = len(items)
        if not count:
            future.set_result([])
        elif self._closed or self._is_too_much(lane := self._lane(items[0]), count):
            self._refused += count
            future.set_result([self._refusal()] * count)
        elif count <= self._max_batch and (weight := self._weight(items)) <= self._most_weight:
            self._enqueue(lane, items, weight, future)
        else:
            self._enqueue_parts(lane, self._parts(items), future)
        return future

    def resubmit(self, items: Sequence[T]) -> "asyncio.Future[Sequence[R | TierError]]":
        """As `submit_many`, for items that an exchange had no room for; they are weighed now.

        They leave before all others of their namespace, each at the head of a batch or behind as much as
        fits, so each is sent again at its lane's next turns. They are refused only after `close`.
        """
        future: asyncio.Future[Sequence[R | TierError]] = asyncio.get_running_loop().create_future()
        if self._closed:
            self._refused += len(items)
            future.set_result([self._refusal()] * len(items))
        else:
            self._enqueue_parts(self._lane(items[0]), self._parts(items), future, first=True)
        return future

    def _lane(self, item: T) -> _Lane:
        name = self._lane_of(item)
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = _Lane()
        return lane

    def _note_waiting(self, lane: _Lane, count: int) -> None:
        if not lane.waiting:
            self._turns.append(lane)
        lane.waiting += count
        self._waiting += count
        if not self._send_is_due and self._free_slots:
            self._schedule_send()

    def _is_too_much(self, lane: _Lane, count: int) -> bool:
        most, waiting = self._max_waiting, self._waiting
        if waiting >= most if count > most else waiting + count > most:
            return True
        return self._has_lanes and lane.waiting > LANE_PART * (most - waiting)

    def _weight(self, items: Sequence[T]) -> int:
        return self._weigh(items) if self._weigh is not None else 0

    def _parts(self, items: Sequence[T]) -> Iterator[Sequence[T]]:
        """Yields the items in parts that each fit into a batch."""
        if (weigh := self._weigh) is None:
            for start in range(0, len(items), self._max_batch):
                yield items[start : start + self._max_batch]
            return
        start = weight = 0
        for place, item in enumerate(items):
            own = weigh((item,))
            if place > start and (place - start == self._max_batch or weight + own > self._most_weight):
                yield items[start:place]
                start, weight = place, 0
            weight += own
        yield items[start:]

    def _with_room(self, lane: _Lane, weight: int) -> _Batch:
        """Returns the open batch with this weight added, or a new one if it is too heavy."""
        batch = lane.open
        if batch.items and batch.weight + weight > self._most_weight:
            batch = lane.begin_batch()
        batch.weight += weight
        return batch

    def _enqueue(self, lane: _Lane, items: Sequence[T], weight: int, future: "asyncio.Future[Any]") -> None:
        count = len(items)
        batch = lane.open
        if len(batch.items) + count > self._max_batch:
            batch = lane.begin_batch()
        if self._weigh is not None:
            batch = self._with_room(lane, weight)
        self._put(batch, items, future)
        self._note_waiting(lane, count)

    def _put(self, batch: _Batch, items: Sequence[T], future: "asyncio.Future[Any]") -> None:
        batch.items.extend(items)
        batch.futures.append(future)
        batch.counts.append(len(items))
        if (caller := current()) is not None:
            batch.callers.append(caller)

    def _enqueue_first(
        self, lane: _Lane, pieces: "Sequence[tuple[Sequence[T], asyncio.Future[Any]]]"
    ) -> None:
        """Puts each piece into a batch of its own, before all that wait in the lane."""
        for piece, part in reversed(pieces):
            batch = _Batch()
            batch.weight = self._weight(piece)
            self._put(batch, piece, part)
            lane.ready.appendleft(batch)
            self._note_waiting(lane, len(piece))

    def _send_again(self, left: "list[tuple[T, asyncio.Future[Any]]]", callers: list[Span]) -> None:
        """Puts single items before all others of their namespaces, as many side by side as fit."""
        if self._closed:
            for _, future in left:
                future.set_result(self._refusal())
            self._refused += len(left)
            return
        batch = _Batch()
        for item, future in reversed(left):
            lane, weight = self._lane(item), self._weight((item,))
            fits = len(batch.items) < self._max_batch and batch.weight + weight <= self._most_weight
            if not (fits and lane.ready and lane.ready[0] is batch):
                batch = _Batch()
                batch.callers += callers
                lane.ready.appendleft(batch)
            batch.weight += weight
            batch.items.append(item)
            batch.futures.append(future)
            batch.counts.append(0)
            self._note_waiting(lane, 1)

    def _enqueue_parts(
        self,
        lane: _Lane,
        pieces: Iterable[Sequence[T]],
        whole: "asyncio.Future[Any]",
        *,
        first: bool = False,
    ) -> None:
        loop = asyncio.get_running_loop()
        sent: list[tuple[Sequence[T], asyncio.Future[Any]]] = [
            (piece, loop.create_future()) for piece in pieces
        ]
        if first:
            self._enqueue_first(lane, sent)
        else:
            for piece, part in sent:
                self._enqueue(lane, piece, self._weight(piece), part)
        left = len(sent)

        def join(_: "asyncio.Future[Any]") -> None:
            nonlocal left
            left -= 1
            if left:
                return
            parts = [part for _, part in sent]
            error = next(filter(None, (part.exception() for part in parts)), None)
            if whole.done():
                self._leave_unclaimed(sent)
            elif error is not None:
                whole.set_exception(error)
            else:
                whole.set_result([result for part in parts for result in part.result()])

        for _, part in sent:
            part.add_done_callback(join)

    def _leave_unclaimed(self, sent: "Iterable[tuple[Sequence[T], asyncio.Future[Any]]]") -> None:
        """Gives `unclaimed` the results of a call in parts whose caller was cancelled."""
        if self._unclaimed is None:
            return
        for items, part in sent:
            if part.exception() is None:
                self._unclaimed(items, part.result())

    def _next_batch(self) -> _Batch:
        """Returns the oldest batch of the lane whose turn it is, and what fits of the other lanes."""
        turns = self._turns
        batch = self._take(turns.popleft())
        for _ in range(len(turns)):
            lane = turns[0]
            other = lane.oldest()
            if (
                len(batch.items) + len(other.items) > self._max_batch
                or batch.weight + other.weight > self._most_weight
            ):
                break
            turns.popleft()
            batch.add(self._take(lane))
        return batch

    def _take(self, lane: _Lane) -> _Batch:
        """Returns the lane's oldest batch. If more waits in the lane, its next turn comes last."""
        batch = lane.take()
        if lane.waiting:
            self._turns.append(lane)
        return batch

    def _schedule_send(self) -> None:
        self._send_is_due = True
        asyncio.get_running_loop().call_soon(self._send, context=self._context)

    def _send(self) -> None:
        self._send_is_due = False
        while self._free_slots and self._waiting:
            batch = self._next_batch()
            self._waiting -= len(batch.items)
            self._free_slots -= 1
            self._batches += 1
            self._items += len(batch.items)
            self.sizes.observe(len(batch.items))
            task = asyncio.get_running_loop().create_task(self._exchange(batch), name=self.name)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _exchange(self, batch: _Batch) -> None:
        try:
            traced = self._exchange_span if batch.callers else None
            results = await (self._run(batch.items) if traced is None else self._run_traced(traced, batch))
            if len(results) != sum(count or 1 for count in batch.counts):
                why = f"{self.name}: {len(results)} results for another number of items"
                raise RuntimeError(why)  # noqa: TRY301  raised to every caller
            if left := batch.answer(results, self._unclaimed, self._again):
                self._send_again(left, batch.callers)
        except TierError as error:
            batch.answer_all(error)
        except asyncio.CancelledError:
            batch.answer_all(TierUnavailableError(self.name, "cancelled"))
            raise
        except Exception as error:  # noqa: BLE001  a defect of `run` is its callers'; the batcher goes on
            batch.crash(error)
        finally:
            self._free_slots += 1
            # One tick later, not now: the callers that were just answered run first,
            # and the items that they submit leave in this batch, too.
            if self._waiting and not self._send_is_due:
                self._schedule_send()

    async def _run_traced(self, exchange_span: ExchangeSpan, batch: _Batch) -> Sequence[R | TierError]:
        with exchange_span.around(batch.callers, len(batch.items)) as span:
            results = await self._run(batch.items)
            span.error = failure_in(results)
        return results

    async def drain(self) -> None:
        """Waits until no item waits and no batch is in flight. New items are taken all the same."""
        while self._waiting or self._tasks:
            await asyncio.wait(self._tasks) if self._tasks else await asyncio.sleep(0)

    async def close(self) -> None:
        """Refuses new items and waits for the batches in flight.

        Items that wait are answered with a `TierUnavailableError`.
        """
        self._closed = True
        while self._turns:
            batch = self._take(self._turns.popleft())
            self._waiting -= len(batch.items)
            self._refused += len(batch.items)
            batch.answer_all(self._refusal())
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _refusal(self) -> TierUnavailableError:
        return TierUnavailableError(
            self.name, "closed" if self._closed else f"more than {self._max_waiting} items wait"
        )

    def statistics(self) -> BatcherStatistics:
        in_flight = len(self._tasks)
        return BatcherStatistics(self._batches, self._items, self._refused, self._waiting, in_flight)

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self._waiting} waiting, {len(self._tasks)} in flight"
        return f"<Batcher {self.name} [{state}]>"
