"""The service document: the settings of one instance.

`load_service` and `load_topology` read, convert and check a document; a document that they return
can be used as it stands. Every mistake is a `ConfigError` with the path of the field; all mistakes
of a document are raised at once.
"""

import os
import re
import socket
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct, field
from msgspec.structs import replace

from cachesvc.config.addresses import host_fault, http_fault
from cachesvc.config.bearer import bearer_headers
from cachesvc.config.callers import Callers, check_anonymous, has_secrets
from cachesvc.config.document import Secret, parse, read_struct
from cachesvc.config.environment import overridden
from cachesvc.config.l1_rooms import note_rooms
from cachesvc.config.logins import (
    RedisLogin,
    RedisLogins,
    check_memcached_auth,
    check_redis_login,
    check_redis_logins,
)
from cachesvc.config.mistakes import Mistakes, collected
from cachesvc.config.seal_keys import check_sealed, read_seal_keys, seal_keys
from cachesvc.config.tls import ClientTls, ListenerTls, check_clients, check_listener
from cachesvc.config.topology import Topology
from cachesvc.config.topology_rules import REGION_NAME, check_topology
from cachesvc.model.did_you_mean import did_you_mean
from cachesvc.model.errors import ConfigError
from cachesvc.model.loopback import is_loopback
from cachesvc.model.units import Duration, Size

TOPOLOGY = "topology:"
"""Stands before the paths of the topology in mistakes of two documents."""
MOST_WORKERS = 128
INSTANCE_MARK = "{instance}"
"""Stands for the instance's name in the path of a journal."""
INSTANCE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")


class Operations(Struct, frozen=True, forbid_unknown_fields=True):
    """The port for operators: explanations, hot keys, the audit, metrics.

    `GET /v1/topology`, `/livez`, `/readyz` and `/openapi.json` are answered on both ports.
    """

    host: str = "127.0.0.1"
    """The host name or IP address to listen on. The default serves this machine only."""
    port: int | None = None
    """The TCP port to listen on, 1 to 65535; 0 takes any free port. Left out: there is no
    operations port, and `server.port` serves every route. With it, `server.port` refuses the routes
    for operators with 421 `wrong-port`."""
    max_connections: int = 128
    """The most connections to this port, of all peers together; at least 8. They do not count
    for `server.max_connections`, so that probes and metrics are answered while that is reached."""
    tls: ListenerTls = field(default_factory=ListenerTls)
    """TLS of this port."""


