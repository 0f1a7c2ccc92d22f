"""Reads the topology document again while an instance runs: what may change meanwhile.

    changed, and right ──► `callers`, `rates` and the numbers of `origin_budget` are in force
    changed, and wrong ──► those before stay in force; log, metric and /readyz?verbose say so
    `callers` are gone ──► the same: an instance must not open its door because of a slip

The rest of the document is read at the start only.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from cachesvc.config.service import load_topology
from cachesvc.config.topology import Topology
from cachesvc.model.errors import ConfigError
from cachesvc.telemetry.loops import Loop
from cachesvc.telemetry.outage import Outage

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""The pause between two looks at the file."""


class TopologyFile:
    """The topology document of one instance, with what may change as it stands there now."""

    def __init__(self, path: Path, topology: Topology, take: Callable[[Topology], None]) -> None:
        """`topology` is what the document held at the start; `take` is called with another one."""
        self._path = path
        self._topology = topology
        self._take = take
        self._seen: object = None
        self._outage = Outage(f"reading callers and limits again from {path}", log)
        self.loop = Loop("callers and limits of the topology document")
        self.trouble = ""
        """The reason why callers of before are in force, for people; empty if there is none."""

    def __repr__(self) -> str:
        return f"<TopologyFile {self._path} [{self.trouble or 'in force'}]>"

    @property
    def is_outdated(self) -> bool:
        return bool(self.trouble)

    async def run(self) -> None:
        """Looks at the file until it is cancelled."""
        await self.loop.run(self.look, every_seconds=LOOK_SECONDS)

    async def look(self) -> None:
        """Looks whether the file has changed, and takes what may change if all of it is right."""
        try:
            seen, topology = await asyncio.to_thread(self._read)
        except ConfigError as error:
            self.trouble = f"callers and limits of before are in force: {str(error).splitlines()[0]}"
            self._outage.failed(error)
            return
        self._seen, self.trouble = seen, ""
        if self._outage.is_on:
            self._outage.worked()
        if topology != self._topology:
            self._topology = topology
            self._take(topology)
            named = len(topology.callers.named) if topology.callers is not None else 0
            log.info("callers and limits are read again: %d callers are named", named)

    def _read(self) -> tuple[object, Topology]:
        """Returns a mark of the file's state, and the topology; the one before if nothing changed."""
        try:
            found = self._path.stat()
        except OSError as error:
            raise ConfigError(str(self._path), f"cannot be read: {error.strerror}") from error
        seen = (found.st_mtime_ns, found.st_size, found.st_ino)
        if seen == self._seen:
            return seen, self._topology
        topology = load_topology(self._path)
        if topology.callers is None and self._topology.callers is not None:
            why = "has no `callers` any more: with none, instances have to be started anew"
            raise ConfigError(f"{self._path}: $.callers", why)
        return seen, self._with_what_may_change(topology)

    def _with_what_may_change(self, found: Topology) -> Topology:
        """Returns the topology in force with the callers, rates and budgets of another one."""
        namespaces = {
            name: replace(one, rates=now.rates, origin_budget=now.origin_budget)
            if (now := found.namespaces.get(name)) is not None
            else one
            for name, one in self._topology.namespaces.items()
        }
        return replace(self._topology, callers=found.callers, namespaces=namespaces)
