"""Shares of a region's limits, handed out by the Redis of its queue.

The queue and not a cell: every instance of a region uses this server and no other of its kind, so
the count has one place; a cell that is lost takes no namespace's budget with it; and the parts of
a namespace lie in all cells, so no cell is the natural one. Without the queue nothing of a region
is promised to be current either.
"""

from collections.abc import Sequence
from typing import Any

from cachesvc.changes.redis.server import TIMEOUT, RedisServer, candidate
from cachesvc.model.errors import TierError
from cachesvc.model.units import Duration
from cachesvc.tiers.answer_shapes import ShapeError, parts, text
from cachesvc.tiers.redis_connections import DEFAULT_ACCESS, Access
from cachesvc.tiers.shares.contract import Ask, Grant, Grants

_LONGEST_AGE_US = 86_400_000_000
"""An answer that is older counts as one of a day ago."""


class RedisShares:
    """The lessor of one instance, on one Redis server."""

    def __init__(
        self,
        url: str,
        region: str,
        instance: str,
        *,
        instances: int = 1,
        timeout: Duration = TIMEOUT,
        access: Access = DEFAULT_ACCESS,
    ) -> None:
        """`instances`: the number of instances that the topology names for the region."""
        self._server = RedisServer(url, f"shares of {region}", timeout, access)
        self._run = self._server.unspanned("shares")
        self._instance = instance
        self._instances = max(1, instances)
        self._asked: Sequence[Ask] = ()

    def __repr__(self) -> str:
        return f"<RedisShares of {self._instance} [{len(self._asked)} limits]>"

    async def lease(self, asks: Sequence[Ask], *, heard: str, age_us: int) -> Grants:
        self._asked = asks
        return await self._lease(asks, heard, age_us)

    async def _lease(self, asks: Sequence[Ask], heard: str, age_us: int, *, leaves: bool = False) -> Grants:
        age = min(age_us, _LONGEST_AGE_US)
        args: list[Any] = [candidate(), self._instance, heard, age, self._instances]
        for ask in asks:
            term = 0 if leaves else ask.term_us
            amounts = (f"{amount:.6f}" for amount in (ask.using, ask.demand))
            args += [ask.name, f"{ask.amount:.6f}", term, ask.floor_share, ask.least, *amounts]
        found: Grants = await self._run(args, lambda said: _grants(said, len(asks)))
        return found

    async def stop(self) -> None:
        """Gives the shares back, so that nobody has to wait for their end, and disconnects."""
        try:
            if self._asked:
                await self._lease(self._asked, "", 0, leaves=True)
        except TierError:
            pass  # they end by themselves
        finally:
            await self._server.stop()


def _grants(said: Any, count: int) -> Grants:
    """Returns what the script answered. Raises `ShapeError`."""
    epoch, *amounts = parts(said, 1 + 2 * count)
    numbers = [_amount(amount) for amount in amounts]
    return Grants(text(epoch), [Grant(*pair) for pair in zip(numbers[::2], numbers[1::2], strict=True)])


def _amount(said: Any) -> float:
    try:
        amount = float(text(said))
    except ValueError as error:
        raise ShapeError("not a number") from error
    if not 0 <= amount <= 1e12:
        raise ShapeError("not a number in range")
    return amount