class Server(Struct, frozen=True, forbid_unknown_fields=True):
    """The HTTP side of one instance: where it listens, and its limits."""

    host: str = "127.0.0.1"
    """The host name or IP address to listen on. The default serves this machine only."""
    port: int = 8080
    """The TCP port to listen on, 1 to 65535; 0 takes any free port."""
    hosts: tuple[str, ...] = ()
    """More names that callers may use for an instance on a loopback address (`Host`, without
    the port); its proxy's, for instance. Other names with a dot are refused with 421
    `wrong-host`, or any web page could have a browser on this machine ask. On other addresses every
    name is answered."""
    peer_token_file: str = ""
    """The path of a file with the bearer token that this instance shows to the others.

    It asks them for explanations, so the token's caller needs `explain:*`; where the topology has
    relays, it reads fences from them, and needs `observe:*`, too. The file is read again
    whenever it is needed. Empty: the instance shows no identity."""
    sandbox: bool = True
    """True: answers say `Content-Security-Policy: sandbox`, so that a browser that is led to a
    stored value runs no script of it."""
    max_body: Size = Size.parse("4MiB")
    """The largest request body. A larger one is refused with 413 `body-too-large`; if its
    length was declared, before any of it is read. It must be larger than 0."""
    max_batch_keys: int = 1000
    """The most keys in one `:get`, the most items in one `:put`, and the most keys and tags
    together in one invalidation; 1 to 100000. More are refused with 413 `too-many-keys`. A change
    event on the queue that names more is refused whole, as a dead letter."""
    max_answer: Size = Size.parse("16MiB")
    """The most bytes of values in one answer of `:get`. Keys whose values have no room are
    answered with the problem `answer-full`, and are to be asked for again (SDKs do so by
    themselves). One value always fits. It must be larger than 0."""
    max_bytes_in_flight: Size = Size.parse("256MiB")
    """The most bytes of bodies that are on their way at once, of all callers together: heads
    that have not ended, requests that wait behind another on their connection, request bodies that
    arrive in pieces, values that are gathered for a `:get`, and answers that their
    peers have not taken. Beyond it, requests with large bodies or answers are refused with 503
    `overloaded`, and the connections that have let an answer wait longest are closed. Where there are
    several namespaces, each leaves an eighth free. It must not be smaller than `max_answer` or
    `max_body`."""
    request_timeout: Duration = Duration.parse("10s")
    """The longest time that a request may take; then it is answered 504 `deadline` (0.25 s
    late at most). A longer `Cachesvc-Timeout` counts as this. It must be longer than 0, and longer
    than `l2.timeout` and `l3.timeout`. A plain read of one key is bounded by the deadlines of its
    tiers, its lease and its origin instead."""
    max_connections: int = 16_000
    """The most connections of callers; at least 8. To make room for one more, connections of
    the peer that has most are closed that were idle longest; if none is idle, the new one is
    answered 503 `overloaded`, and only probes and `/metrics` are answered on it. If the process may
    not open so many files (and 256 more), the limit is what it may open; a log line says so."""
    max_connections_per_peer: int = 8_000
    """The most connections of one address; at least 8. Callers behind one proxy share them."""
    idle_timeout: Duration = Duration.parse("75s")
    """How long a connection stays open without a request; at least 1s. Proxies keep theirs for
    less (60 s is usual), so that they close first, and send nothing on a connection that is being
    closed here."""
    head_timeout: Duration = Duration.parse("10s")
    """How long the head of a request may take from its first byte; longer than 0. Then the
    request is answered 408 `head-timeout`, up to 0.5 s late, and its connection is closed."""
    max_header_bytes: Size = Size.parse("32KiB")
    """The most bytes of the header lines of one request, at least 16KiB. More are refused with
    431 `head-too-large`; a head that has not ended after four times as many ends its connection. Common
    proxies take 8 to 32 KiB. The headers of a plain read that change nothing are not measured."""
    max_header_lines: int = 100
    """The most header lines of one request, at least 32. More are refused with 431
    `head-too-large`."""
    least_read_rate: Size = Size.parse("256KiB")
    """The bytes that a peer has to take of a waiting answer in one second, at least 1KiB. An
    answer has `request_timeout` and a second more for each so many bytes; then its connection is
    closed."""
    max_streams: int = 1000
    """The most streams of fences (`GET /v1/fences`), of all peers; at least 1. One more is
    refused with 503 `too-many-subscribers`."""
    max_streams_per_peer: int = 500
    """The most streams of fences of one address; at least 1. One more is refused with 503
    `too-many-subscribers`."""
    max_inspections: int = 50
    """The most explanations (`:explain`, also those that other instances ask for) and dry runs
    of invalidations that are begun in one second, together; at least 1. One more is refused with 503
    `overloaded`. Each takes 6 to 25 ms of the process's time."""
    max_in_progress: int = 10_000
    """The most reads beyond L1 and writes that are in progress at once; at least 1. One more
    is refused with 503 `overloaded`. While several namespaces ask, each leaves an eighth free. The
    default is high because reads that join a running load cost little."""
    max_delay: Duration = Duration.parse("200ms")
    """How long reads beyond L1 and writes may stay, on average, while the process has no time
    left; at least 10ms. If they stay longer for half a second, that is overload: so many of them are
    refused with 503 `overloaded` that the others stay no longer than this. Namespaces, and the
    callers in them, that ask for no more than their fair share are not refused."""
    hot_key_share: float = 0.1
    """The share of this instance's reads from which on a key is hot. 0.02 to 1, or 0 for
    never. Readers of a hot key are told to spread it over several instances of the region, until it
    has at most this share of the reads of each. It changes nothing where an instance has less than
    400 reads per second, or where the topology names fewer than two instances of the region."""
    shutdown_timeout: Duration = Duration.parse("10s")
    """How long running requests may go on after a stop signal. Then their connections are
    closed."""
    workers: int | Literal["auto"] = 1
    """The processes that serve on this host, 1 to 128; `auto`: one for each core that this one
    may use. More than one need Linux, and a `port` that is not 0. Each is an instance: the first one
    of `eu-a` is `eu-a-0`, which the topology names with a port of its own. `l1.budget`,
    `l1.max_entries` and `max_bytes_in_flight` are divided among them; other limits hold for each."""
    worker_hung_after: Duration = Duration.parse("10s")
    """How long the event loop of one of several workers may stand still; then its supervisor
    kills the worker and starts it again. At least 2s; 0: never."""
    operations: Operations = field(default_factory=Operations)
    """The port for operators."""
    tls: ListenerTls = field(default_factory=ListenerTls)
    """TLS of the port."""


class Snapshot(Struct, frozen=True, forbid_unknown_fields=True):
    """The file that keeps L1 warm over a restart."""

    directory: str = ""
    """The directory of the file, on a local disk; each instance has a file of its own in it,
    which only its user can read. It holds values as they are in memory. At a stop the copies that
    were used last are written; at the next start they are taken if the same queues are read, each
    only if it may still be answered. Empty: L1 begins empty."""
    budget: Size = Size.parse("64MiB")
    """About how many bytes of copies are written, counted as `l1.budget` counts them. It must
    be more than 0. Several workers divide it among them."""
    timeout: Duration = Duration.parse("5s")
    """How long a stop may take to write the file, and a start to take its copies, until which
    the instance is not ready; longer than 0. What is not written or taken by then is left out."""


class L1(Struct, frozen=True, forbid_unknown_fields=True):
    """The copies in the memory of this process."""

    budget: Size = Size.parse("256MiB")
    """The memory for copies: values, keys, tags, content types, the ETags of origins, and 475
    bytes per entry together; the process grows by about as much, and by a tenth more at most. At
    least 1MiB. Beyond it the entries that were used least recently are evicted; of which namespace,
    its `l1` may say. An entry above a tenth of it is not kept."""
    max_entries: int = 4_000_000
    """The most copies, at least 1. It bounds L1 beside `budget`; whichever is reached first
    evicts copies."""
    snapshot: Snapshot = field(default_factory=Snapshot)
    """The file that keeps L1 warm over a restart."""


