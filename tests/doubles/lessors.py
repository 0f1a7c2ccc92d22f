"""A lessor in memory, and a process that holds shares until it is killed."""

import asyncio
import sys
from collections.abc import Sequence

from cachesvc.changes.redis.shares import RedisShares
from cachesvc.model.errors import TierUnavailableError
from cachesvc.tiers.redis_connections import DEFAULT_ACCESS, Access
from cachesvc.tiers.shares.contract import Ask, Grant, Grants
from cachesvc.tiers.shares.leasing import Leasing
from cachesvc.tiers.shares.share import FLOOR_SHARE, Limit, Share

LIMIT = Limit("namespace", "pages", "loads-at-once")


class ScriptedLessor:
    """A lessor that grants what the test says, to one instance. `is_away`: it does not answer."""

    def __init__(self, share: float = 1e9, floor: float = 0.0) -> None:
        self.share, self.floor, self.is_away = share, floor, False
        self.asked: list[Sequence[Ask]] = []

    async def lease(self, asks: Sequence[Ask], *, heard: str, age_us: int) -> Grants:
        if self.is_away:
            raise TierUnavailableError("queue", "is away")
        self.asked.append(asks)
        return Grants("epoch", [Grant(self.share, self.floor) for _ in asks])

    async def stop(self) -> None: ...


class Member:
    """An instance with a share of one limit at a real lessor."""

    def __init__(
        self,
        url: str,
        name: str,
        *,
        amount: float = 64,
        keep_seconds: float = 10.0,
        instances: int = 8,
        access: Access = DEFAULT_ACCESS,
    ) -> None:
        self.wants = 0.0
        """Its demand."""
        self.running = 0.0
        self.share = Share(LIMIT, amount, instances=instances, floor_share=FLOOR_SHARE, least=1.0)
        self.share.demand_now = lambda: self.wants
        self.share.running = lambda: self.running
        self.lessor = RedisShares(url, "eu", name, instances=instances, access=access)
        self.leasing = Leasing(self.lessor, [self.share], keep_seconds=keep_seconds)

    async def renew(self) -> float:
        await self.leasing.renew()
        return self.share.in_force


async def hold(url: str, name: str, wants: float, keep_seconds: float) -> None:
    """Holds a share until the process is killed, and prints it after each request."""
    member = Member(url, name, keep_seconds=keep_seconds)
    member.wants = wants
    while True:
        print(await member.renew(), flush=True)
        await asyncio.sleep(0.05)


if __name__ == "__main__":
    asyncio.run(hold(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])))
