"""The keys that were not there when their batch had to be answered: they wait here, for each other only.

[a b c] departs, answered after its first turn: a, b; c is late  → a and b are answered, c is asked for here
[c d e]: the late ones of several batches share a request, and a turn  → c is there; d and e are asked for again
d has been asked for in turns for a fifth of its callers' time        → d is asked for alone, for the rest of it
the deadline of d's callers has come                                   → d is answered that it was late
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
    """Batches that are answered at the end of a turn, or when the first of their deadlines comes."""

    def join(self, item: Item_contra, *, deadline: float) -> Awaitable[Answer_co | CacheError]: ...


class SlowLane(Generic[Item_contra, Answer]):
    def __init__(
        self,
        turns: Turns[Item_contra, Answer],
        alone: Callable[[list[Item_contra], float], Awaitable[Sequence[Answer | CacheError]]],
        tasks: set[asyncio.Task[None]],
    ) -> None:
        """`alone` asks for one item until the deadline it is given."""
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
        """Answer those who wait for the item by `deadline`, on the loop's clock; at worst that it is late."""
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
