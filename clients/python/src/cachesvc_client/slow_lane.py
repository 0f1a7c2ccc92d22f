"""The keys that were not there when their batch had to be answered: they wait here, for each other only.

[a b c] departs, answered after its first turn: a, b; c is late  → a and b are answered, c is asked for here
[c d e]: the late ones of several batches share a request, and a turn  → c is there; d and e are asked for again
the deadline of d's callers has come                                   → d is answered that it was late
"""

import asyncio
import math
from collections.abc import Awaitable, Sequence
from typing import Generic, Protocol, TypeVar

from cachesvc_client.errors import CacheError
from cachesvc_client.turns import SHORT_TURN, is_late

Item_contra = TypeVar("Item_contra", contravariant=True)
Answer = TypeVar("Answer")
Answer_co = TypeVar("Answer_co", covariant=True)


class Turns(Protocol[Item_contra, Answer_co]):
    """Batches that are answered at the end of a turn, or when the first of their deadlines comes."""

    def join(self, item: Item_contra, weight: int = 0, deadline: float = math.inf) -> Awaitable[Answer_co | CacheError]: ...


class SlowLane(Generic[Item_contra, Answer]):
    def __init__(self, turns: Turns[Item_contra, Answer], tasks: set[asyncio.Task[None]]) -> None:
        self._turns = turns
        self._tasks = tasks

    def take(
        self, item: Item_contra, late: CacheError, waiting: Sequence[asyncio.Future[Answer | CacheError]], deadline: float
    ) -> None:
        """Answer those who wait for the item by `deadline`, on the loop's clock; at worst that it is late."""
        task = asyncio.get_running_loop().create_task(self._wait(item, late, waiting, deadline), name="cache slow key")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _wait(
        self, item: Item_contra, late: CacheError, waiting: Sequence[asyncio.Future[Answer | CacheError]], deadline: float
    ) -> None:
        answer: Answer | CacheError = late
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(deadline):
                while is_late(answer) and not all(future.done() for future in waiting):
                    turn_ends = loop.time() + SHORT_TURN
                    answer = await self._turns.join(item, deadline=deadline)
                    if is_late(answer):
                        await asyncio.sleep(turn_ends - loop.time())
        except TimeoutError:
            pass  # the answer is what the last turn brought: late
        except CacheError as error:
            answer = error
        finally:
            for future in waiting:
                if not future.done():
                    future.set_result(answer)