class L2(Struct, frozen=True, forbid_unknown_fields=True):
    """The connections of this instance to its region's memcached servers."""

    connect_timeout: Duration = Duration.parse("1s")
    """How long opening a connection to a memcached server may take, and again the first
    exchange on it, which measures the way. Requests do not wait for it: their keys are misses
    after `timeout`. It must be longer than 0."""
    timeout: Duration = Duration.parse("100ms")
    """How long one exchange (a batch of commands and its replies) with one memcached server
    may take, on top of the way there (`round_trip_at_most`). After that the connection is closed and
    the keys of the batch count as misses. It must be longer than 0 and shorter than
    `server.request_timeout`."""
    round_trip_at_most: Duration = Duration.parse("1s")
    """The most that the way to a memcached server adds to `timeout`. What it adds is measured:
    three round trips and four times their jitter. For a near server it is about 1 ms. 0: nothing is
    added."""
    max_batch: int = 512
    """The most keys in one exchange, 1 to 10000; more go in several."""
    warm_up: Duration = Duration.parse("5m")
    """How long after a change of the region's memcached servers a key that its server does not
    have is asked for at the server that had it before. What is found there is judged as any copy, and
    copied. Another change ends it. 0: not at all."""
    gutter_ttl: Duration = Duration.parse("10s")
    """The longest time that a memcached server of the region's `gutter` keeps a copy; at least
    1s, and in whole seconds, rounded up. The longer it is, the fewer keys of a server that is away are
    read again from L3, and the larger the gutter must be."""
    seal: bool = True
    """True: copies in memcached are sealed if there are `seal_keys`, so that nobody without a
    key can write a value there that is answered. Without keys the start is refused if a server of the
    region's pool is not on a loopback address or a unix socket. False: copies are not sealed, and
    whoever reaches a server of the pool can have any value answered."""
    seal_keys: Secret = ""
    """The keys of the seal: 1 or 2 secrets of 32 to 128 hexadecimal digits, separated by a
    space. The first seals copies; a copy that either has sealed is taken. All instances of a region
    need the same ones. They are never logged or shown."""
    seal_keys_file: str = ""
    """The path of a file with the keys of the seal, in place of `seal_keys`; a line break
    separates them, too. It is read at the start."""
    auth: Secret = ""
    """`user:password` for memcached servers that have an auth file (`-Y`). It is sent on each
    new connection. It is never logged or shown."""
    auth_file: str = ""
    """The path of a file whose first line is such a `user:password`, in place of `auth`.

    It may be the servers' own. It is read for each new connection."""


class L3(Struct, frozen=True, forbid_unknown_fields=True):
    """The connections of this instance to the cells' Redis servers, and what these keep."""

    connect_timeout: Duration = Duration.parse("200ms")
    """How long a request waits for a connection to a cell that is opened; three round trips
    come on top once the way is known. The opening itself goes on for 5 s, and later requests use the
    connection. It must be longer than 0."""
    timeout: Duration = Duration.parse("100ms")
    """How long one exchange (a script call with a batch of keys) with one cell may take, on
    top of the way there (`round_trip_at_most`). After that the connection is closed; reads go on
    without the cell, and nothing is written to it. It must be longer than 0 and shorter than
    `server.request_timeout`."""
    round_trip_at_most: Duration = Duration.parse("1s")
    """The most that the way to a cell adds to `timeout`. What it adds is measured: three round
    trips and four times their jitter, so that an exchange with a far cell outlives a packet that is
    lost. For a near cell it is about 1 ms. 0: nothing is added."""
    max_batch: int = 256
    """The most keys in one script call, 1 to 10000; more go in several. Two calls that read
    are under way at a time."""
    max_waiting: int = 65_536
    """The most keys that wait for their turn at one cell, for reads and each kind of write by
    itself; 1000 to 10000000. Beyond that, a read goes on as if the cell were out of reach, and a
    write is refused with 503 `home-unavailable`."""
    retention: Duration = Duration.parse("1h")
    """The longest time that a cell keeps a copy, and (with a minute on top) how long it keeps
    the fences that it applied. A namespace whose `ttl` and longer stale window are together above it
    is refused at the start. It must not be longer than `coherence.fence_retention`. All instances of
    a deployment should have the same value."""


class Breakers(Struct, frozen=True, forbid_unknown_fields=True):
    """When servers that fail are left alone, and how they are tried again.

    This holds for each memcached server, cell, queue and origin by itself.
    """

    failures: int = 5
    """The failed calls in a row after which a server is left alone, 1 to 100. It also is when
    twice as many of the last four times as many calls failed; memcached servers and cells are at once
    when they cannot be connected to. A failure is a call without an answer in time, or with a broken
    connection."""
    first_probe: Duration = Duration.parse("100ms")
    """How long a server is left alone before one call tries it. With each failed try the time
    doubles, up to `longest_probe`; each time is lengthened at random, by up to a half. It must be
    longer than 0."""
    longest_probe: Duration = Duration.parse("1s")
    """The longest time between two tries. It must not be shorter than `first_probe`."""
    out_at_most: float = 1.0
    """The largest part of the servers of one kind that are left alone at a time, above 0, 1 at
    most; one server always may be. Where more of them fail, calls still go to those beyond it."""


