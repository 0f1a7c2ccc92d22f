"""Waiting for what a system does by itself, in other tasks or processes."""

import asyncio
from collections.abc import Awaitable, Callable


async def until(what: str, holds: Callable[[], bool | Awaitable[bool]], *, seconds: float = 30.0) -> None:
    """Calls `holds` until it is true.

    Raises `AssertionError` with the text `what` if that takes more than `seconds`.
    """
    try:
        async with asyncio.timeout(seconds) as limit:
            # Polling, because what is awaited may happen in another process.
            while not (await held if isinstance(held := holds(), Awaitable) else held):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    except TimeoutError:
        if not limit.expired():  # what is looked at has a timeout of its own
            raise
        raise AssertionError(f"not within {seconds:g} s: {what}") from None
