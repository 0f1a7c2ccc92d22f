"""Loaded values as their callers are answered, and as the cache is told of them."""

from typing import Generic, NamedTuple, TypeVar

from cachesvc_client.protocol.wire import PutItem
from cachesvc_client.values.codecs import Schema
from cachesvc_client.values.context import ABSENT, Absent
from cachesvc_client.values.lifetimes import Lifetimes

V = TypeVar("V")


class Fill(NamedTuple, Generic[V]):
    """The write of a loaded value, and what the load answers."""

    item: PutItem
    answer: V | Absent
    """The value as every later reader gets it, or ABSENT."""


def fill_of(key: str, value: V | Absent, lifetimes: Lifetimes, schema: Schema[V], lease: str) -> Fill[V]:
    """Returns the write of a loaded value, or of its absence, with its lease.

    Raises `CodecError` if the value would not come back.
    """
    encoded: bytes
    answer: V | Absent
    encoded, answer = (b"", ABSENT) if value is ABSENT else schema.seal(value)
    item = lifetimes.item(key, encoded, schema.content_type)
    item.absent = value is ABSENT
    item.lease = lease
    if lifetimes.lag:
        item.source_lag = lifetimes.lag
    return Fill(item, answer)


def answer_of(value: V | Absent, schema: Schema[V]) -> V | Absent:
    """Returns the answer of a load whose value is not stored: as if it were stored.

    Raises `CodecError` if the value would not come back. So callers see one value, and one error,
    whether the cache can be reached or not.
    """
    return value if value is ABSENT else schema.seal(value).value
