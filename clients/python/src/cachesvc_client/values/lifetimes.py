"""The times for which a value is kept, its tags, and how late its source may be."""

from collections.abc import Iterable

from msgspec import Struct

from cachesvc_client.protocol.names import checked_tags
from cachesvc_client.protocol.wire import PutItem
from cachesvc_client.values.durations import Duration, seconds_of

MAX_LAG_SECONDS = 60.0
"""The longest `lag` that the service takes: it keeps fences a minute longer than copies."""


class Lifetimes(Struct, frozen=True):
    """The times of one value in seconds, and its tags; None stands for the namespace's time."""

    ttl: float | None = None
    stale: float | None = None
    stale_if_error: float | None = None
    tags: tuple[str, ...] = ()
    lag: float | None = None
    """How far the loader's source may be behind its commits; only fills carry it."""

    def item(self, key: str, value: bytes, content_type: str) -> PutItem:
        """Returns the item of `:put` that stores the value with these lifetimes."""
        return PutItem(key, value, content_type, self.tags, self.ttl, self.stale, self.stale_if_error)


_DEFAULT = Lifetimes()


def lifetimes_of(
    ttl: Duration | None = None,
    stale: Duration | None = None,
    stale_if_error: Duration | None = None,
    tags: Iterable[str] = (),
    lag: Duration | None = None,
) -> Lifetimes:
    """Returns the lifetimes that a caller gave; raises `ValueError` that names the argument."""
    if ttl is None and stale is None and stale_if_error is None and not tags and lag is None:
        return _DEFAULT
    return Lifetimes(
        None if ttl is None else seconds_of(ttl, "ttl"),
        None if stale is None else seconds_of(stale, "stale"),
        None if stale_if_error is None else seconds_of(stale_if_error, "stale_if_error"),
        checked_tags(tags),
        None if lag is None else lag_seconds_of(lag),
    )


def lag_seconds_of(lag: Duration) -> float:
    """Returns a `lag` in seconds; raises `ValueError` if it is no duration, or too long."""
    seconds = seconds_of(lag, "lag")
    if seconds > MAX_LAG_SECONDS:
        raise ValueError(f"lag: {lag!r} is more than {MAX_LAG_SECONDS:g} s: read a source that is less late")
    return seconds
