"""A loader that records its calls, and can be slow for as long as a test wants."""

import asyncio
from typing import Generic, TypeVar

V = TypeVar("V")


class FakeLoader(Generic[V]):
    """A loader for `get_or_load`: `await loader(key)` returns `value`, or raises `fails_with`.

    After `hold`, loads wait for `release`; `entered` waits until loads have begun. A load returns
    the `value` that was set when the load began.
    """

    def __init__(self, value: V) -> None:
        self.value = value
        self.fails_with: Exception | None = None
        self.loaded: list[str] = []
        """The keys of all loads, in the order in which the loads began."""
        self._open = asyncio.Event()
        self._open.set()
        self._entered = asyncio.Semaphore(0)

    async def __call__(self, key: str) -> V:
        self.loaded.append(key)
        value = self.value
        self._entered.release()
        await self._open.wait()
        if self.fails_with is not None:
            raise self.fails_with
        return value

    def hold(self) -> None:
        """Lets loads wait until `release`."""
        self._open.clear()

    def release(self) -> None:
        """Lets waiting loads and later loads end."""
        self._open.set()

    async def entered(self, count: int = 1) -> None:
        """Waits until `count` more loads have begun since the last call."""
        for _ in range(count):
            await self._entered.acquire()
