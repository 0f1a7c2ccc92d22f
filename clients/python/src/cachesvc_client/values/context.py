"""What a loader is told, and what it may say besides the value.

A loader is called as `loader(ctx)` if it has a parameter named `ctx`, else as `loader(key)`.
"""

import enum
import inspect
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal, TypeAlias

from msgspec.structs import replace

from cachesvc_client.protocol.names import checked_tags
from cachesvc_client.values.durations import Duration, seconds_of
from cachesvc_client.values.lifetimes import Lifetimes


class _Sentinel(enum.Enum):
    ABSENT = "absent"

    def __repr__(self) -> str:
        return self.name


ABSENT: Final = _Sentinel.ABSENT
"""What a loader returns for "there is no such value": it is stored, so that the source is not asked again and again."""
Absent: TypeAlias = Literal[_Sentinel.ABSENT]


class LoadContext:
    """One run of a loader."""

    __slots__ = ("_clock", "deadline", "key", "lifetimes")

    def __init__(self, key: str, lifetimes: Lifetimes, deadline: float, clock: Callable[[], float]) -> None:
        self.key = key
        self.lifetimes = lifetimes
        """As the caller asked, and as `set_options` has changed them."""
        self.deadline = deadline
        """When the load is given up, on `time.monotonic`."""
        self._clock = clock

    @property
    def time_left(self) -> float:
        """Seconds until the deadline, for the timeout of what the loader calls; never below 0."""
        return max(0.0, self.deadline - self._clock())

    def absent(self) -> Absent:
        """To be returned: there is no such value, and that is worth remembering."""
        return ABSENT

    def set_options(
        self,
        *,
        ttl: Duration | None = None,
        stale: Duration | None = None,
        stale_if_error: Duration | None = None,
        tags: Iterable[str] | None = None,
    ) -> None:
        """What only the value can tell, such as when it ends. What is named replaces what the caller said; the rest stays."""
        given: dict[str, Any] = {
            name: seconds_of(value, name)
            for name, value in (("ttl", ttl), ("stale", stale), ("stale_if_error", stale_if_error))
            if value is not None
        }
        if tags is not None:
            given["tags"] = checked_tags(tags)
        self.lifetimes = replace(self.lifetimes, **given)

    def __repr__(self) -> str:
        return f"<LoadContext {self.key!r}, {self.time_left:.3g} s left>"


def takes_context(loader: Callable[..., object]) -> bool:
    """Asked once per load, so a signature may be read anew: loaders are often closures, made for one call."""
    try:
        return "ctx" in inspect.signature(loader).parameters
    except (TypeError, ValueError):  # some callables written in C do not tell
        return False
