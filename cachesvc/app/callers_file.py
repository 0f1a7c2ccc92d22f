"""Reads `callers` of the topology document again while an instance runs.

    changed, and right  ──► taken: in force from the next request on
    changed, and wrong  ──► the callers before stay in force; log, metric and /readyz?verbose say so
    the section is gone ──► the same: an instance must not open its door because of a slip

The rest of the document is read at the start only.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from cachesvc.config.callers import Callers
from cachesvc.config.service import load_topology
from cachesvc.config.topology import Topology
from cachesvc.model.errors import ConfigError
from cachesvc.telemetry.loops import Loop
from cachesvc.telemetry.outage import Outage

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""The pause between two looks at the file."""


class CallersFile:
    """The callers of one instance, as its topology document has them now."""

    def __init__(self, path: Path, topology: Topology, take: Callable[[Callers], None]) -> None:
        """`topology` is what the document held at the start; `take` is called with other callers."""
        self._path = path
        self._callers = topology.callers
        self._take = take
        self._seen: object = None
        self._outage = Outage(f"reading callers again from {path}", log)
        self.loop = Loop("callers of the topology document")
        self.trouble = ""
        """The reason why callers of before are in force, for people; empty if there is none."""

    def __repr__(self) -> str:
        return f"<CallersFile {self._path} [{self.trouble or 'in force'}]>"

    @property
    def is_outdated(self) -> bool:
        return bool(self.trouble)

    async def run(self) -> None:
        """Looks at the file until it is cancelled."""
        await self.loop.run(self.look, every_seconds=LOOK_SECONDS)

    async def look(self) -> None:
        """Looks whether the file has changed, and takes its callers if they are right."""
        try:
            seen, callers = await asyncio.to_thread(self._read)
        except ConfigError as error:
            self.trouble = f"callers of before are in force: {str(error).splitlines()[0]}"
            self._outage.failed(error)
            return
        self._seen, self.trouble = seen, ""
        if self._outage.is_on:
            self._outage.worked()
        if callers is not None and callers != self._callers:
            self._callers = callers
            self._take(callers)
            log.info("callers are read again: %d are named", len(callers.named))

    def _read(self) -> tuple[object, Callers | None]:
        """Returns a mark of the file's state, and its callers; those before if it has not changed."""
        try:
            found = self._path.stat()
        except OSError as error:
            raise ConfigError(str(self._path), f"cannot be read: {error.strerror}") from error
        seen = (found.st_mtime_ns, found.st_size, found.st_ino)
        if seen == self._seen:
            return seen, self._callers
        callers = load_topology(self._path).callers
        if callers is None and self._callers is not None:
            why = "has no `callers` any more: with none, instances have to be started anew"
            raise ConfigError(f"{self._path}: $.callers", why)
        return seen, callers
