"""Follows the topology document while an instance runs: what may change meanwhile.

changed, and right ──► what `config/live.py` names is in force; what waits for a restart is said
changed, and wrong ──► the document before stays in force; log, metric and /readyz?verbose say so
`callers` are gone ──► the same: an instance must not open its door because of a slip
the store is away  ──► nothing changes; /readyz?verbose says so

The last good document from a numbered store is kept on disk (`changes/document/kept.py`).
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from cachesvc.app.paced import without_collections
from cachesvc.changes.document.contract import Document, DocumentStore
from cachesvc.changes.document.kept import KeptDocument
from cachesvc.config.live import Path as FieldPath
from cachesvc.config.live import changed, taken, waiting
from cachesvc.config.service import Service, check_together, topology_of
from cachesvc.config.topology import Topology
from cachesvc.model.errors import ConfigError
from cachesvc.telemetry.loops import Loop
from cachesvc.telemetry.outage import Outage

log = logging.getLogger(__name__)

HASH_DIGITS = 12
STEP_SECONDS = 10.0
"""One step of the loop: a loop that does not end a step for long counts as stuck."""
NAMED = 8
"""The most fields that a line names."""


class TopologyDocument:
    """The topology document of one instance, with what may change as it stands there now."""

    def __init__(
        self,
        store: DocumentStore,
        topology: Topology,
        take: Callable[[Topology], Awaitable[None]],
        service: Service | None = None,
        *,
        known: Document | None = None,
        kept: KeptDocument | None = None,
        read: Callable[[str, str], Topology] = topology_of,
    ) -> None:
        """`topology` is what the instance has started with; `take` is called with another one.

        A `ConfigError` that `take` raises means that nothing has changed.

        `known` is the same as the store had it, if it comes from there. A document that does not go
        together with `service` is wrong. Good documents are written into `kept`.
        """
        self.store = store
        self._service = service
        self._topology = topology
        self.found = topology
        """The newest document that was found right, with what waits for the next start."""
        self.content = content_of(topology)
        """The hash of what that document says, whatever its text; a few digits of it."""
        self.waiting: list[FieldPath] = []
        """The fields of the document that take effect at the next start."""
        self._take = take
        self._known = known.version if known else store.seed(topology.version)
        """The version that the store was last seen to have, good or not."""
        self.version = known.version if known else None
        """The version that was found right last; None if none was yet."""
        self._kept = kept
        self._read_text = read
        self._outage = Outage(f"taking the topology document of {store.where}", log)
        self.loop = Loop("changes of the topology document")
        self._refused = ""
        self._to_try_again: Document | None = None
        """The document that was refused: what it needs, such as a file, may come later."""
        self._turn = asyncio.Lock()
        self._watching: asyncio.Task[Document] | None = None
        if known is not None:
            store.accepted(known)

    def __repr__(self) -> str:
        return f"<TopologyDocument of {self.store.where} [{self.trouble or 'in force'}]>"

    @property
    def trouble(self) -> str:
        """The reason why the document of before is in force, for people; empty if there is none."""
        return self._refused or self.store.trouble

    @property
    def is_outdated(self) -> bool:
        return bool(self.trouble)

    def state(self) -> Mapping[str, object]:
        """The version that was found right last, and the store, for `/readyz?verbose`."""
        version = self.version
        return {
            "version": self.found.version,
            "content": self.content,
            "author": version.author if version else "",
            "put_at": _time(version.at_us) if version and version.at_us else "",
            "reason": version.reason if version else "",
            "store": self.store.said,
            "kept": self._kept.said if self._kept else "",
        }

    async def run(self) -> None:
        """Follows the store until it is cancelled."""
        try:
            await self.loop.run(self._follow)
        finally:
            if self._watching is not None:
                self._watching.cancel()
                await asyncio.wait([self._watching])
            await self.store.close()

    async def _follow(self) -> None:
        """Waits for another document for some seconds; the watch goes on over several such steps."""
        if self._watching is None:
            self._watching = asyncio.create_task(self.store.watch(self._known), name=self.loop.name)
        done, _ = await asyncio.wait([self._watching], timeout=STEP_SECONDS)
        if done:
            watched, self._watching = self._watching, None
            await self._take_in(watched.result())
        elif self._to_try_again is not None:
            async with self._turn:
                await self._take_or_refuse(self._to_try_again)

    async def look(self) -> None:
        """Looks whether there is another document, and takes what may change if it is right."""
        if (document := await self.store.look(self._known)) is not None:
            await self._take_in(document)

    async def _take_in(self, document: Document) -> None:
        async with self._turn:
            if document.version != self._known:  # SIGHUP and the watch have not found the same one
                self._known = document.version
                await self._take_or_refuse(document)

    async def _take_or_refuse(self, document: Document) -> None:
        try:
            found, topology, waits, paths, content = await asyncio.to_thread(self._read, document)
            if paths:
                await self._take(topology)
        except ConfigError as error:
            self._to_try_again = document
            self._refused = f"the topology document of before is in force: {str(error).splitlines()[0]}"
            self._outage.failed(error)
            return
        self._to_try_again, self.version = None, document.version
        self._refused, self.found, self.content = "", found, content
        if self._outage.is_on:
            self._outage.worked()
        if paths:
            self._topology = topology
            log.info("the topology document has changed, in force: %s", named(paths))
        if waits and waits != self.waiting:
            log.warning("the topology document has changed, in force after a restart: %s", named(waits))
        self.waiting = waits
        self.store.accepted(document)
        if self._kept is not None:
            await asyncio.to_thread(self._kept.keep, document)

    def _read(self, document: Document) -> tuple[Topology, Topology, list[FieldPath], list[FieldPath], str]:
        """Returns the document, and the topology that is to be in force.

        Then come the fields that wait for a restart, those that are to be in force from now on, and the
        hash of what the document says. Raises `ConfigError`.
        """
        name = self.store.where
        with without_collections():
            topology = self._read_text(document.text, name)
        if self._service is not None:
            check_together(self._service, topology)
        if topology.callers is None and self._topology.callers is not None:
            why = "has no `callers` any more: with none, instances have to be started anew"
            raise ConfigError(f"{name}: $.callers", why)
        to_be = taken(self._topology, topology)
        paths = list(changed(self._topology, to_be))
        return topology, to_be, waiting(self._topology, topology), paths, content_of(topology)


def content_of(topology: Topology) -> str:
    """Returns a short hash of what a document says: comments and order do not count.

    Documents of one version with different hashes are different.
    """
    encoded = msgspec.json.encode(topology, enc_hook=str, order="deterministic")
    return hashlib.sha256(encoded).hexdigest()[:HASH_DIGITS]


def named(paths: Sequence[FieldPath]) -> str:
    """Returns the fields as people write them, the first few by name: `namespaces.pages.ttl`."""
    shown = ", ".join(".".join(path) for path in paths[:NAMED])
    return shown if len(paths) <= NAMED else f"{shown} and {len(paths) - NAMED} more"


def _time(at_us: int) -> str:
    return datetime.fromtimestamp(at_us // 1_000_000, UTC).isoformat()