class QueueJournal(Struct, frozen=True, forbid_unknown_fields=True):
    """The file for what this instance could not announce while its queue is away.

    Without a `path`, invalidations and puts are refused then (503 `queue-unavailable`).
    """

    path: str = ""
    """The file, of this instance alone; it is made if it is missing. `{instance}` in it stands
    for the instance's name, and is needed if there are several workers. Empty: there is no journal."""
    max_bytes: Size = Size.parse("64MiB")
    """The most bytes of the file, at least 1MiB. What does not fit is refused with 503
    `queue-unavailable`."""
    max_changes: int = 100_000
    """The most invalidations and puts that wait in it to be announced, 1 to 10000000; beyond
    them, more are refused with 503 `queue-unavailable`."""
    fsync: Literal["always", "never"] = "always"
    """`always`: what was accepted is on the disk before the call is answered. `never`: it is
    left to the kernel, so it outlives the process, and may be lost with the machine."""


class Queue(Struct, frozen=True, forbid_unknown_fields=True):
    """The time while the region's queue is away."""

    journal: QueueJournal = field(default_factory=QueueJournal)
    """The file for what could not be announced."""


class Coherence(Struct, frozen=True, forbid_unknown_fields=True):
    """Clocks, fences and the streams that carry fences.

    All instances should have the same values.
    """

    max_clock_skew: Duration = Duration.parse("100ms")
    """The greatest difference allowed between the clocks of any two cells, queues and
    instances (S in docs/coherence.md); longer than 0, 1m at most. No guarantee holds while clocks
    differ by more. The larger it is, the longer after an invalidation of a tag or a namespace fills
    of its entries are refused, and puts of them wait."""
    sketch_slots: int = 1 << 21
    """The slots per row of the fence sketch, in which an instance remembers fences: a power of
    two, 1024 to 2^30. It takes 16 bytes of memory per slot (two rows of 8 bytes; 32MiB by default).
    At least 4 × fences per second × the longest TTL in L2 in seconds: with fewer, more copies are
    refused without need, and never a stale one answered."""
    heartbeat: Duration = Duration.parse("500ms")
    """The pause between two heartbeats of a region, which one of its instances sends.
    A heartbeat says up to which time all changes have been applied, so the staleness bound rises by
    this much between two. It must be longer than 0 and shorter than `fence_retention`; together with
    `max_clock_skew` it must be below the `max_lag` of every namespace."""
    fence_retention: Duration = Duration.parse("1h")
    """How long a region's queue keeps the fences on its stream, and the longest `over` of a
    paced invalidation. It must not be shorter than `l3.retention`. An instance that was cut off for
    longer has missed fences: it refuses all copies that were loaded before it is back."""
    relay_log: Size = Size.parse("8MiB")
    """The memory, for each region, of the newest items of its fences in an instance that hands
    them on: a relay (`regions.*.relays`), or the first worker of a host. 1MiB at least. A follower that
    needs older items reads them from the queue. `0B`: every worker of a host reads the queues itself; a
    relay must have some."""


class Telemetry(Struct, frozen=True, forbid_unknown_fields=True):
    """Traces, metrics and logs of one instance."""

    otlp: str = ""
    """The base URL (`http://` or `https://`) of an OTLP/HTTP receiver, such as
    `http://127.0.0.1:4318`. Traces are sent to `/v1/traces` there, metrics to `/v1/metrics`. Empty:
    nothing is sent, and nothing is traced."""
    trace_ratio: float = 0.01
    """The share of requests that are traced, 0 (none) to 1 (all). It holds for requests
    without a `traceparent`; for others the caller has decided."""
    report_keys: int = 4096
    """The most keys that are followed for the estimates of `cachesvc report namespaces`. 64
    to 1000000, or 0 for none. One key in 32 is followed, or fewer; each takes about 600 bytes."""
    slow: Duration = Duration.parse("250ms")
    """A request that took longer than this, or failed, is sent as a single span although it
    was not sampled; at most 100 of them in a second. It must be longer than 0. A request that asked
    to wait does not count as slow."""
    metrics_interval: Duration = Duration.parse("15s")
    """The pause between two exports of metrics to `otlp`, at least 1s. `GET /metrics` answers
    in any case."""
    hashed_keys: bool = False
    """True: server spans carry the digest of the key that was asked for. Meant for debugging."""
    debug_token: Secret = ""
    """A secret of at least 16 characters. Requests that send it as `Cachesvc-Debug` are shown
    the text of keys by `GET /v1/hotkeys`. Empty: such requests are refused with 403 `no-debug`. It is
    never logged."""
    audit_records: int = 10_000
    """The records of the audit (`GET /v1/audit`) that this instance keeps, 0 to 1000000; the
    oldest make room. One takes about 500 bytes of memory."""
    audit_log: Literal["auto", "always", "never"] = "auto"
    """Whether each record of the audit is a log line, too, whatever `log_level` is. `auto`:
    unless both ports serve this machine only."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least level of the service's own log lines. Other libraries log only warnings and
    errors."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """The form of log lines on stderr: `console` for people, `json` with one object per line.
    `auto` is `console` on a terminal and `json` otherwise."""


class Service(Struct, frozen=True, forbid_unknown_fields=True):
    """The service document: one instance and its settings. Every field has a default."""

    region: str = "local"
    """The region of this instance: 1 to 64 of `a-z`, `0-9` and `-`, beginning with a letter.
    It must be one of `regions` in the topology."""
    instance: str = ""
    """The name of this instance, unique in its region: 1 to 128 letters, digits and `_.:-`,
    beginning with a letter or digit. Empty: the host name and the port (with port 0, the process id)."""
    server: Server = field(default_factory=Server)
    """The HTTP side: address and limits."""
    l1: L1 = field(default_factory=L1)
    """The copies in this process."""
    l2: L2 = field(default_factory=L2)
    """The connections to memcached servers."""
    l3: L3 = field(default_factory=L3)
    """The connections to cells."""
    breakers: Breakers = field(default_factory=Breakers)
    """When servers that fail are left alone."""
    queue: Queue = field(default_factory=Queue)
    """The time while the region's queue is away."""
    coherence: Coherence = field(default_factory=Coherence)
    """Clocks and fences."""
    redis: RedisLogins = field(default_factory=RedisLogins)
    """The user for cells and queues."""
    sentinel: RedisLogin = field(default_factory=RedisLogin)
    """The user for the sentinels of cells and queues, if these want one."""
    tls: ClientTls = field(default_factory=ClientTls)
    """The certificates for connections to all servers."""
    telemetry: Telemetry = field(default_factory=Telemetry)
    """Traces, metrics and logs."""
    zone: str = ""
    """The zone of this instance in its region; its name is formed like a region's. Empty: the
    one that the topology has for it (`regions.NAME.zones`). With `rings: zone` it says which
    memcached servers the instance uses."""


