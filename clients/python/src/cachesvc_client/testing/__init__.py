"""A cache service in memory, for the tests of applications that use the SDK.

Tests import it; no other package of the SDK does. Read `service.py` first. The client in such a
test is the real one: batching, retries, leases, tokens, the near cache and errors are those of
production. Only the service is a fake: it keeps values in this process, without network and
without waiting, and its clock is turned by hand.

    from cachesvc_client.testing import FakeService

    async def test_a_renamed_user_is_seen_at_once() -> None:
        service = FakeService()
        async with service.cache() as cache:
            users = cache.namespace("users")
            await users.set("7", b"Ada", ttl="5m", tags=["team:1"])
            await users.invalidate(tags=["team:1"])
            assert await users.get("7") is None
            service.clock.advance("10s")
            service.down()  # the loader runs without the cache
            assert await users.get_or_load("7", load_user) == b"Ada Lovelace"

Threads: `with service.sync_cache() as cache` makes a client for code without asyncio.

A cache at the top of a module is pointed at the fake for a block, or is off for a block, which runs
the loaders each time:

    with FakeService().serving(app.cache) as service: ...
    with off(app.cache): ...

Values, stale windows, known absence, tags, soft and paced invalidations, leases, fences, tokens
and receipts behave as the service's do: the fake passes the conformance cases that the service
passes (clients/conformance).

- Faults: `fail_next(3, "overloaded", retry_after=1)`, `answer_next(…)`, `drop_next()`, `down()` and
  `up()`, `delay("1s")`, `lag("5s")`, `miss_instances("us/us-b")`.
- Actions of other clients: `hold`, `invalidate`, `take_lease`. `held` returns what is stored.
- An early refresh, which the service draws at random: `due_early("pages", "a")`.
- Records: `calls` has the requests.
- A loader that is slow or fails: `FakeLoader`.
- A read-through namespace: `FakeService({"pages": Contract(origin=…)})`.
"""

from cachesvc_client.testing.clock import FakeClock
from cachesvc_client.testing.contract import Contract, Loaded
from cachesvc_client.testing.http import Request, Response
from cachesvc_client.testing.loader import FakeLoader
from cachesvc_client.testing.off import off
from cachesvc_client.testing.service import FakeService, Recorded

__all__ = [
    "Contract",
    "FakeClock",
    "FakeLoader",
    "FakeService",
    "Loaded",
    "Recorded",
    "Request",
    "Response",
    "off",
]
