"""The client for threads and gevent: the names of `cachesvc_client`, without `await`.

Only `testing` imports it. Modules whose first line says so are generated from their twins in `aio`;
to start with those written by hand, read batching.py, then lookaside.py.
"""

from cachesvc_client.errors import CacheError, CodecError, ForbiddenError, PartialError, UnauthenticatedError
from cachesvc_client.instances.profiles import IN_REGION, LAPTOP, LOW_LATENCY, Profile
from cachesvc_client.instances.retries import Retries
from cachesvc_client.instances.tls import Tls
from cachesvc_client.near.feed import FeedStatistics
from cachesvc_client.near.settings import NearSettings, NearStatistics
from cachesvc_client.protocol.wire import Receipt, ReceiptState
from cachesvc_client.requests.changes import NotSentError
from cachesvc_client.sync.cache import Cache
from cachesvc_client.sync.cached import CachedFunction
from cachesvc_client.sync.loading import Loader
from cachesvc_client.sync.namespace import Namespace
from cachesvc_client.sync.on_commit import OnCommit
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
    "CodecError",
    "FeedStatistics",
    "ForbiddenError",
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
    "Tls",
    "UnauthenticatedError",
    "Unavailable",
    "json_of",
    "msgpack_of",
]
