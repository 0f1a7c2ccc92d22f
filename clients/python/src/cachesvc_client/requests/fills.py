from typing import TypeVar

from cachesvc_client.protocol.wire import PutItem
from cachesvc_client.values.codecs import Schema
from cachesvc_client.values.context import ABSENT, Absent
from cachesvc_client.values.lifetimes import Lifetimes

V = TypeVar("V")


def fill_of(key: str, value: V | Absent, lifetimes: Lifetimes, schema: Schema[V], lease: str) -> PutItem:
    """Returns the write of a loaded value, or of its absence, with its lease."""
    encoded = b"" if value is ABSENT else schema.encode(value)
    item = lifetimes.item(key, encoded, schema.content_type)
    item.absent = value is ABSENT
    item.lease = lease
    return item
