"""The writes of one client, for many threads."""

import threading
from collections.abc import Callable, Iterable

from cachesvc_client.requests.own_writes import OwnWrites
from cachesvc_client.sync import forks


class SharedOwnWrites(OwnWrites):
    """`OwnWrites` under a lock. Both sides of a fork honour what was written before it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self.after_fork()
        forks.register(self)

    def after_fork(self) -> None:
        self._lock = threading.Lock()

    def forget(self) -> None:
        with self._lock:
            super().forget()

    def learn(self, namespace: str, token: str, keys: Iterable[str]) -> None:
        with self._lock:
            super().learn(namespace, token, keys)

    def heed(self, digest: int, at: int) -> None:
        with self._lock:
            super().heed(digest, at)

    def pairs_for(self, namespace: str, keys: Iterable[str]) -> list[tuple[int, int]]:
        with self._lock:
            return super().pairs_for(namespace, keys)

    def token(self) -> str:
        with self._lock:
            return super().token()
