"""Many threads, one request.

    nothing is in flight: join a                 → [a] departs at once, on its caller's thread
    [a] is in flight: join b, join c, join d     → b, c and d wait together
    [a] has landed, or `MAX_DELAY` has passed, or the batch is full → [b c d] departs, on b's thread

The first caller of a batch leads it: it waits for a lane, sends, and hands out the answers; the
others wait for it. So there is no thread, timer or task but the callers' own, and a single caller
waits for nobody. Locks and events are those of `threading`, which gevent replaces by its own.

The delay bounds what a slow batch (a key that its origin is still loading) costs the keys behind
it. Equal items of a batch that has not departed share a slot. An item never joins a batch that has
departed: that may be answered with what was true before the item was asked for. Callers share a
batch if they have equal timeouts: otherwise a leader with little time would end the request for
others that have more.

A caller that runs out of time leaves. An item that nobody waits for when its batch departs is not
sent. If the leader is torn out of its call (`gevent.Timeout`, `KeyboardInterrupt`), the others that
still have time join the next batch.
"""

import threading
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from cachesvc_client.errors import CacheError
from cachesvc_client.protocol.batch_limits import MAX_DELAY, MAX_ITEMS, MAX_WAITING, MAX_WEIGHT
from cachesvc_client.sync import forks
from cachesvc_client.sync.intake import Send
from cachesvc_client.tracing import spans

LANES = 1
"""Batches under way before the next one waits.

The async flavour has two, to decode one answer while the next is made. Threads take turns at that
anyway, and a second lane halves the batches (64 threads: 15,000 against 21,000 gets/s).
"""

Item = TypeVar("Item", bound=Hashable)
Answer = TypeVar("Answer")


class _Batch(Generic[Item, Answer]):
    """Items that leave together, and the callers that wait for them.

    `waiting`, `weight` and `callers` change under the batcher's lock, until the batch departs.
    `answers` is set before `landed`.
    """

    __slots__ = ("answers", "callers", "deadline", "go", "landed", "timeout", "waiting", "weight")

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.deadline = time.monotonic() + timeout
        self.waiting: dict[Item, int] = {}
        """The number of callers that wait for each item."""
        self.weight = 0
        self.callers: dict[spans.Call, None] = {}
        """The callers whose traces are sampled, in the order in which they joined."""
        self.go = threading.Event()
        """Set when the batch departs: a lane is free, or the batch is full."""
        self.landed = threading.Event()
        self.answers: dict[Item, Answer | CacheError] | None = None
        """None after landing if the leader was torn out of its call."""


