"""Waiting for what a system promises to do by itself, in other tasks or processes."""

import asyncio
from collections.abc import Awaitable, Callable


async def until(what: str, holds: Callable[[], bool | Awaitable[bool]], *, seconds: float = 10.0) -> None:
    """Look again and again until it holds. If it does not within the bound, `what` is said."""
    try:
        async with asyncio.timeout(seconds) as limit:
            while not (await held if isinstance(held := holds(), Awaitable) else held):  # noqa: ASYNC110  in other processes
                await asyncio.sleep(0.02)
    except TimeoutError:
        if not limit.expired():  # what is looked at has a timeout of its own
            raise
        raise AssertionError(f"not within {seconds:g} s: {what}") from None
