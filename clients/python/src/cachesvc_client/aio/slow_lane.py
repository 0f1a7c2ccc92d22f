"""The slow lane: keys that were late in their batch wait among themselves.

[a b c] departs, and c is late after the first turn → a and b are answered, c is asked for here
the late keys of several batches, [c d e]           → share a request, and a turn
c is there after it                                 → c is answered, d and e are asked for again
d was asked for in turns for a fifth of its time    → d is asked for alone, for the rest of it
the deadline of the callers of d has come           → d is answered with the error that it was late
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, Protocol, TypeVar

from cachesvc_client.errors import CacheError
from cachesvc_client.protocol.turns import MOST_ALONE, SHORT_TURN, TURNS_SHARE, is_late

Item_contra = TypeVar("Item_contra", contravariant=True)
Answer = TypeVar("Answer")
Answer_co = TypeVar("Answer_co", covariant=True)


class Turns(Protocol[Item_contra, Answer_co]):
    """Batches that are answered at the end of a turn, or at the first deadline of their items."""

    def join(self, item: Item_contra, *, deadline: float) -> Awaitable[Answer_co | CacheError]: ...


class SlowLane(Generic[Item_contra, Answer]):
    """The late keys of one instance; each has a task, which asks again until the key is there."""

    def __init__(
        self,
        turns: Turns[Item_contra, Answer],
        alone: Callable[[list[Item_contra], float], Awaitable[Sequence[Answer | CacheError]]],
        tasks: set[asyncio.Task[None]],
    ) -> None:
        """`alone` asks for one item until the deadline that it is given."""
        self._turns = turns
        self._alone = alone
        self._tasks = tasks
        self._asked_alone = 0

    def take(
        self,
        item: Item_contra,
        late: CacheError,
        waiting: Sequence[asyncio.Future[Answer | CacheError]],
        deadline: float,
    ) -> None:
        """Answers the orders for an item by `deadline`, on the loop's clock; at worst with `late`."""
        task = asyncio.get_running_loop().create_task(
            self._wait(item, late, waiting, deadline), name="cache slow key"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _wait(
        self,
        item: Item_contra,
        late: CacheError,
        waiting: Sequence[asyncio.Future[Answer | CacheError]],
        deadline: float,
    ) -> None:
        answer: Answer | CacheError = late
        loop = asyncio.get_running_loop()
        stays_from = loop.time() + (deadline - loop.time()) * TURNS_SHARE
        try:
            async with asyncio.timeout_at(deadline):
                while is_late(answer) and not all(future.done() for future in waiting):
                    turn_ends = loop.time() + SHORT_TURN
                    answer = await self._ask(item, deadline, stays=loop.time() >= stays_from)
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

    async def _ask(self, item: Item_contra, deadline: float, *, stays: bool) -> Answer | CacheError:
        if not stays or self._asked_alone >= MOST_ALONE:
            return await self._turns.join(item, deadline=deadline)
        self._asked_alone += 1
        try:
            return (await self._alone([item], deadline))[0]
        finally:
            self._asked_alone -= 1