def load_service(path: Path | None, environ: Mapping[str, str]) -> Service:
    """Returns the service document at `path`, under the `CACHESVC_*` settings of `environ`.

    Without a path the defaults take the place of the document. Raises `ConfigError` with every
    mistake.
    """
    found = Mistakes()
    service, _ = read_service(path, environ, found)
    found.end()
    return named(service)


def read_service(
    path: Path | None, environ: Mapping[str, str], found: Mistakes
) -> tuple[Service, Collection[str]]:
    """Returns the settings as far as they can be read, and the names of the given fields.

    Its mistakes are noted in `found`.
    """
    document = overridden(_parsed(path, found), Service, environ, found)
    service = read_struct(document, Service, found=found)
    service = replace(service, l2=_with_keys_of_file(service.l2, found))
    check_service(service, found)
    return service, document.keys()


def named(service: Service) -> Service:
    """Returns the settings with a name for the instance, if they have none."""
    if service.instance:
        return service
    return replace(service, instance=_default_instance_name(service.server.port))


def _with_keys_of_file(l2: L2, found: Mistakes) -> L2:
    """Returns the settings with the text of `seal_keys_file`, if there is one, as `seal_keys`."""
    if not l2.seal_keys_file:
        return l2
    found.require(not l2.seal_keys, "$.l2.seal_keys", "is given beside l2.seal_keys_file: keep one of them")
    try:
        return replace(l2, seal_keys=read_seal_keys(l2.seal_keys_file))
    except ConfigError as error:
        found.note_unread("$.l2.seal_keys_file", error.why)
        return l2


def _note_seal_keys(text: str, found: Mistakes) -> None:
    try:
        seal_keys(text)
    except ConfigError as error:
        found.note_unread("$.l2.seal_keys", error.why)


def load_topology(path: Path) -> Topology:
    """Returns the shared document at `path`. Raises `ConfigError` with every mistake."""
    found = Mistakes()
    topology = read_topology(path, found)
    found.end()
    return topology


def read_topology(path: Path, found: Mistakes) -> Topology:
    """Returns the shared document as far as it can be read; its mistakes are noted in `found`."""
    topology = read_struct(_parsed(path, found), Topology, found=found)
    check_topology(topology, found)
    return topology


def _parsed(path: Path | None, found: Mistakes) -> Any:
    try:
        return parse(path, found) if path else None
    except ConfigError as error:
        found.note_all("$", error)
        return None


def check_service(service: Service, found: Mistakes | None = None) -> None:
    """Raises `ConfigError` with every rule within the service document that does not hold.

    With `found`, they are noted there.
    """
    with collected(found) as found:
        found.require(
            bool(REGION_NAME.fullmatch(service.region)),
            "$.region",
            f"{service.region!r} is no name: {REGION_NAME.pattern}",
        )
        found.require(
            not service.zone or bool(REGION_NAME.fullmatch(service.zone)),
            "$.zone",
            f"{service.zone!r} is no name: {REGION_NAME.pattern}",
        )
        named = not service.instance or INSTANCE_NAME.fullmatch(service.instance)
        found.require(bool(named), "$.instance", f"{service.instance!r} is no name: {INSTANCE_NAME.pattern}")
        _check_server(service.server, found)
        found.require(service.l1.budget >= 1 << 20, "$.l1.budget", "below 1MiB nothing is kept; give it more")
        found.require(service.l1.max_entries > 0, "$.l1.max_entries", "must be at least 1")
        found.require(service.l1.snapshot.budget > 0, "$.l1.snapshot.budget", "must be more than 0")
        found.require(service.l1.snapshot.timeout > 0, "$.l1.snapshot.timeout", "must be longer than 0")
        for name, far in (("l2", service.l2), ("l3", service.l3)):
            found.require(far.connect_timeout > 0, f"$.{name}.connect_timeout", "must be longer than 0")
            found.require(
                0 < far.timeout < service.server.request_timeout,
                f"$.{name}.timeout",
                "must be below server.request_timeout, and longer than 0",
                "$.server.request_timeout",
            )
            found.require(1 <= far.max_batch <= 10_000, f"$.{name}.max_batch", "must be 1 to 10000")
        found.require(
            1000 <= service.l3.max_waiting <= 10_000_000, "$.l3.max_waiting", "must be 1000 to 10000000"
        )
        found.require(service.l2.gutter_ttl >= 1_000_000, "$.l2.gutter_ttl", "must be at least 1s")
        _check_breakers(service.breakers, found)
        _check_journal(service, found)
        _note_seal_keys(service.l2.seal_keys, found)
        check_memcached_auth(service.l2.auth, service.l2.auth_file, found)
        check_redis_logins(service.redis, found)
        check_redis_login(service.sentinel, "$.sentinel", found)
        check_listener(service.server.tls, "$.server.tls", found)
        check_listener(service.server.operations.tls, "$.server.operations.tls", found)
        check_clients(service.tls, "$.tls", found)
        _check_coherence(service.coherence, found)
        _check_telemetry(service.telemetry, found)
        found.require(
            service.coherence.fence_retention >= service.l3.retention,
            "$.coherence.fence_retention",
            "must not be shorter than l3.retention: a copy would outlive the record of its fences",
            "$.l3.retention",
        )


