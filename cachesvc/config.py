"""The service document: what this one instance is. `topology.py` has the shared document.

STATUS: structs only; the loader (`load_service`, `load_topology`) stands below them.
"""

from msgspec import Struct, field

from cachesvc.units import Duration, Size


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


class Service(Struct, frozen=True, forbid_unknown_fields=True):
    region: str = "local"
    instance: str = ""
    """Name of this instance, unique in its region; empty: host name and port."""
    server: Server = field(default_factory=Server)
    l1: L1 = field(default_factory=L1)
    l2: L2 = field(default_factory=L2)
    l3: L3 = field(default_factory=L3)
    coherence: Coherence = field(default_factory=Coherence)
