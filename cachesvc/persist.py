"""Doing something until it succeeds: what the loops do while a queue is out of reach."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from cachesvc.errors import TierError

log = logging.getLogger(__name__)

PAUSE_SECONDS = 0.2


async def persist(work: Callable[[], Awaitable[None]], what: str, failed: Callable[[], None]) -> None:
    """Try until no `TierError` comes, a pause between tries; `failed` is called for each. Logged once per outage."""
    is_out = False
    while True:
        try:
            await work()
        except TierError as error:
            failed()
            if not is_out:
                log.warning("%s: out of reach, trying again until it answers (%s)", what, error.why)
            is_out = True
            await asyncio.sleep(PAUSE_SECONDS)
        else:
            if is_out:
                log.info("%s: answers again", what)
            return
