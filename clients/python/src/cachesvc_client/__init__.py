"""The Python SDK of cachesvc. `Cache.from_url(…)` is the way in."""

from cachesvc_client.cache import Cache, Statistics
from cachesvc_client.codecs import BYTES, JSON, MSGPACK, Codec, json_of, msgpack_of
from cachesvc_client.context import ABSENT, Absent
from cachesvc_client.errors import CacheError, PartialError
from cachesvc_client.lookaside import Loader
from cachesvc_client.namespace import Namespace
from cachesvc_client.wire import Receipt, ReceiptState

__all__ = [
    "ABSENT",
    "BYTES",
    "JSON",
    "MSGPACK",
    "Absent",
    "Cache",
    "CacheError",
    "Codec",
    "Loader",
    "Namespace",
    "PartialError",
    "Receipt",
    "ReceiptState",
    "Statistics",
    "json_of",
    "msgpack_of",
]
