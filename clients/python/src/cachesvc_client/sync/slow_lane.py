"""The slow lane: keys that were late in their batch wait among themselves.

Their callers ask again, and share requests with each other only. An example of the turns is in
`cachesvc_client.aio.slow_lane`.
"""

import threading
import time
from collections.abc import Hashable
from typing import Generic, TypeVar

from cachesvc_client.errors import CacheError
from cachesvc_client.protocol.turns import MOST_ALONE, SHORT_TURN, TURNS_SHARE, is_late
from cachesvc_client.requests.http import told
from cachesvc_client.sync.intake import Intake

Item = TypeVar("Item", bound=Hashable)
Answer = TypeVar("Answer")


class Patience:
    """The time of one caller, spent turn after turn."""

    def __init__(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds
        self._answers_way = seconds - told(seconds)
        """The seconds that the service leaves for the way back; with no more left, all is used."""
        self._turn_ends = 0.0
        self._stays_from = self.deadline - seconds * (1 - TURNS_SHARE)

    def is_for_turns(self) -> bool:
        """True while the caller asks in turns; after that it asks alone, and stays."""
        return time.monotonic() < self._stays_from

    def allows_another_turn(self) -> bool:
        """Waits until the turn is over. True if there is time for another one, which then begins."""
        time.sleep(max(0.0, min(self._turn_ends, self.deadline) - time.monotonic()))
        now = time.monotonic()
        self._turn_ends = now + SHORT_TURN
        return self.deadline - now > self._answers_way

    def shared(self) -> float:
        """The seconds left, rounded down: callers share a batch if they have equal time."""
        left = self.deadline - time.monotonic()
        return left - left % SHORT_TURN or left


class SlowLane(Generic[Item, Answer]):
    """An intake made of three.

    `batches` are answered after a first turn. `turns` are the batches of the keys that are late
    then. `alone` sends a request for each key that is late for long.
    """

    def __init__(
        self, batches: Intake[Item, Answer], turns: Intake[Item, Answer], alone: Intake[Item, Answer]
    ) -> None:
        self._batches = batches
        self._turns = turns
        self._alone = alone
        self._permits = threading.BoundedSemaphore(MOST_ALONE)

    def join(self, item: Item, timeout: float, weight: int = 0) -> Answer | CacheError:
        patience = Patience(timeout)
        answer = self._batches.join(item, timeout, weight)
        while is_late(answer) and patience.allows_another_turn():
            answer = self._ask(item, patience, weight)
        return answer

    def _ask(self, item: Item, patience: Patience, weight: int) -> Answer | CacheError:
        if patience.is_for_turns() or not self._permits.acquire(blocking=False):
            return self._turns.join(item, patience.shared(), weight)
        try:
            return self._alone.join(item, patience.deadline - time.monotonic(), weight)
        finally:
            self._permits.release()
