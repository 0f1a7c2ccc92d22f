"""Opens the store of the topology document, and chooses the document to start with.

in a file   the file is the document
elsewhere   the newest good one of: the store's, if it answers; the one that this instance has
            kept; the file, which is the seed
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from cachesvc.changes.document.contract import Document, DocumentStore
from cachesvc.changes.document.file import FileDocument
from cachesvc.changes.document.kept import KeptDocument
from cachesvc.changes.document.queue import QueueDocument
from cachesvc.changes.document.queues import QueueDocuments
from cachesvc.config.seal_keys import seal_keys
from cachesvc.config.service import Service, check_together, topology_of
from cachesvc.config.topology import Topology
from cachesvc.config.workers import names_of, part_of
from cachesvc.model.errors import ConfigError, TierError
from cachesvc.tiers.redis_connections import access_of
from cachesvc.tiers.tls import Certificates

log = logging.getLogger(__name__)

START_SECONDS = 3.0
"""How long a start waits for the store."""


UNSEALED = (
    "versions of the topology document are not sealed: whoever writes to its store can change all of it. "
    "Give all instances and operators a key (CACHESVC_DOCUMENT_KEYS, or document.keys_file; "
    "`openssl rand -hex 32` makes one)"
)


class Started(NamedTuple):
    """The document that an instance starts with."""

    topology: Topology
    file: Path | None
    """The file of the document, or its seed; None on embedded servers without one."""
    known: Document | None = None
    """The same as the store had it; None for a file, and for a seed."""
    read: Callable[[str, str], Topology] = topology_of
    """Reads a later text of the document; the second argument names it in messages."""


def opened(service: Service, topology: Topology, file: Path, certificates: Certificates) -> DocumentStore:
    """Returns the store that the settings name, without any I/O."""
    if service.document.store == "file":
        return FileDocument(file)
    return of_queues({name: region.queue for name, region in topology.regions.items()}, service, certificates)


def of_queues(urls: Mapping[str, str], service: Service, certificates: Certificates) -> DocumentStore:
    """Returns the store in these queues, by the names of their regions."""
    access = access_of(service.redis, "queues", service.sentinel, certificates.clients("redis"))
    keys = keys_of(service)
    return QueueDocuments({name: QueueDocument(url, name, access, keys) for name, url in urls.items()})


def keys_of(service: Service) -> tuple[bytes, ...]:
    """Returns the keys by which versions are sealed, the one that seals first."""
    return seal_keys(service.document.keys, "$.document.keys")


def kept_by(service: Service) -> KeptDocument | None:
    """Returns the place in which this instance keeps the last good document; None if in none."""
    if service.document.store == "file" or not service.document.directory:
        return None
    return KeptDocument(service.document.directory, service.region, service.instance)


async def at_start(service: Service, seed: Topology, file: Path) -> Started:
    """Returns the document to start with. Nothing stays open."""
    started = Started(seed, file)
    if service.document.store == "file":
        return started
    if not service.document.keys.strip():
        log.warning(UNSEALED)
    for document in await asyncio.to_thread(_kept, service):
        started = _later(document, started, service)
    # A kept document may name queues that came after the seed was written.
    return _later(await _stored(service, started.topology, file), started, service)


def _later(document: Document | None, than: Started, service: Service) -> Started:
    """Returns the document, if it is right and none of an earlier version; else `than`."""
    if document is None or document.version.number < than.topology.version or document == than.known:
        return than
    try:
        topology = topology_of(document.text, str(document.version))
        check_together(part_of(service), topology)
    except ConfigError as error:
        log.warning("this topology document is not taken: %s", str(error).splitlines()[0])
        return than
    return Started(topology, than.file, document)


async def _stored(service: Service, topology: Topology, file: Path) -> Document | None:
    store = opened(service, topology, file, Certificates(service))
    try:
        async with asyncio.timeout(START_SECONDS):
            return await store.load()
    except (TierError, TimeoutError) as error:
        why = str(error) or f"no answer within {START_SECONDS:g} s"
        log.warning("the topology document is not asked for at the start: %s", why)
        return None
    finally:
        await store.close()


def _kept(service: Service) -> list[Document | None]:
    if not (directory := service.document.directory):
        return []
    return [KeptDocument(directory, service.region, name).read() for name in names_of(service)]
