"""Long work on the event loop, cut into turns."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")

LONGEST_SECONDS = 0.004
"""The work on an item begins at most so long after its turn of the loop did."""


async def paced(items: Iterable[T], now: Callable[[], float] = perf_counter) -> AsyncIterator[T]:
    """Yields the items in order; between two of them the loop turns, if its turn is long.

    `items` must not change meanwhile. `now` is in seconds.
    """
    began = now()
    for item in items:
        if now() - began > LONGEST_SECONDS:
            await asyncio.sleep(0)
            began = now()
        yield item


@contextmanager
def without_collections() -> Iterator[None]:
    """Runs the block without garbage collections, in any thread.

    A collection stops all threads. A block that makes very many objects, and drops them by their
    counts, would have the collector walk them in vain.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
