"""Renews the shares of an instance, and ends them when their term is over."""

import asyncio
from collections.abc import Sequence

from cachesvc.telemetry.loops import PAUSE_SECONDS, Loop
from cachesvc.tiers.shares.contract import Lessor
from cachesvc.tiers.shares.share import KEEP_SECONDS, Share

RENEW_SECONDS = 0.5
"""The time between two requests."""
SOONEST_SECONDS = 0.1
"""The least time between two requests of an instance that wants more."""


class Leasing:
    """The shares of one instance. `run` in a task of its own, then `stop` once."""

    def __init__(
        self, lessor: Lessor, shares: Sequence[Share], *, keep_seconds: float = KEEP_SECONDS
    ) -> None:
        self.shares = shares
        """May be replaced at any time; what is new is asked for with the next request."""
        self.loop = Loop("shares of limits")
        self._lessor = lessor
        self._keep_seconds = keep_seconds
        self._epoch = ""
        self._asked_at = 0.0
        """The loop time at which the last request was sent that was answered."""
        self._wanted = asyncio.Event()
        self._has_shrunk = False
        self._lapsing: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        cut_off = sum(share.is_cut_off for share in self.shares)
        return f"<Leasing [{len(self.shares)} shares, {cut_off} cut off]>"

    def want(self) -> None:
        """Asks soon, as a share is too small for what is to be done."""
        self._wanted.set()

    async def run(self) -> None:
        """Asks until it is cancelled. Asks nothing for an instance without limits."""
        with self.loop.alive():
            self._lapse_at(asyncio.get_running_loop().time() + self._keep_seconds)
            while True:
                if not self.shares:
                    await self._wanted.wait()
                worked = await self.loop.once(self.renew)
                if worked and self._has_shrunk:
                    continue  # the others wait for this instance to say that it uses no more
                await asyncio.sleep(SOONEST_SECONDS if worked else PAUSE_SECONDS)
                try:
                    async with asyncio.timeout(RENEW_SECONDS - SOONEST_SECONDS if worked else 0):
                        await self._wanted.wait()
                except TimeoutError:
                    pass

    async def renew(self) -> None:
        """Asks once. Raises `TierError`; then the shares stay as they are until their term ends."""
        self._wanted.clear()
        loop, shares = asyncio.get_running_loop(), self.shares
        now = loop.time()
        if not shares:
            return
        granted = await self._lessor.lease(
            [share.ask(self._keep_seconds) for share in shares],
            heard=self._epoch,
            age_us=round((now - self._asked_at) * 1e6) if self._epoch else 0,
        )
        self._epoch, self._asked_at = granted.epoch, now
        self._has_shrunk = False
        for share, grant in zip(shares, granted.grants, strict=True):
            self._has_shrunk |= share.grant(grant)
        self._lapse_at(now + self._keep_seconds)

    def _lapse_at(self, at: float) -> None:
        if self._lapsing is not None:
            self._lapsing.cancel()
        self._lapsing = asyncio.get_running_loop().call_at(at, self._lapse)

    def _lapse(self) -> None:
        for share in self.shares:
            share.lapse()

    async def start(self) -> None:
        """Does nothing: the server is connected when it is first used."""

    async def stop(self) -> None:
        """Gives the shares back, if the queue answers, and disconnects."""
        if self._lapsing is not None:
            self._lapsing.cancel()
        await self._lessor.stop()
