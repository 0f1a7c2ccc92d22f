"""A breaker in front of a loader: a silent origin is left alone for a while."""

from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import OriginError
from cachesvc.tiers.breaker import NOT_TRIED, Breaker
from cachesvc.tiers.origin.contract import Loaded, Loader


class GuardedLoader:
    """Fails loads with `ORIGIN_FAILED` while the breaker is open; a stale copy may stand in.

    A load without an answer in time, or whose connection broke, is a failure. An answer is none,
    whatever its status is: it costs no wait. Nor is the same key's next failure: a key that takes too
    long to load is not to keep its origin from others.
    """

    def __init__(self, loader: Loader, breaker: Breaker, name: str) -> None:
        self._loader = loader
        self._breaker = breaker
        self._name = name
        self._failed_key = b""

    def __repr__(self) -> str:
        return f"<GuardedLoader {self._breaker!r} {self._loader!r}>"

    async def load(self, key: Key, *, known: Entry | None, timeout_seconds: float) -> Loaded:
        breaker = self._breaker
        if not breaker.admits():
            raise OriginError(f"origin of {self._name!r}: {NOT_TRIED}")
        try:
            loaded = await self._loader.load(key, known=known, timeout_seconds=timeout_seconds)
        except OriginError as error:
            if error.is_answer or error.origin_status:
                self._worked()
            elif breaker.is_open or key.id != self._failed_key:
                self._failed_key = key.id
                breaker.failed()
            raise
        self._worked()
        return loaded

    def _worked(self) -> None:
        if self._breaker.is_troubled:
            self._failed_key = b""
            self._breaker.succeeded()

    async def start(self) -> None:
        await self._loader.start()

    async def stop(self) -> None:
        await self._loader.stop()
