"""The service document: what this one instance is. `topology.py` has the shared document.

`load_service` and `load_topology` read, convert and check them; whatever they return can be used as it stands. Every mistake is
a `ConfigError` with the path of the field.
"""

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from msgspec import Struct, field
from msgspec.structs import replace

from cachesvc.config.document import parse, read_struct, require
from cachesvc.config.environment import overridden
from cachesvc.config.topology import Topology
from cachesvc.config.topology_rules import REGION_NAME, check_topology
from cachesvc.model.did_you_mean import did_you_mean
from cachesvc.model.units import Duration, Size

INSTANCE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")


class Server(Struct, frozen=True, forbid_unknown_fields=True):
    host: str = "127.0.0.1"
    """Loopback unless configured."""
    port: int = 8080
    max_body: Size = Size.parse("4MiB")
    """A request body above this is refused with 413 before it is read whole."""
    max_batch_keys: int = 1000
    """Keys in one `:get`, `:put` or invalidation."""
    request_timeout: Duration = Duration.parse("10s")
    """Upper bound of `Cachesvc-Timeout`, and what a request without it may take."""
    max_in_progress: int = 10_000
    """Requests that wait for something at once; one more is answered 503. High: those who join one load cost little."""
    max_delay: Duration = Duration.parse("200ms")
    """How long requests that need more than L1 may stay while the process has no time left. Longer than that is overload, and so
    many are answered 503 that the others stay no longer."""
    shutdown_timeout: Duration = Duration.parse("10s")
    """Requests under way get this long to end after a stop signal."""


class L1(Struct, frozen=True, forbid_unknown_fields=True):
    budget: Size = Size.parse("256MiB")
    """Bytes of values, keys and per-entry overhead together."""
    max_entries: int = 4_000_000
    """Bound by count beside the bytes."""


class L2(Struct, frozen=True, forbid_unknown_fields=True):
    connect_timeout: Duration = Duration.parse("100ms")
    timeout: Duration = Duration.parse("100ms")
    """Of one batched exchange with one server; beyond it the connection is closed and the keys are misses."""
    max_batch: int = 512


class L3(Struct, frozen=True, forbid_unknown_fields=True):
    connect_timeout: Duration = Duration.parse("200ms")
    timeout: Duration = Duration.parse("100ms")
    """Of one batched script call to one cell."""
    max_batch: int = 256
    retention: Duration = Duration.parse("1h")
    """The longest L3 TTL, and how long a cell keeps the fences it was told."""


class Coherence(Struct, frozen=True, forbid_unknown_fields=True):
    max_clock_skew: Duration = Duration.parse("100ms")
    """S of COHERENCE.md: clocks of cells, replicas and instances agree within it."""
    sketch_slots: int = 1 << 21
    """Per row, two rows of 8 bytes each; a power of two. At least 4 × fences/s × longest L2 TTL in seconds."""
    heartbeat: Duration = Duration.parse("500ms")
    fence_retention: Duration = Duration.parse("1h")
    """Streams are trimmed by time, never shorter than the longest L2 TTL."""


