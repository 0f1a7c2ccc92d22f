"""A loader that records, and can be slow for as long as a test wants."""

import asyncio
from typing import Generic, TypeVar

V = TypeVar("V")


class FakeLoader(Generic[V]):
    """For `get_or_load`: `await loader(key)` is its `value`, or raises `fails_with`.

    While it is held (`hold`), loads wait for `release`; `entered` says that so many have begun.
    """

    def __init__(self, value: V) -> None:
        self.value = value
        self.fails_with: Exception | None = None
        self.loaded: list[str] = []
        """The keys, in order."""
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
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    async def entered(self, count: int = 1) -> None:
        """Wait until `count` more loads have begun."""
        for _ in range(count):
            await self._entered.acquire()
