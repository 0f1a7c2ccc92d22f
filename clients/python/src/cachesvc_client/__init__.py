"""The Python SDK of cachesvc, for asyncio. `Cache.from_url(…)` is the way in.

`cachesvc_client.sync` has the same names for threads and gevent.

    aio/ and sync/ (twins) → requests → near → values, tracing → instances, protocol → errors

Each part imports only what stands to its right; `testing`, a service in memory, stands before all
of them. Read aio/namespace.py first. The names that both flavours share are loaded with this
package, and those of the async one when they are first used, so that a program of threads never
loads asyncio and aiohttp.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from cachesvc_client.errors import CacheError, CodecError, ForbiddenError, PartialError, UnauthenticatedError
from cachesvc_client.instances.profiles import IN_REGION, LAPTOP, LOW_LATENCY, Profile
from cachesvc_client.instances.retries import Retries
from cachesvc_client.instances.tls import Tls
from cachesvc_client.near.feed import FeedStatistics
from cachesvc_client.near.settings import NearSettings, NearStatistics
from cachesvc_client.protocol.wire import Receipt, ReceiptState
from cachesvc_client.requests.changes import NotSentError
from cachesvc_client.values.codecs import BYTES, JSON, MSGPACK, Codec, json_of, msgpack_of
from cachesvc_client.values.context import ABSENT, Absent, LoadContext
from cachesvc_client.values.lookups import Hit, Lookup, Miss, Unavailable
from cachesvc_client.values.statistics import Statistics

if TYPE_CHECKING:
    from cachesvc_client.aio.cache import Cache
    from cachesvc_client.aio.cached import CachedFunction
    from cachesvc_client.aio.loading import Loader
    from cachesvc_client.aio.namespace import Namespace
    from cachesvc_client.aio.on_commit import OnCommit

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

_ASYNC = {
    "Cache": "cachesvc_client.aio.cache",
    "CachedFunction": "cachesvc_client.aio.cached",
    "Loader": "cachesvc_client.aio.loading",
    "Namespace": "cachesvc_client.aio.namespace",
    "OnCommit": "cachesvc_client.aio.on_commit",
}

if not TYPE_CHECKING:  # else a type checker would take every name for one of this module

    def __getattr__(name: str) -> object:
        """Loads a name of the async flavour (PEP 562)."""
        if name not in _ASYNC:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_ASYNC[name]), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
