"""The user that is an application: it reads through the sync SDK.

All users of a process share one `Cache`, as the threads of an application would, so single reads
of the same moment leave in one request. The SDK itself finds the instances of one region: the
region of the first URL in `LOAD_URLS` that answers.
"""

from functools import cache
from time import monotonic

from cachesvc_client.sync import Cache, CacheError, Hit, Miss, Namespace, Unavailable

from loadtests.documents import OtherBytesError
from loadtests.load.answers import Read
from loadtests.load.arrivals import Turn
from loadtests.load.users import UnansweredError, Visitor


class SdkReader(Visitor):
    """Reads one key after the other through the SDK."""

    abstract = True
    kind = "sdk"
    route = ("SDK", "lookup")

    def ask(self, turn: Turn) -> None:
        """Reads one key and reports the call."""
        settings = self.shared.settings
        namespace = _namespace(settings.urls, settings.namespace, settings.timeout)
        failure: Exception | None = None
        begun = monotonic()
        try:
            self._look_up(namespace, self.shared.key(), begun)
        except (UnansweredError, OtherBytesError) as error:
            failure = error
        self.report(turn, monotonic() - begun, failure)

    def _look_up(self, namespace: Namespace[bytes], key: str, asked_at: float) -> None:
        """Records the read: a miss is an answer, a failure is an exception."""
        try:
            found = namespace.lookup(key)
        except CacheError as refusal:
            raise UnansweredError(refusal.type) from refusal
        match found:
            case Unavailable(error=outage):
                raise UnansweredError(outage.type)
            case Miss():
                self.shared.recorder.reads([Read("miss")], None)
            case Hit():
                read = self.judged(key, found.value, (found.tier, found.stale), asked_at)
                self.shared.recorder.reads([read], found.lag)


@cache
def _namespace(urls: tuple[str, ...], name: str, timeout: float) -> Namespace[bytes]:
    """The namespace of a cache that stays open until the process ends."""
    return Cache.from_url(",".join(urls), default_timeout=timeout).__enter__().namespace(name)
