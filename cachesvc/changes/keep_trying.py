"""Doing something until it succeeds: what the loops do while a queue is out of reach."""

import asyncio
from collections.abc import Awaitable, Callable

from cachesvc.model.errors import TierError
from cachesvc.telemetry.outage import Outage

PAUSE_SECONDS = 0.2


async def persist(work: Callable[[], Awaitable[None]], outage: Outage, failed: Callable[[], None]) -> None:
    """Try until no `TierError` comes, a pause between tries; `failed` is called for each, `outage` says it to the log."""
    while True:
        try:
            await work()
        except TierError as error:
            failed()
            outage.failed(error)
            await asyncio.sleep(PAUSE_SECONDS)
        else:
            if outage.is_on:
                outage.worked()
            return
