"""Announces a namespace as changed as a whole after its `sources` have changed.

A row change is taken by one consumer of the region. One that does not know yet, or not any more,
that the namespace has this source closes the change as one that concerns nobody (trace 84 of
docs/coherence.md). So whoever takes other sources says afterwards that everything has changed: the
last instance says so last, and from then on no consumer is left that knows less.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from cachesvc.config.topology import Namespace
from cachesvc.model.change import Change
from cachesvc.model.errors import RequestError
from cachesvc.paths.flight_runner import Spawns
from cachesvc.telemetry.outage import Outage

log = logging.getLogger(__name__)

PAUSE_SECONDS = 0.5
"""The pause after an announcement that the queue did not take."""


class NewSources:
    """The `sources` of one instance's namespaces, and those that are still to be announced."""

    def __init__(
        self,
        namespaces: Mapping[str, Namespace],
        invalidate: Callable[[Change], Awaitable[object]],
        tasks: Spawns,
    ) -> None:
        """`invalidate` applies and publishes a change; raises `RequestError`."""
        self._sources = _sources(namespaces)
        self._invalidate = invalidate
        self._tasks = tasks
        self._pending: dict[str, None] = {}
        self._outage = Outage("announcing namespaces whose sources have changed", log)

    def __repr__(self) -> str:
        return f"<NewSources [{len(self._pending)} to be announced]>"

    def __len__(self) -> int:
        """The number of namespaces that are still to be announced."""
        return len(self._pending)

    def take(self, namespaces: Mapping[str, Namespace]) -> None:
        """Announces what has other sources now. The parser of changes knows them already."""
        before, self._sources = self._sources, _sources(namespaces)
        is_idle = not self._pending
        self._pending.update(
            (name, None) for name, sources in self._sources.items() if before.get(name) != sources
        )
        if is_idle and self._pending:
            self._tasks.spawn(self._announce(), "announcement of new sources")

    async def _announce(self) -> None:
        while self._pending:
            name = next(iter(self._pending))
            try:
                if name in self._sources:  # else it is gone, or has none any more
                    await self._invalidate(Change(name, all=True))
            except RequestError as error:
                self._outage.failed(error)
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            del self._pending[name]
            if self._outage.is_on:
                self._outage.worked()


def _sources(namespaces: Mapping[str, Namespace]) -> dict[str, object]:
    return {name: one.sources for name, one in namespaces.items() if one.sources}
