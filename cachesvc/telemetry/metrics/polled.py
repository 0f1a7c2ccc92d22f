"""Figures that remote servers report about themselves, asked for in the background.

A scrape therefore never waits for a server that hangs.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar

from cachesvc.model.errors import TierError
from cachesvc.telemetry.loops import Loop

T = TypeVar("T")

POLL_SECONDS = 10.0


class Polled(Generic[T]):
    """Asks every server at once, then again after a pause of `POLL_SECONDS`.

    The last answer of a server that does not answer now is removed: it is not known any more.
    """

    def __init__(self, name: str, asked: Mapping[str, Callable[[], Awaitable[T]]]) -> None:
        """`asked` has the question for each server by name; it raises `TierError` for no answer."""
        self.name = name
        self.said: dict[tuple[str], T] = {}
        self.silent: dict[str, str] = {}
        """The servers whose last question got no answer, and why."""
        self.failed = 0
        """Questions that got no answer.

        They are not logged here: the code that uses the server for its work logs the outage.
        """
        self.loop = Loop(f"polling {name}")
        self._asked = dict(asked)

    def __repr__(self) -> str:
        return f"<Polled {self.name} [{len(self.said)} of {len(self._asked)} known]>"

    def take(self, name: str, ask: Callable[[], Awaitable[T]] | None) -> None:
        """Asks another server, too, under this name; None: asks the one of this name no longer."""
        self.said.pop((name,), None)
        self.silent.pop(name, None)
        if ask is None:
            self._asked.pop(name, None)
        else:
            self._asked[name] = ask

    async def run(self) -> None:
        """Asks until it is cancelled."""
        with self.loop.alive():
            while True:
                await self.loop.once(self._ask_all)
                await asyncio.sleep(POLL_SECONDS)

    async def _ask_all(self) -> None:
        """Asks every server; an answer that nobody expected is raised when all are asked."""
        asking = (self._ask(name, ask) for name, ask in list(self._asked.items()))
        for defect in await asyncio.gather(*asking, return_exceptions=True):
            if defect is not None:
                raise defect

    async def _ask(self, name: str, ask: Callable[[], Awaitable[T]]) -> None:
        try:
            said = await ask()
            if self._asked.get(name) is ask:
                self.said[name,] = said
                self.silent.pop(name, None)
        except BaseException as error:
            if self._asked.get(name) is not ask:
                return
            self.failed += 1
            self.said.pop((name,), None)
            self.silent[name] = error.why if isinstance(error, TierError) else ""
            if not isinstance(error, TierError):
                raise
