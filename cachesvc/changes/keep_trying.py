"""Work that is tried until it succeeds: the loops' answer to a queue that is out of reach."""

import asyncio
from collections.abc import Awaitable, Callable

from cachesvc.model.errors import TierError
from cachesvc.telemetry.outage import Outage

PAUSE_SECONDS = 0.2
"""Pause between two tries."""


async def persist(work: Callable[[], Awaitable[None]], outage: Outage, failed: Callable[[], None]) -> None:
    """Runs `work` until it raises no `TierError`, with a pause between tries.

    `failed` is called for each failed try, and `outage` logs the failure. Other exceptions, and a
    cancellation, are raised.
    """
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