def check_together(service: Service, topology: Topology) -> None:
    """Raises `ConfigError` with every rule between the two documents that does not hold.

    A path in the topology begins with `topology:`.
    """
    found = Mistakes()
    note_region(service, topology, found, found.within(TOPOLOGY))
    note_together(service, topology, found, found.within(TOPOLOGY))
    found.end()


def is_audit_logged(service: Service) -> bool:
    """Returns whether the records of the audit are log lines, too."""
    hosts = (service.server.host, service.server.operations.host)
    when = service.telemetry.audit_log
    return when == "always" or (when == "auto" and not all(map(is_loopback, hosts)))


def note_region(service: Service, topology: Topology, found: Mistakes, shared: Mistakes) -> None:
    """Notes a region that the topology does not have.

    `shared` has the mistakes of the topology.
    """
    if shared.is_read("$.regions"):
        found.require(
            service.region in topology.regions,
            "$.region",
            f"no region {service.region!r} in the topology{did_you_mean(service.region, topology.regions)}",
        )


def note_together(service: Service, topology: Topology, found: Mistakes, shared: Mistakes) -> None:
    """Notes settings with which copies would never be answered, or kept too long or nowhere.

    `found` has the mistakes of the service document, `shared` those of the topology.
    """
    l2, here = service.l2, topology.regions.get(service.region)
    if here is not None and found.is_read("$.l2.seal_keys") and found.is_read("$.l2.seal_keys_file"):
        try:
            check_sealed(l2.seal, l2.seal_keys, [*here.pool.items(), *here.gutter.items()])
        except ConfigError as error:
            found.note(error.path, error.why)
    if shared.is_read("$.callers"):
        note_anonymous(service.server, topology.callers, found)
    if found.is_read("$.l1.budget"):
        note_rooms(topology, service.l1.budget, shared)
    coherence = service.coherence
    least_lag_us = coherence.heartbeat + coherence.max_clock_skew
    is_retention_read = found.is_read("$.l3.retention")
    is_least_lag_read = all(map(found.is_read, ("$.coherence.heartbeat", "$.coherence.max_clock_skew")))
    for name, namespace in topology.namespaces.items():
        path = f"$.namespaces.{name}"
        kept_us = namespace.ttl + max(namespace.stale_while_revalidate, namespace.stale_if_error)
        shared.require(
            kept_us <= service.l3.retention or not is_retention_read,
            f"{path}.ttl",
            f"with its stale windows copies are kept {kept_us // 1_000_000}s, but l3.retention of the "
            f"service document is {service.l3.retention // 1_000_000}s: shorten them, or raise l3.retention "
            "and coherence.fence_retention",
            f"{path}.stale_while_revalidate",
            f"{path}.stale_if_error",
        )
        shared.require(
            namespace.max_lag > least_lag_us or not is_least_lag_read,
            f"{path}.max_lag",
            "must be above coherence.heartbeat + coherence.max_clock_skew, or no copy would ever be answered",
        )


def note_anonymous(server: Server, callers: Callers | None, found: Mistakes) -> None:
    """Notes addresses that others reach, if whoever reaches them could do anything."""
    hosts = {"$.server.host": server.host}
    if server.operations.port is not None:
        hosts["$.server.operations.host"] = server.operations.host
    for path, host in hosts.items():
        if found.is_read(path):
            try:
                check_anonymous(host, callers, path)
            except ConfigError as error:
                found.note(error.path, error.why)


def tokens_in_clear_text(server: Server, topology: Topology) -> Iterator[str]:
    """Yields a sentence for each port to which tokens come in clear text from other machines.

    It is no mistake: something in front of the instance may end TLS.
    """
    if not has_secrets(topology.callers):
        return
    for listener, name in ((server, "server"), (server.operations, "server.operations")):
        if listener.port is not None and not is_loopback(listener.host) and not listener.tls.cert:
            yield (
                f"{name} speaks plain HTTP at {listener.host!r}, which other machines may reach:"
                f" callers' tokens can be read on the way. Give it a certificate ({name}.tls.cert), unless"
                " something in front of it ends TLS"
            )


