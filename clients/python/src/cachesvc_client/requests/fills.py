from typing import Any

from cachesvc_client.protocol.wire import PutItem
from cachesvc_client.values.codecs import Sealed
from cachesvc_client.values.lifetimes import Lifetimes


def fill_of(
    key: str, sealed: Sealed[Any] | None, lifetimes: Lifetimes, content_type: str, lease: str
) -> PutItem:
    """Returns the write of a loaded value with its lease; None stands for its absence."""
    item = lifetimes.item(key, b"" if sealed is None else sealed.encoded, content_type)
    item.absent = sealed is None
    item.lease = lease
    if lifetimes.lag:
        item.source_lag = lifetimes.lag
    return item
