"""`cachesvc publish`: announces changes on a region's queue, as any producer may.

Every change is checked first, by the rules that would make it a dead letter. The command prints
the receipt of each change, `region:id`; an instance of the region says how far the change got
(`GET /v1/invalidations/{id}`). A change that is announced twice costs misses and nothing else, so
a run that failed half-way can be repeated.
"""

import argparse
import asyncio
import itertools
import socket
import ssl
import sys
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct
from redis import ConnectionPool, Redis, SSLConnection
from redis.exceptions import RedisError

from cachesvc.changes.events.cloudevents import decode, encode
from cachesvc.changes.events.event_parser import checked
from cachesvc.commands.access import add_access, reach_of
from cachesvc.commands.arguments import add_announcing_region, add_topology, fail, utf8
from cachesvc.commands.documents import given_topology
from cachesvc.commands.exit_codes import INTERRUPTED
from cachesvc.config.addresses import REDIS_URLS, redis_fault, redis_query_fault, watched_in
from cachesvc.config.service import Coherence, Server
from cachesvc.model.change import Change
from cachesvc.model.did_you_mean import did_you_mean
from cachesvc.model.errors import ConfigError, TierUnavailableError
from cachesvc.telemetry.link_faults import told
from cachesvc.telemetry.traces.trace import SpanContext
from cachesvc.tiers.redis_connections import Access, master_of

MAX_BATCH_KEYS = Server().max_batch_keys
LONGEST_OVER = Coherence().fence_retention
"""The defaults of both limits: the instances' service documents are not known here."""
TIMEOUT_SECONDS = 5.0
BLOCK = 1 << 16
"""Bytes of a file that are read, checked and sent together (a few hundred events)."""


class Destination(Struct, frozen=True):
    """The queue that the changes are announced on."""

    url: str
    region: str = ""
    """Empty if only the queue is given, not its region."""
    namespaces: Collection[str] | None = None
    """None without a topology: then only the instances can refuse an unknown namespace."""

    @property
    def where(self) -> str:
        """The queue's place for messages, without the password that the URL may hold."""
        if (watched := watched_in(self.url)) is not None:
            return f"queue {watched.name}"
        parts = urlsplit(self.url)
        return (
            f"queue at {parts.path}"
            if parts.scheme == "unix"
            else f"queue at {parts.hostname}:{parts.port or 6379}"
        )


def add_arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    add = parser.add_argument
    add("namespace", nargs="?", default="", type=utf8, help="The namespace whose entries changed.")
    add(
        "--key",
        action="append",
        type=utf8,
        default=[],
        metavar="KEY",
        dest="keys",
        help="A key that changed. Repeatable.",
    )
    add(
        "--tag",
        action="append",
        type=utf8,
        default=[],
        metavar="TAG",
        dest="tags",
        help="A tag whose entries changed. Repeatable.",
    )
    add("--all", action="store_true", help="Everything in the namespace changed. Needs --confirm NAMESPACE.")
    add("--confirm", default="", metavar="NAMESPACE", help="The namespace once more, to confirm --all.")
    add("--soft", action="store_true", help="Copies become stale instead of being refused.")
    add(
        "--over",
        default="",
        metavar="DURATION",
        help="Spreads the invalidation over this time, such as 5m, to spare the origin.",
    )
    add(
        "--source",
        type=utf8,
        default="/cachesvc/publish",
        help="The producer's name for the audit (default: %(default)s).",
    )
    add(
        "--traceparent",
        default="",
        metavar="W3C",
        help="The trace in which the data changed. Spans of the invalidation are linked to it.",
    )
    add(
        "--file",
        metavar="FILE",
        help="Reads changes from a file: a change or a CloudEvent on each line, as JSON."
        " - is standard input.",
    )
    add(
        "--queue",
        default="",
        metavar="URL",
        help="The URL of the region's queue. Use --topology for a URL with a password.",
    )
    add_topology(parser, environ, "It names the queue of each region, for --region.")
    add_announcing_region(parser, environ)
    add_access(parser, environ)


def run(options: argparse.Namespace) -> int:
    """Announces the changes, prints their receipts and returns the exit code.

    If nobody reads the receipts any more (`| head`), the changes are announced all the same. Raises
    `ConfigError` for a mistake of the caller, `TierUnavailableError` if the queue does not take a
    change.
    """
    destination = _destination(options)
    published = 0
    unread: BrokenPipeError | None = None
    try:
        with closing(_connect(destination, reach_of(options).queues)) as queue:
            for events in _batches(options, destination):
                ids = _send(queue, events, destination, published)
                published += len(events)
                try:
                    if unread is None:
                        _print_receipts(ids, destination)
                except BrokenPipeError as error:
                    unread = error
    except KeyboardInterrupt:
        return fail(INTERRUPTED, f"interrupted; {published} changes announced before")
    if unread is not None:
        raise unread
    if not published:
        raise ConfigError(options.file, "holds no events")
    return 0


def _print_receipts(ids: Sequence[str], destination: Destination) -> None:
    for id_ in ids:
        print(f"{destination.region}:{id_}" if destination.region else id_, flush=True)


def _destination(options: argparse.Namespace) -> Destination:
    if options.queue:
        if redis_fault(options.queue) or redis_query_fault(options.queue):
            # The URL may hold a password, so the message does not repeat it.
            raise ConfigError("--queue", f"must be {REDIS_URLS}")
        return Destination(options.queue, options.region)
    if options.topology is None:
        raise ConfigError(
            "--queue", "is not given, and no --topology with --region either: where to announce?"
        )
    topology = given_topology(options.topology)
    if options.region not in topology.regions:
        raise ConfigError(
            "--region", f"no region {options.region!r}{did_you_mean(options.region, topology.regions)}"
        )
    return Destination(topology.regions[options.region].queue, options.region, topology.namespaces)


