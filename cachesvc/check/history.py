"""What the checker records: one line of JSON for each thing that happened, in the order it was noted.

Times are µs of one monotonic clock (the checker's own): moments of different processes are never compared. `as_of` alone is the
service's own time, µs since the epoch, and is there to be shown. A value is `key:w:checksum`, `w` counting the writes of that key.
"""

from typing import Literal, TypeAlias

from msgspec import Struct


class Write(Struct, frozen=True, tag="write"):
    """A new version at the origin. `w` of a key is 0 before its first write."""

    key: str
    w: int
    committed: int
    tags: tuple[str, ...] = ()
    """Of the value."""


class Announcement(Struct, frozen=True, tag="announcement"):
    """Writes told to the cache: through the invalidate API of an instance, or as an event on a region's `changes`."""

    how: Literal["api", "event"]
    region: str
    """Whose queue took it."""
    instance: str
    """That was called, as `region/instance`; empty for an event."""
    writes: tuple[tuple[str, int], ...]
    """(key, w) that this announces."""
    started: int
    ended: int
    id: str = ""
    """Of the change, `eu:1700000000000-0`; empty if it was never accepted."""
    token: str = ""
    wait: Literal["none", "region", "global"] = "none"
    reached: bool = True
    """What `wait` asked for was said to hold."""
    failures: tuple[int, ...] = ()
    """When earlier attempts of this announcement ended in an error (the queue was down, the instance gone)."""
    tags: tuple[str, ...] = ()
    """Not empty: announced by these tags and not by key."""


class Fenced(Struct, frozen=True, tag="fenced"):
    """Where the fence of a change stands on its region's stream (from its receipt)."""

    id: str
    region: str
    position: str


class Merged(Struct, frozen=True, tag="merged"):
    """An instance has merged a region's stream up to `position`. It did so at `at` or a little earlier."""

    instance: str
    region: str
    position: str
    at: int


class Load(Struct, frozen=True, tag="load"):
    """The origin was asked for a value (by the service), or a caller loaded one under a lease."""

    key: str
    w: int
    started: int
    ended: int
    lease: str = ""
    stored: bool | None = None
    """Look-aside: the fill was accepted. None: not known."""
    instance: str = ""


class Read(Struct, frozen=True, tag="read"):
    instance: str
    """As `region/instance`."""
    key: str
    started: int
    ended: int
    outcome: str
    """`hit`, `stale`, `loaded`, `absent`, `miss` or `error`."""
    w: int | None = None
    """Of the value that was read; None if there was none."""
    tier: str = ""
    as_of: int = 0
    lag: float | None = None
    """The staleness bound that the answer claimed, seconds."""
    session: str = ""
    """Reads of one session never go back. Empty: of none."""
    token_writes: tuple[tuple[str, int], ...] = ()
    """(key, w) of the writes whose tokens were sent along."""
    deadline_us: int = 0
    """What the read was allowed to take; 0: not limited."""
    reason: str = ""
    """Of an error: the problem's kind or the exception's name."""


class Fault(Struct, frozen=True, tag="fault"):
    what: str
    started: int
    ended: int
    """When it was made good."""


class Run(Struct, frozen=True, tag="run"):
    """The first line: what everything else is judged by."""

    seed: int
    instances: tuple[str, ...]
    """As `region/instance`."""
    max_lag_us: int
    heartbeat_us: int
    skew_us: int
    look_aside: bool = False


Record: TypeAlias = Run | Write | Announcement | Fenced | Merged | Load | Read | Fault