class Batcher(Generic[Item, Answer]):
    """One stream of batches with equal options."""

    def __init__(
        self,
        send: Send[Item, Answer],
        unclaimed: Callable[[Item, Answer | CacheError], None] | None = None,
    ) -> None:
        """`unclaimed` is given the answers to items whose callers have all gone meanwhile."""
        self._send = send
        self._unclaimed = unclaimed
        self.after_fork()
        forks.register(self)

    def after_fork(self) -> None:
        self._lock = threading.Lock()  # guards what follows; never held while waiting
        self._open: dict[float, _Batch[Item, Answer]] = {}
        """Timeout → the batch that can be joined, the oldest first. Its leader waits for a lane."""
        self._in_flight = 0
        self._unanswered = 0

    def join(self, item: Item, timeout: float, weight: int = 0) -> Answer | CacheError:
        deadline = time.monotonic() + timeout
        while True:
            batch, leads = self._join(item, timeout, weight)
            if leads:
                self._lead(batch)
            elif not self._is_landed(batch, item, deadline):
                self._leave(batch, item)
                return CacheError("deadline", f"no answer within {timeout:g} s", retryable=True)
            if batch.answers is not None:
                return batch.answers[item]
            timeout = max(deadline - time.monotonic(), 0.0)

    def _join(self, item: Item, timeout: float, weight: int) -> tuple[_Batch[Item, Answer], bool]:
        """Puts the item into a batch. Returns the batch, and whether the caller leads it."""
        with self._lock:
            batch = self._open.get(timeout)
            if batch is not None and weight and batch.weight + weight > MAX_WEIGHT:
                self._depart(batch)
                batch = None
            if batch is not None and item in batch.waiting:
                batch.waiting[item] += 1
                batch.callers.update(dict.fromkeys(spans.callers()))
                return batch, False
            if self._unanswered >= MAX_WAITING:
                raise CacheError(
                    "overloaded",
                    f"{MAX_WAITING} keys of this client wait for the cache already",
                    retryable=True,
                )
            self._unanswered += 1
            leads = batch is None
            if batch is None:
                batch = self._open[timeout] = _Batch(timeout)
            batch.waiting[item] = 1
            batch.callers.update(dict.fromkeys(spans.callers()))
            batch.weight += weight
            if self._in_flight < LANES or len(batch.waiting) == MAX_ITEMS:
                self._depart(batch)
            return batch, leads

    def _is_landed(self, batch: _Batch[Item, Answer], item: Item, deadline: float) -> bool:
        """Waits for the batch, until the deadline.

        A caller that is torn out of this leaves the batch.
        """
        try:
            return batch.landed.wait(deadline - time.monotonic())
        except BaseException:
            self._leave(batch, item)
            raise

    def _leave(self, batch: _Batch[Item, Answer], item: Item) -> None:
        with self._lock:
            batch.waiting[item] -= 1
            answers = None if batch.waiting[item] else batch.answers
        if answers is not None and item in answers:  # the answer came while the last caller was leaving
            self._drop(item, answers[item])

    def _drop(self, item: Item, answer: Answer | CacheError) -> None:
        if self._unclaimed is not None:
            self._unclaimed(item, answer)

    def _depart(self, batch: _Batch[Item, Answer]) -> None:
        """Closes the batch to further items. Called with the lock held; its leader does the rest."""
        del self._open[batch.timeout]
        self._in_flight += 1
        batch.go.set()

    def _lead(self, batch: _Batch[Item, Answer]) -> None:
        try:
            batch.go.wait(MAX_DELAY)
            items = self._departing(batch)
            with spans.carrying(batch.callers):
                batch.answers = self._carried(items, batch.deadline)
        finally:
            gone = self._land(batch)
            batch.landed.set()
        for item, answer in gone:
            self._drop(item, answer)

    def _departing(self, batch: _Batch[Item, Answer]) -> list[Item]:
        with self._lock:
            if self._is_open(batch):  # the delay is over
                self._depart(batch)
            return [item for item, callers in batch.waiting.items() if callers]

    def _carried(self, items: list[Item], deadline: float) -> dict[Item, Answer | CacheError]:
        try:
            return dict(zip(items, self._send(items, deadline), strict=True))
        except CacheError as error:
            return dict.fromkeys(items, error)
        except Exception as error:  # noqa: BLE001  callers that are not told would wait for ever
            return dict.fromkeys(items, CacheError("bad-answer", f"{type(error).__name__}: {error}"))

    def _land(self, batch: _Batch[Item, Answer]) -> list[tuple[Item, Answer | CacheError]]:
        """Makes room for the next batch. Returns the answers that nobody waits for any more."""
        with self._lock:
            self._unanswered -= len(batch.waiting)
            if self._is_open(batch):  # its leader was torn out before it departed
                del self._open[batch.timeout]
                return []
            self._in_flight -= 1
            if self._open and self._in_flight < LANES:
                self._depart(next(iter(self._open.values())))
            answers = batch.answers or {}
            return [(item, answer) for item, answer in answers.items() if not batch.waiting[item]]

    def _is_open(self, batch: _Batch[Item, Answer]) -> bool:
        return self._open.get(batch.timeout) is batch