def _connect(destination: Destination, access: Access) -> Redis:
    """Returns a client, which connects at its first use.

    Raises `TierUnavailableError` if no sentinel tells the queue's address.
    """
    watched = watched_in(destination.url)
    url = watched.url if watched is not None else destination.url
    settings = access.settings_for(url)
    tls = settings.pop("tls", None)
    pool: ConnectionPool = ConnectionPool.from_url(
        url,
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        protocol=2,
        **settings,
    )
    if watched is not None:
        try:
            host, port = asyncio.run(master_of(watched, access))
        except RedisError as error:
            raise TierUnavailableError(destination.where, told(error)) from error
        pool.connection_kwargs |= {"host": host, "port": port}
    if tls is not None:
        pool.connection_class = _encrypted_by(tls)
    return Redis.from_pool(pool)


def _encrypted_by(tls: ssl.SSLContext) -> type[SSLConnection]:
    """Returns a class of connections that this context makes: redis-py takes files only."""

    class Encrypted(SSLConnection):
        def _wrap_socket_with_ssl(self, sock: socket.socket) -> ssl.SSLSocket:
            return tls.wrap_socket(sock, server_hostname=self.host)

    return Encrypted


def _batches(options: argparse.Namespace, destination: Destination) -> Iterator[list[bytes]]:
    """Yields the checked events in groups, each to be sent together."""
    if options.file is None:
        yield [_from_options(options, destination)]
        return
    if options.namespace or options.keys or options.tags or options.all or options.soft or options.over:
        raise ConfigError(
            "--file",
            "its lines say what changed: leave out NAMESPACE, --key, --tag, --all, --soft and --over",
        )
    with closing(_open(options.file)) as file:
        yield from _from_lines(file, options, destination)


def _from_options(options: argparse.Namespace, destination: Destination) -> bytes:
    if not options.namespace:
        raise ConfigError("NAMESPACE", "is not given: whose entries changed?")
    change = Change(
        options.namespace, tuple(options.keys), tuple(options.tags), options.all, options.soft, options.over
    )
    _check(change, options.confirm, destination, "publish")
    return _event(change, options)


def _open(file: str) -> BinaryIO:
    try:
        return sys.stdin.buffer if file == "-" else Path(file).open("rb")
    except OSError as error:
        raise ConfigError(file, f"cannot be read: {error.strerror}") from error


def _from_lines(
    file: BinaryIO, options: argparse.Namespace, destination: Destination
) -> Iterator[list[bytes]]:
    numbers = itertools.count(1)
    for lines in _blocks(file):
        texts = [
            (line.strip(), f"{options.file}:{number}") for line, number in zip(lines, numbers, strict=False)
        ]
        events = [_from_line(text, options, destination, where) for text, where in texts if text]
        if events:
            yield events


def _blocks(file: BinaryIO) -> Iterator[Sequence[bytes]]:
    """Yields the lines of each read. Lines that come slowly through a pipe are not held back."""
    rest = b""
    while block := file.read1(BLOCK):  # type: ignore[attr-defined] # both files are buffered ones
        *lines, rest = (rest + block).split(b"\n")
        yield lines
    yield [rest]


def _from_line(line: bytes, options: argparse.Namespace, destination: Destination, where: str) -> bytes:
    found = decode("", line)
    if found.changes:
        _check(found.changes[0], options.confirm, destination, where)
        return line
    if b'"specversion"' in line:
        raise ConfigError(where, found.reason)
    try:
        change = msgspec.json.decode(line, type=Change)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(where, f"neither a change nor a CloudEvent of one: {error}") from None
    _check(change, options.confirm, destination, where)
    return _event(change, options)


def _check(change: Change, confirm: str, destination: Destination, where: str) -> None:
    """Raises `ConfigError` for a change that an instance would refuse."""
    _, faults = checked(change, MAX_BATCH_KEYS, LONGEST_OVER)
    if faults:
        raise ConfigError(where, faults[0])
    known = destination.namespaces
    if known is not None and change.namespace not in known:
        raise ConfigError(where, f"no namespace {change.namespace!r}{did_you_mean(change.namespace, known)}")
    if change.all and confirm != change.namespace:
        raise ConfigError(
            where, f"this is everything in {change.namespace!r}: say --confirm {change.namespace}"
        )


def _event(change: Change, options: argparse.Namespace) -> bytes:
    if not options.source:
        raise ConfigError("--source", "is empty: the audit is to say who it was")
    if options.traceparent and SpanContext.parse(options.traceparent) is None:
        raise ConfigError(
            "--traceparent", "is none, such as 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        )
    return encode(change, id_=uuid.uuid4().hex, source=options.source, traceparent=options.traceparent)


def _send(queue: Redis, events: Sequence[bytes], destination: Destination, published: int) -> list[str]:
    pipe = queue.pipeline(transaction=False)
    for event in events:
        pipe.xadd("changes", {"event": event})
    try:
        return [id_.decode() for id_ in pipe.execute()]
    except (RedisError, OSError) as error:
        raise TierUnavailableError(
            destination.where, f"{told(error)[:300]}; {published} changes announced before"
        ) from error
