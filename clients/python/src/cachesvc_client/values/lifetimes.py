"""The times for which a value is kept, and the tags that invalidate it."""

from collections.abc import Iterable

from msgspec import Struct

from cachesvc_client.protocol.names import checked_tags
from cachesvc_client.protocol.wire import PutItem
from cachesvc_client.values.durations import Duration, seconds_of


class Lifetimes(Struct, frozen=True):
    """The times of one value in seconds, and its tags; None stands for the namespace's time."""

    ttl: float | None = None
    stale: float | None = None
    stale_if_error: float | None = None
    tags: tuple[str, ...] = ()

    def item(self, key: str, value: bytes, content_type: str) -> PutItem:
        """Returns the item of `:put` that stores the value with these lifetimes."""
        return PutItem(key, value, content_type, self.tags, self.ttl, self.stale, self.stale_if_error)


_DEFAULT = Lifetimes()


def lifetimes_of(
    ttl: Duration | None = None,
    stale: Duration | None = None,
    stale_if_error: Duration | None = None,
    tags: Iterable[str] = (),
) -> Lifetimes:
    """Returns the lifetimes that a caller gave; raises `ValueError` that names the argument."""
    if ttl is None and stale is None and stale_if_error is None and not tags:
        return _DEFAULT
    return Lifetimes(
        None if ttl is None else seconds_of(ttl, "ttl"),
        None if stale is None else seconds_of(stale, "stale"),
        None if stale_if_error is None else seconds_of(stale_if_error, "stale_if_error"),
        checked_tags(tags),
    )
