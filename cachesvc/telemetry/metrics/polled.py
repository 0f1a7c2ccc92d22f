"""What far servers say of themselves, asked in the background: a scrape never waits for a server that hangs."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar

from cachesvc.model.errors import TierError

T = TypeVar("T")

POLL_SECONDS = 10.0


class Polled(Generic[T]):
    """Asks all, and after a pause again. A server that does not answer is not known: its last words are forgotten."""

    def __init__(self, name: str, asked: Mapping[str, Callable[[], Awaitable[T]]]) -> None:
        """By the name of the server, what it is asked; a `TierError` is no answer."""
        self.name = name
        self.said: dict[tuple[str], T] = {}
        self.failed = 0
        """Times that one of them did not answer. Not logged: who uses the server does that."""
        self._asked = asked

    def __repr__(self) -> str:
        return f"<Polled {self.name} [{len(self.said)} of {len(self._asked)} known]>"

    async def run(self) -> None:
        while True:
            await asyncio.gather(*(self._ask(name, ask) for name, ask in self._asked.items()))
            await asyncio.sleep(POLL_SECONDS)

    async def _ask(self, name: str, ask: Callable[[], Awaitable[T]]) -> None:
        try:
            self.said[name,] = await ask()
        except TierError:
            self.failed += 1
            self.said.pop((name,), None)