def note_unlikely(
    service: Service, topology: Topology, found: Mistakes, shared: Mistakes, *, is_named: bool
) -> None:
    """Notes settings that an instance starts with, and that nobody can mean.

    `is_named`: the instance has the name that its document gives it, and not a name from its host.
    """
    server = service.server
    for name, region in topology.regions.items():
        shared.require(
            any(cell.region == name for cell in topology.cells.values()),
            f"$.regions.{name}",
            "has no cell: every entry that is not in L1 or L2 there comes from another region. "
            f"Give it one under cells, with `region: {name}`",
            "$.cells",
            *(f"$.cells.{cell}.region" for cell in topology.cells),
        )
        if name == service.region and is_named and region.instances:
            found.require(
                service.instance in region.instances or not shared.is_read(f"$.regions.{name}.instances"),
                "$.instance",
                f"{service.instance!r} is none of the instances of {name!r} in the topology, so clients "
                f"and other instances do not ask it{did_you_mean(service.instance, region.instances)}",
            )
    for name, namespace in topology.namespaces.items():
        path = f"$.namespaces.{name}"
        if found.is_read("$.server.max_body"):
            shared.require(
                namespace.max_value <= server.max_body,
                f"{path}.max_value",
                f"is above server.max_body of the service document ({server.max_body} bytes): "
                "a request with such a value is refused with 413",
            )
        if not found.is_read("$.server.request_timeout"):
            continue
        deadlines = {"lease_wait": namespace.lease_wait}
        if namespace.origin is not None:
            deadlines["origin.soft_deadline"] = namespace.origin.soft_deadline
            deadlines["origin.hard_deadline"] = namespace.origin.hard_deadline
        for where, deadline in deadlines.items():
            shared.require(
                deadline <= server.request_timeout,
                f"{path}.{where}",
                f"is above server.request_timeout of the service document "
                f"({server.request_timeout.seconds:g} s): requests end before it",
            )


def _check_server(server: Server, found: Mistakes) -> None:
    def require(holds: bool, field: str, why: str, *others: str) -> None:
        found.require(holds, f"$.server.{field}", why, *(f"$.server.{other}" for other in others))

    require(0 <= server.port <= 65535, "port", "must be 1 to 65535, or 0 for a free one")
    _check_workers(server, require)
    require(bool(server.host), "host", "is empty: name the address to listen on, such as 127.0.0.1")
    fault = host_fault(server.host)
    require(not fault, "host", f"{server.host!r} is no host name or IP address alone, such as 127.0.0.1")
    for index, name in enumerate(server.hosts):
        fault = host_fault(name)
        require(not fault, f"hosts[{index}]", f"{name!r} is no host name or IP address without port")
    try:
        bearer_headers(server.peer_token_file, "$.server.peer_token_file")
    except ConfigError as error:
        found.note(error.path, error.why)
    require(server.max_body > 0, "max_body", "must be larger than 0")
    require(server.max_answer > 0, "max_answer", "must be larger than 0")
    require(
        server.max_bytes_in_flight >= max(server.max_answer, server.max_body),
        "max_bytes_in_flight",
        "must not be below server.max_answer or server.max_body: no such body would be taken",
        "max_answer",
        "max_body",
    )
    require(1 <= server.max_batch_keys <= 100_000, "max_batch_keys", "must be 1 to 100000")
    require(server.max_connections >= 8, "max_connections", "must be at least 8")
    require(server.max_connections_per_peer >= 8, "max_connections_per_peer", "must be at least 8")
    require(server.max_inspections >= 1, "max_inspections", "must be at least 1")
    require(server.idle_timeout >= 1_000_000, "idle_timeout", "must be at least 1s")
    require(server.head_timeout > 0, "head_timeout", "must be longer than 0")
    require(
        server.max_header_bytes >= 16_384,
        "max_header_bytes",
        "must be at least 16KiB: SDKs send tokens of up to 8KiB in a header",
    )
    require(server.max_header_lines >= 32, "max_header_lines", "must be at least 32")
    require(server.least_read_rate >= 1024, "least_read_rate", "must be at least 1KiB")
    require(server.max_streams >= 1, "max_streams", "must be at least 1")
    require(server.max_streams_per_peer >= 1, "max_streams_per_peer", "must be at least 1")
    require(server.request_timeout > 0, "request_timeout", "must be longer than 0")
    require(server.max_in_progress >= 1, "max_in_progress", "must be at least 1")
    require(
        server.hot_key_share == 0 or 0.02 <= server.hot_key_share <= 1,
        "hot_key_share",
        "must be 0.02 to 1, or 0 to spread no key",
    )
    require(server.max_delay >= 10_000, "max_delay", "below 10ms every burst would count as overload")
    _check_operations(server, require)


def _check_workers(server: Server, require: Callable[..., None]) -> None:
    workers = server.workers
    require(
        server.worker_hung_after == 0 or server.worker_hung_after >= 2_000_000,
        "worker_hung_after",
        "must be at least 2s, or 0 for never: workers tell of themselves every second",
    )
    require(
        workers == "auto" or 1 <= workers <= MOST_WORKERS, "workers", f"must be 1 to {MOST_WORKERS}, or auto"
    )
    require(workers == 1 or sys.platform == "linux", "workers", "several need Linux: run one")
    shared = "must not be 0 with several server.workers, which share it: choose one"
    require(workers == 1 or server.port != 0, "port", shared, "workers")
    require(workers == 1 or server.operations.port != 0, "operations.port", shared, "workers")


