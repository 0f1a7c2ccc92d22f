"""Keeps L1 warm over a restart: hot copies go to a file and come back from it.

    stop    copies that are admissible now, those used last first ──► file, which names the queues
    start   the retained fences are merged ──► the file is of the same queues ──► each copy is
            judged like one from L2, and put into L1

Why no old value can come back: docs/coherence.md, "A snapshot of L1". A file that cannot be used
costs nothing but its warmth, and is said in one line.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path

from msgspec import Struct

from cachesvc.coherence.admission import Admission
from cachesvc.config.service import Snapshot
from cachesvc.config.topology import Namespace
from cachesvc.model.clock import SECONDS
from cachesvc.model.entry import Entry, Key
from cachesvc.paths.near_tiers import NearTiers
from cachesvc.telemetry.ghosts import Came
from cachesvc.tiers.l1.l1 import L1
from cachesvc.tiers.l1.snapshot_file import (
    Header,
    SnapshotReader,
    SnapshotWriter,
    UnusableSnapshotError,
)

log = logging.getLogger(__name__)

STEP_COPIES = 200
"""Copies that are judged in one turn of the loop: about 1 ms."""
POLL_SECONDS = 0.05


class SnapshotTally(Struct):
    """The copies of the snapshot that was taken at the start."""

    taken: int = 0
    refused: int = 0
    """Copies that could not be answered any more, or of which L1 had a newer one."""


class WarmRestart:
    """The snapshot of one instance. `take` once after the start, `save` once at the stop."""

    def __init__(
        self,
        name: str,
        settings: Snapshot,
        *,
        namespaces: Mapping[str, Namespace],
        l1: L1,
        near_tiers: NearTiers,
        admission: Admission,
    ) -> None:
        """`name` is that of the file: another one for each instance."""
        self._path = Path(settings.directory) / name if settings.directory else None
        self._settings = settings
        self._namespaces = namespaces
        self._l1 = l1
        self._near_tiers = near_tiers
        self._admission = admission
        self.tally = SnapshotTally()
        self.is_over = self._path is None
        """True once the file has been taken, or will not be."""
        self.said = "no snapshot is kept" if self._path is None else "not read yet"
        """The fate of the file, for people."""

    def __repr__(self) -> str:
        return f"<WarmRestart {self._path} [{self.said}]>"

    async def take(self, is_settled: Callable[[], bool]) -> None:
        """Takes the file's copies into L1, once the instance is settled.

        It is when it has merged what its queues retained. Never fails; takes `timeout` at most, from
        then on.
        """
        if self._path is None:
            return
        try:
            while not is_settled():  # noqa: ASYNC110  nobody tells when feeds and floor are that far
                await asyncio.sleep(POLL_SECONDS)
            async with asyncio.timeout(self._settings.timeout.seconds):
                await self._take(self._path)
        except FileNotFoundError:
            self.said = "there was none"
        except UnusableSnapshotError as error:
            self._say(f"{self._used()}: {error}")
        except TimeoutError:
            self._say(f"{self._used()}: l1.snapshot.timeout was over")
        except OSError as error:
            self._say(f"{self._used()}: {error}")
        finally:
            self.is_over = True

    def _used(self) -> str:
        return f"its first {self.tally.taken:,} copies were used" if self.tally.taken else "not used"

    async def _take(self, path: Path) -> None:
        reader = await asyncio.to_thread(SnapshotReader, path)
        try:
            queues = self._admission.fences.queues
            if not queues or reader.header.queues != queues:
                raise UnusableSnapshotError(
                    f"it is of the queues {reader.header.queues}, and this instance reads "
                    f"{queues or 'not all of its queues yet'}"
                )
            while found := await asyncio.to_thread(reader.read):
                for start in range(0, len(found), STEP_COPIES):
                    for key, entry in islice(found, start, start + STEP_COPIES):
                        self._take_one(key, entry)
                    await asyncio.sleep(0)
        finally:
            reader.close()
        tally = self.tally
        age = (self._admission.clock.now_us() - reader.header.written_us) / SECONDS
        self._say(
            f"took {tally.taken:,} of {reader.copies:,} copies, written {age:,.0f} s before; "
            f"{tally.refused:,} were too old"
        )

    def _take_one(self, key: Key, entry: Entry) -> None:
        namespace = self._namespaces.get(key.namespace)
        if (
            namespace is None
            or self._l1.peek(key) is not None
            or not self._near_tiers.keep(key, namespace, entry, Came.FOUND)
        ):
            self.tally.refused += 1
        else:
            self.tally.taken += 1

    async def save(self) -> None:
        """Writes the copies that were used last and may be answered now. Never fails.

        Not before a start is over: the file of the last stop is still there then.
        """
        queues = self._admission.fences.queues
        if self._path is None or not self.is_over or not self._l1.items:
            return
        if not queues:
            log.warning("no snapshot of L1 is written: not all queues are known")
            return
        try:
            header = Header(queues, self._admission.clock.now_us())
            writer = await asyncio.to_thread(SnapshotWriter, self._path, header)
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._settings.timeout.seconds):
                        await self._write(writer)
                await asyncio.to_thread(writer.commit)
            except BaseException:
                await asyncio.to_thread(writer.abandon)
                raise
        except OSError as error:
            log.warning("no snapshot of L1 is written: %s", error)
            return
        log.info("wrote a snapshot of L1: %d copies, %d bytes", writer.copies, writer.bytes)

    async def _write(self, writer: SnapshotWriter) -> None:
        for copies in self._l1.used_last(self._settings.budget):
            for start in range(0, len(copies), STEP_COPIES):
                for key_id, entry in islice(copies, start, start + STEP_COPIES):
                    namespace, _, text = key_id.decode().partition("/")
                    self._write_one(writer, Key.of(namespace, text), entry)
                if writer.is_due:
                    await asyncio.to_thread(writer.flush)
                await asyncio.sleep(0)

    def _write_one(self, writer: SnapshotWriter, key: Key, entry: Entry) -> None:
        namespace = self._namespaces.get(key.namespace)
        if namespace is not None and self._near_tiers.may_have(key, namespace, entry):
            writer.add(key, entry)

    def _say(self, what: str) -> None:
        self.said = what
        log.info("snapshot of L1: %s", what)
