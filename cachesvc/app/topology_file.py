"""Reads the topology document again while an instance runs: what may change meanwhile.

changed, and right ──► what `config/live.py` names is in force; what waits for a restart is said
changed, and wrong ──► the document before stays in force; log, metric and /readyz?verbose say so
`callers` are gone ──► the same: an instance must not open its door because of a slip
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from cachesvc.app.paced import without_collections
from cachesvc.config.live import Path as FieldPath
from cachesvc.config.live import changed, taken, waiting
from cachesvc.config.service import Service, check_together, load_topology
from cachesvc.config.topology import Topology
from cachesvc.model.errors import ConfigError
from cachesvc.telemetry.loops import Loop
from cachesvc.telemetry.outage import Outage

log = logging.getLogger(__name__)

NAMED = 8
"""The most fields that a line names."""
LOOK_SECONDS = 1.0
"""The pause between two looks at the file."""


class TopologyFile:
    """The topology document of one instance, with what may change as it stands there now."""

    def __init__(
        self,
        path: Path,
        topology: Topology,
        take: Callable[[Topology], Awaitable[None]],
        service: Service | None = None,
    ) -> None:
        """`topology` is what the document held at the start; `take` is called with another one.

        A `ConfigError` that `take` raises means that nothing has changed. A document that does not go
        together with `service` is wrong.
        """
        self._path = path
        self._service = service
        self._topology = topology
        self.waiting: list[FieldPath] = []
        """The fields of the document that take effect at the next start."""
        self._take = take
        self._seen: object = None
        self._outage = Outage(f"reading the topology document again from {path}", log)
        self.loop = Loop("changes of the topology document")
        self.trouble = ""
        """The reason why the document of before is in force, for people; empty if there is none."""

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
            seen, topology, waits, paths = await asyncio.to_thread(self._read)
            if paths:
                await self._take(topology)
        except ConfigError as error:
            self.trouble = f"the topology document of before is in force: {str(error).splitlines()[0]}"
            self._outage.failed(error)
            return
        self._seen, self.trouble = seen, ""
        if self._outage.is_on:
            self._outage.worked()
        if paths:
            self._topology = topology
            log.info("the topology document has changed, in force: %s", named(paths))
        if waits and waits != self.waiting:
            log.warning("the topology document has changed, in force after a restart: %s", named(waits))
        self.waiting = waits

    def _read(self) -> tuple[object, Topology, list[FieldPath], list[FieldPath]]:
        """Returns a mark of the file's state, and the topology that is to be in force.

        Then come the fields that wait for a restart, and those that are to be in force from now on.
        """
        try:
            found = self._path.stat()
        except OSError as error:
            raise ConfigError(str(self._path), f"cannot be read: {error.strerror}") from error
        seen = (found.st_mtime_ns, found.st_size, found.st_ino)
        if seen == self._seen:
            return seen, self._topology, self.waiting, []
        with without_collections():
            topology = load_topology(self._path)
        if self._service is not None:
            check_together(self._service, topology)
        if topology.callers is None and self._topology.callers is not None:
            why = "has no `callers` any more: with none, instances have to be started anew"
            raise ConfigError(f"{self._path}: $.callers", why)
        to_be = taken(self._topology, topology)
        return seen, to_be, waiting(to_be, topology), list(changed(self._topology, to_be))


def named(paths: Sequence[FieldPath]) -> str:
    """Returns the fields as people write them, the first few by name: `namespaces.pages.ttl`."""
    shown = ", ".join(".".join(path) for path in paths[:NAMED])
    return shown if len(paths) <= NAMED else f"{shown} and {len(paths) - NAMED} more"
