"""The Python SDK of cachesvc. `Cache.from_url(…)` is the way in."""

from cachesvc_client.aio.cache import Cache
from cachesvc_client.aio.cached import CachedFunction
from cachesvc_client.aio.loading import Loader
from cachesvc_client.aio.namespace import Namespace
from cachesvc_client.aio.on_commit import OnCommit
from cachesvc_client.errors import CacheError, PartialError
from cachesvc_client.instances.profiles import IN_REGION, LAPTOP, LOW_LATENCY, Profile
from cachesvc_client.instances.retries import Retries
from cachesvc_client.near.feed import FeedStatistics
from cachesvc_client.near.settings import NearSettings, NearStatistics
from cachesvc_client.protocol.wire import Receipt, ReceiptState
from cachesvc_client.requests.changes import NotSentError
from cachesvc_client.values.codecs import BYTES, JSON, MSGPACK, Codec, json_of, msgpack_of
from cachesvc_client.values.context import ABSENT, Absent, LoadContext
from cachesvc_client.values.lookups import Hit, Lookup, Miss, Unavailable
from cachesvc_client.values.statistics import Statistics

__all__ = [
    "ABSENT",
    "BYTES",
    "IN_REGION",
    "JSON",
    "LAPTOP",
    "LOW_LATENCY",
    "MSGPACK",
    "Absent",
    "Cache",
    "CacheError",
    "CachedFunction",
    "Codec",
    "FeedStatistics",
    "Hit",
    "LoadContext",
    "Loader",
    "Lookup",
    "Miss",
    "Namespace",
    "NearSettings",
    "NearStatistics",
    "NotSentError",
    "OnCommit",
    "PartialError",
    "Profile",
    "Receipt",
    "ReceiptState",
    "Retries",
    "Statistics",
    "Unavailable",
    "json_of",
    "msgpack_of",
]
