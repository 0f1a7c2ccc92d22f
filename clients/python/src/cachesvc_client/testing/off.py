"""A service that keeps nothing, for tests that are not about the cache."""

from contextlib import AbstractContextManager

import cachesvc_client.sync
from cachesvc_client.aio.cache import Cache
from cachesvc_client.testing.http import Request, Response
from cachesvc_client.testing.service import FakeService


class KeepsNothing(FakeService):
    """A fake service that forgets all values and leases before each request.

    Every read misses and may load, every write and invalidation is accepted, and nobody waits.
    """

    def respond(self, request: Request, *, is_first: bool = True, is_patient: bool = True) -> Response | None:
        with self._lock:
            self._home.forget()
            return super().respond(request, is_first=is_first, is_patient=is_patient)


def off(*caches: Cache | cachesvc_client.sync.Cache) -> AbstractContextManager[FakeService]:
    """Returns a block in which these caches are off: each call of a cached function runs it.

    Invalidations are accepted. The service that the block returns records the requests (`calls`).
    """
    return KeepsNothing().serving(*caches)
