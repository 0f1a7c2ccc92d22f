"""Intakes: callers hand in items, and get an answer each."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, Protocol, TypeAlias, TypeVar

from cachesvc_client.errors import CacheError

Item = TypeVar("Item", bound=Hashable)
Item_contra = TypeVar("Item_contra", bound=Hashable, contravariant=True)
Answer = TypeVar("Answer")
Answer_co = TypeVar("Answer_co", covariant=True)
Home = TypeVar("Home", bound=Hashable)
Send: TypeAlias = Callable[[list[Item], float], Awaitable[Sequence[Answer | CacheError]]]
"""Sends a batch before a deadline on the loop's clock.

Returns an answer for each item in order, or raises `CacheError` for all of them.
"""


class Intake(Protocol[Item_contra, Answer_co]):
    """Takes items one by one, and may send several of them together."""

    def join(self, item: Item_contra, timeout: float, weight: int = 0) -> Awaitable[Answer_co | CacheError]:
        """The answer to an item, or the failure as a value, within `timeout` seconds.

        `weight` is the item's share of a request, in bytes.
        """
        ...


class OneByOne(Generic[Item, Answer]):
    """Sends a request for each item: batching is measured against it."""

    def __init__(self, send: Send[Item, Answer]) -> None:
        self._send = send

    async def join(self, item: Item, timeout: float, weight: int = 0) -> Answer | CacheError:
        try:
            return (await self._send([item], asyncio.get_running_loop().time() + timeout))[0]
        except CacheError as error:
            return error


class Spread(Generic[Home, Item, Answer]):
    """An intake for each instance, made when it is first needed."""

    def __init__(
        self, home_of: Callable[[Item], Home], intake_for: Callable[[Home], Intake[Item, Answer]]
    ) -> None:
        self._home_of = home_of
        self._intake_for = intake_for
        self._intakes: dict[Home, Intake[Item, Answer]] = {}

    def join(self, item: Item, timeout: float, weight: int = 0) -> Awaitable[Answer | CacheError]:
        home = self._home_of(item)
        intake = self._intakes.get(home)
        if intake is None:  # `setdefault`, as two threads must not get one each
            intake = self._intakes.setdefault(home, self._intake_for(home))
        return intake.join(item, timeout, weight)
