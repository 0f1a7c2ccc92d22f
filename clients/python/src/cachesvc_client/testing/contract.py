"""The contract of a namespace of the fake service."""

from collections.abc import Callable
from typing import TypeAlias

from msgspec import Struct

SECONDS = 1_000_000

REGION, INSTANCE, CELL = "here", "fake", "c1"
EPOCH = "5f3a9c01"
"""The mark of the fake queue's epoch in positions. No other position is resumed from."""

Origin: TypeAlias = Callable[[str], "bytes | Loaded | None"]
"""The origin of a read-through namespace.

It returns the value of a key, or None if there is none. An exception that it raises is a failure of
the origin.
"""


class Loaded(Struct, frozen=True):
    """A value of an origin, with a content type and tags."""

    value: bytes
    content_type: str = "application/octet-stream"
    tags: tuple[str, ...] = ()
    keep: bool = True
    """False: the origin says `no-store`, so the value is answered and kept nowhere."""


class Contract(Struct, frozen=True):
    """The settings of a namespace, in seconds and bytes; the defaults are the service's.

    There is no jitter: a test has no use for it.
    """

    ttl: float = 300.0
    stale_while_revalidate: float = 60.0
    stale_if_error: float = 600.0
    negative_ttl: float = 10.0
    max_lag: float = 2.0
    lease: float = 5.0
    max_value: int = 1 << 20
    tags_max: int = 16
    origin: Origin | None = None