def _check_operations(server: Server, require: Callable[..., None]) -> None:
    operations, port = server.operations, server.operations.port
    fault = host_fault(operations.host) if operations.host else "it is empty"
    require(
        not fault,
        "operations.host",
        f"{operations.host!r} is no host name or IP address alone, such as 127.0.0.1",
    )
    require(
        port is None or 0 <= port <= 65535,
        "operations.port",
        "must be 1 to 65535, or 0 for a free one; leave it out for no operations port",
    )
    require(
        not port or (operations.host, port) != (server.host, server.port),
        "operations.port",
        "is server.port: give operations a port of their own, or leave this out to have one for all",
        "port",
    )
    require(operations.max_connections >= 8, "operations.max_connections", "must be at least 8")


def _check_breakers(breakers: Breakers, found: Mistakes) -> None:
    def require(holds: bool, field: str, why: str, *others: str) -> None:
        found.require(holds, f"$.breakers.{field}", why, *(f"$.breakers.{other}" for other in others))

    require(1 <= breakers.failures <= 100, "failures", "must be 1 to 100")
    require(breakers.first_probe > 0, "first_probe", "must be longer than 0")
    require(
        breakers.longest_probe >= breakers.first_probe,
        "longest_probe",
        "must not be shorter than first_probe",
        "first_probe",
    )
    require(0 < breakers.out_at_most <= 1, "out_at_most", "must be above 0, and at most 1 (all servers)")


def _check_journal(service: Service, found: Mistakes) -> None:
    def require(holds: bool, field: str, why: str, *others: str) -> None:
        found.require(holds, f"$.queue.journal.{field}", why, *others)

    journal, is_alone = service.queue.journal, service.server.workers == 1
    require(
        not journal.path or is_alone or INSTANCE_MARK in journal.path,
        "path",
        f"must have {INSTANCE_MARK} in it: each worker has a file of its own",
        "$.server.workers",
    )
    require(journal.max_bytes >= 1 << 20, "max_bytes", "must be at least 1MiB")
    require(1 <= journal.max_changes <= 10_000_000, "max_changes", "must be 1 to 10000000")


def _check_coherence(coherence: Coherence, found: Mistakes) -> None:
    def require(holds: bool, field: str, why: str, *others: str) -> None:
        found.require(holds, f"$.coherence.{field}", why, *(f"$.coherence.{other}" for other in others))

    slots = coherence.sketch_slots
    power = 1 << 10 <= slots <= 1 << 30 and slots & (slots - 1) == 0
    below = 1 << max(10, min(30, slots.bit_length() - 1))
    require(power, "sketch_slots", f"{slots} is not a power of two from 1024 to 2^30; nearest below: {below}")
    require(coherence.max_clock_skew > 0, "max_clock_skew", "must be longer than 0: clocks do differ")
    require(coherence.max_clock_skew <= 60_000_000, "max_clock_skew", "above 1m: set the clocks instead")
    require(coherence.heartbeat > 0, "heartbeat", "must be longer than 0")
    log = coherence.relay_log
    require(
        log == 0 or log >= 1 << 20,
        "relay_log",
        "must be 1MiB or more; 0B: workers read the queues themselves",
    )
    require(
        coherence.heartbeat < coherence.fence_retention,
        "heartbeat",
        "must be below fence_retention",
        "fence_retention",
    )


def _check_telemetry(telemetry: Telemetry, found: Mistakes) -> None:
    url = telemetry.otlp
    fault = url and (http_fault(url) or ("it has a query or a fragment" if set("?#") & set(url) else ""))
    found.require(
        not fault, "$.telemetry.otlp", f"is no http:// or https:// URL of an OTLP receiver: {fault}"
    )
    found.require(0 <= telemetry.trace_ratio <= 1, "$.telemetry.trace_ratio", "must be 0 (none) to 1 (all)")
    found.require(
        telemetry.report_keys == 0 or 64 <= telemetry.report_keys <= 1_000_000,
        "$.telemetry.report_keys",
        "must be 64 to 1000000, or 0 to follow no keys",
    )
    found.require(telemetry.slow > 0, "$.telemetry.slow", "must be longer than 0")
    found.require(
        telemetry.metrics_interval >= 1_000_000, "$.telemetry.metrics_interval", "must be at least 1s"
    )
    found.require(
        0 <= telemetry.audit_records <= 1_000_000, "$.telemetry.audit_records", "must be 0 to 1000000"
    )
    token = telemetry.debug_token
    found.require(
        not 0 < len(token) < 16,
        "$.telemetry.debug_token",
        "is too easy to guess: at least 16 characters, or none",
    )
    found.require(
        token.isascii() and token.isprintable() and token.strip() == token,
        "$.telemetry.debug_token",
        "holds a character that a header cannot have: use letters, digits and signs of ASCII",
    )


def _default_instance_name(port: int) -> str:
    """Returns host name and port; for port 0, whose number is not known yet, the process id."""
    return f"{socket.gethostname()[:100]}-{port or os.getpid()}"
