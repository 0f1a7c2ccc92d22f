"""The context of a load: what a loader is told, and what it may say besides the value.

A loader is called as `loader(ctx)` if it has a parameter named `ctx`, else as `loader(key)`.
"""

import enum
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, TypeAlias

from msgspec.structs import replace

from cachesvc_client.protocol.names import checked_tags
from cachesvc_client.values.durations import Duration, seconds_of
from cachesvc_client.values.lifetimes import Lifetimes, lag_seconds_of


class _Sentinel(enum.Enum):
    ABSENT = "absent"

    def __repr__(self) -> str:
        return self.name


ABSENT: Final = _Sentinel.ABSENT
"""The value that a loader returns for "there is no such value".

It is stored, so that the source is not asked again and again.
"""
Absent: TypeAlias = Literal[_Sentinel.ABSENT]


class LoadContext:
    """One run of a loader."""

    __slots__ = ("_clock", "deadline", "key", "lifetimes")

    def __init__(self, key: str, lifetimes: Lifetimes, deadline: float, clock: Callable[[], float]) -> None:
        self.key = key
        self.lifetimes = lifetimes
        """The lifetimes and tags that the caller asked for, as `set_options` has changed them."""
        self.deadline = deadline
        """The time at which the load is given up, by `time.monotonic`."""
        self._clock = clock

    @property
    def time_left(self) -> float:
        """The seconds until the deadline, never below 0; a timeout for the loader's own calls."""
        return max(0.0, self.deadline - self._clock())

    def absent(self) -> Absent:
        """Returns the value by which a loader says that there is no such value; it is remembered."""
        return ABSENT

    def set_options(
        self,
        *,
        ttl: Duration | None = None,
        stale: Duration | None = None,
        stale_if_error: Duration | None = None,
        tags: Iterable[str] | None = None,
        lag: Duration | None = None,
    ) -> None:
        """Sets what only the value can tell, such as when it ends, or how late its source was.

        Each argument that is given replaces what the caller asked for; the rest stays. Raises
        `ValueError` that names the argument at fault.
        """
        given: dict[str, Any] = {
            name: seconds_of(value, name)
            for name, value in (("ttl", ttl), ("stale", stale), ("stale_if_error", stale_if_error))
            if value is not None
        }
        if tags is not None:
            given["tags"] = checked_tags(tags)
        if lag is not None:
            given["lag"] = lag_seconds_of(lag)
        self.lifetimes = replace(self.lifetimes, **given)

    def __repr__(self) -> str:
        return f"<LoadContext {self.key!r}, {self.time_left:.3g} s left>"


def check_loader(loader: object) -> None:
    """Raises `ValueError` for what is no function."""
    if not callable(loader):
        raise ValueError(f"loader: {loader!r} is no function")


def check_awaitable(result: object, function: object) -> None:
    """Raises `ValueError` if what a function of the async flavour returned cannot be awaited."""
    if not inspect.isawaitable(result):
        raise ValueError(f"{function!r} is no async function: make it one, or use cachesvc_client.sync")


def check_value(result: object, function: object) -> None:
    """Raises `ValueError` if what a function of the sync flavour returned has to be awaited."""
    if inspect.iscoroutine(result):
        result.close()
        raise ValueError(f"{function!r} is an async function: use it with cachesvc_client.Cache")


def checked_mapping(values: object) -> Mapping[str, Any]:
    """Returns what a loader of many keys returned; raises `ValueError` unless it is a mapping."""
    if not isinstance(values, Mapping):
        raise ValueError(f"loader: returns a mapping of keys to values, not {type(values).__name__}")
    return values


def takes_context(loader: Callable[..., object]) -> bool:
    """True if the loader has a parameter `ctx`.

    The signature is read once per load and not remembered: loaders are often closures that are
    made for one call. Raises `ValueError` for a loader that does not take one argument.
    """
    try:
        signature = inspect.signature(loader)
    except (TypeError, ValueError):  # some callables written in C have no readable signature
        return False
    try:
        signature.bind(None)
    except TypeError as error:
        raise ValueError(
            f"loader: {loader!r} is called with one argument, the key or `ctx`: {error}"
        ) from None
    return "ctx" in signature.parameters