class Telemetry(Struct, frozen=True, forbid_unknown_fields=True):
    otlp: str = ""
    """Base URL of an OTLP/HTTP receiver, such as `http://127.0.0.1:4318`: traces go to `/v1/traces` there, metrics to
    `/v1/metrics`. Empty: nothing is exported, and nothing is traced."""
    trace_ratio: float = 0.01
    """Share of requests traced whose caller did not decide it (`traceparent`)."""
    slow: Duration = Duration.parse("250ms")
    """A request that took longer, or failed, is exported as a single span although it was not sampled."""
    metrics_interval: Duration = Duration.parse("15s")
    """Between two exports of metrics to `otlp`. `/metrics` is there in any case."""
    hashed_keys: bool = False
    """Debugging: spans carry digests of keys."""
    debug_token: str = ""
    """Who sends it as `Cachesvc-Debug` may see key text (`/v1/hotkeys`). Empty: nobody may."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"
    """`auto`: lines for people on a terminal, JSON otherwise."""


class Service(Struct, frozen=True, forbid_unknown_fields=True):
    region: str = "local"
    instance: str = ""
    """Name of this instance, unique in its region; empty: host name and port."""
    server: Server = field(default_factory=Server)
    l1: L1 = field(default_factory=L1)
    l2: L2 = field(default_factory=L2)
    l3: L3 = field(default_factory=L3)
    coherence: Coherence = field(default_factory=Coherence)
    telemetry: Telemetry = field(default_factory=Telemetry)


def load_service(path: Path | None, environ: Mapping[str, str]) -> Service:
    """The service document at `path` (None: the defaults) under the `CACHESVC_*` settings of `environ`."""
    document = parse(path) if path else None
    service = read_struct(overridden(document, Service, environ), Service)
    check_service(service)
    return (
        service
        if service.instance
        else replace(service, instance=_default_instance_name(service.server.port))
    )


def load_topology(path: Path) -> Topology:
    """The shared document at `path`."""
    topology = read_struct(parse(path), Topology)
    check_topology(topology)
    return topology


def check_service(service: Service) -> None:
    """What must hold within the service document. Raises `ConfigError`."""
    require(
        bool(REGION_NAME.fullmatch(service.region)),
        "$.region",
        f"{service.region!r} is no name: {REGION_NAME.pattern}",
    )
    named = not service.instance or INSTANCE_NAME.fullmatch(service.instance)
    require(bool(named), "$.instance", f"{service.instance!r} is no name: {INSTANCE_NAME.pattern}")
    _check_server(service.server)
    require(service.l1.budget >= 1 << 20, "$.l1.budget", "below 1MiB nothing is kept; give it more")
    require(service.l1.max_entries > 0, "$.l1.max_entries", "must be at least 1")
    for name, far in (("l2", service.l2), ("l3", service.l3)):
        require(far.connect_timeout > 0, f"$.{name}.connect_timeout", "must be longer than 0")
        require(
            0 < far.timeout < service.server.request_timeout,
            f"$.{name}.timeout",
            "must be below server.request_timeout",
        )
        require(1 <= far.max_batch <= 10_000, f"$.{name}.max_batch", "must be 1 to 10000")
    _check_coherence(service.coherence)
    _check_telemetry(service.telemetry)
    require(
        service.coherence.fence_retention >= service.l3.retention,
        "$.coherence.fence_retention",
        "must not be shorter than l3.retention: a copy would outlive the record of its fences",
    )


def check_together(service: Service, topology: Topology) -> None:
    """What must hold between the two documents. Raises `ConfigError`; paths of the topology begin with `topology:`."""
    known = service.region in topology.regions
    require(
        known,
        "$.region",
        f"no region {service.region!r} in the topology{did_you_mean(service.region, topology.regions)}",
    )
    least_lag = service.coherence.heartbeat + service.coherence.max_clock_skew
    for name, namespace in topology.namespaces.items():
        path = f"topology:$.namespaces.{name}"
        kept = namespace.ttl + max(namespace.stale_while_revalidate, namespace.stale_if_error)
        require(
            kept <= service.l3.retention,
            f"{path}.ttl",
            f"with its stale windows copies are kept {kept // 1_000_000}s, but l3.retention of the service document is "
            f"{service.l3.retention // 1_000_000}s: shorten them, or raise l3.retention and coherence.fence_retention",
        )
        require(
            namespace.max_lag > least_lag,
            f"{path}.max_lag",
            "must be above coherence.heartbeat + coherence.max_clock_skew, or no copy would ever be answered",
        )


def _check_server(server: Server) -> None:
    require(0 <= server.port <= 65535, "$.server.port", "must be 1 to 65535, or 0 for a free one")
    require(bool(server.host), "$.server.host", "is empty: name the address to listen on, such as 127.0.0.1")
    require(server.max_body > 0, "$.server.max_body", "must be larger than 0")
    require(1 <= server.max_batch_keys <= 100_000, "$.server.max_batch_keys", "must be 1 to 100000")
    require(server.request_timeout > 0, "$.server.request_timeout", "must be longer than 0")
    require(server.max_in_progress >= 1, "$.server.max_in_progress", "must be at least 1")
    require(
        server.max_delay >= 10_000, "$.server.max_delay", "below 10ms every burst would count as overload"
    )


def _check_coherence(coherence: Coherence) -> None:
    slots = coherence.sketch_slots
    power = 1 << 10 <= slots <= 1 << 30 and slots & (slots - 1) == 0
    below = 1 << max(10, min(30, slots.bit_length() - 1))
    require(
        power,
        "$.coherence.sketch_slots",
        f"{slots} is not a power of two from 1024 to 2^30; nearest below: {below}",
    )
    require(
        coherence.max_clock_skew > 0, "$.coherence.max_clock_skew", "must be longer than 0: clocks do differ"
    )
    require(
        coherence.max_clock_skew <= 60_000_000,
        "$.coherence.max_clock_skew",
        "above 1m: set the clocks instead",
    )
    require(coherence.heartbeat > 0, "$.coherence.heartbeat", "must be longer than 0")
    require(
        coherence.heartbeat < coherence.fence_retention,
        "$.coherence.heartbeat",
        "must be below fence_retention",
    )


def _check_telemetry(telemetry: Telemetry) -> None:
    url = telemetry.otlp
    require(
        not url or url.startswith(("http://", "https://")),
        "$.telemetry.otlp",
        "is no http:// or https:// URL of an OTLP receiver",
    )
    require(0 <= telemetry.trace_ratio <= 1, "$.telemetry.trace_ratio", "must be 0 (none) to 1 (all)")
    require(telemetry.slow > 0, "$.telemetry.slow", "must be longer than 0")
    require(telemetry.metrics_interval >= 1_000_000, "$.telemetry.metrics_interval", "must be at least 1s")
    short = 0 < len(telemetry.debug_token) < 16
    require(not short, "$.telemetry.debug_token", "is too easy to guess: at least 16 characters, or none")


def _default_instance_name(port: int) -> str:
    """Host name and port; with a free port, which is not known yet, the process id tells instances apart."""
    return f"{socket.gethostname()[:100]}-{port or os.getpid()}"
