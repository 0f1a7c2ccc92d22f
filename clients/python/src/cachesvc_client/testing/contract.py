"""What a namespace of the fake service promises."""

from collections.abc import Callable
from typing import TypeAlias

from msgspec import Struct

SECONDS = 1_000_000

Origin: TypeAlias = Callable[[str], "bytes | Loaded | None"]
"""Of a read-through namespace: the value of a key, or None if there is none. What it raises is a failure of the origin."""


class Loaded(Struct, frozen=True):
    """A value of an origin that says more about it than the bytes."""

    value: bytes
    content_type: str = "application/octet-stream"
    tags: tuple[str, ...] = ()


class Contract(Struct, frozen=True):
    """The defaults are those of the service. Seconds; a test has no use for jitter, so there is none."""

    ttl: float = 300.0
    stale_while_revalidate: float = 60.0
    stale_if_error: float = 600.0
    negative_ttl: float = 10.0
    max_lag: float = 2.0
    lease: float = 5.0
    max_value: int = 1 << 20
    tags_max: int = 16
    origin: Origin | None = None
