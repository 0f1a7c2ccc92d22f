"""429 `rate-limited`: whole requests, keys of batches, and the header fields that say why."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

import msgspec

from cachesvc.config.callers import Callers, NamedCaller, Token
from cachesvc.config.limits import ByteRate, Rate, Rates
from cachesvc.model.units import Size
from cachesvc.web.rates import RateLimits
from tests.wire.conftest import Site, running_site

SLOW = 0.02
"""So few per second that no token comes in while a test runs."""
MSGPACK = {"Content-Type": "application/msgpack"}
JSON = {"Content-Type": "application/json"}


@asynccontextmanager
async def site_with(rates: Rates) -> AsyncIterator[Site]:
    async with running_site(rates=RateLimits({"pages": rates}, {}, instances=1)) as site:
        yield site


async def call(site: Site, verb: str, document: object) -> list[Any]:
    response = await site.ask("POST", f"/v1/pages:{verb}", MSGPACK, msgspec.msgpack.encode(document))
    assert response.status == 200
    found: list[Any] = msgspec.msgpack.decode(response.body)["results"]
    return found


async def test_a_read_beyond_its_rate_is_answered_429_with_the_time_to_come_back() -> None:
    async with site_with(Rates(reads=Rate(SLOW, burst=1))) as site:
        assert (await site.ask("GET", "/v1/pages/a")).status == 404
        response = await site.ask("GET", "/v1/pages/b")
        assert response.status == 429
        assert 40 <= int(response.headers["retry-after"]) <= 50
        assert response.headers["ratelimit-policy"] == '"namespace-reads";q=1;w=50'
        assert response.headers["ratelimit"].startswith('"namespace-reads";r=0;t=')
        assert response.headers["cache-control"] == "no-store"
        problem = msgspec.json.decode(response.body)
        assert problem["type"].endswith("/rate-limited")
        assert problem["retryable"]
        assert len(site.reader.saw) == 1


async def test_l1_answers_while_other_reads_are_refused() -> None:
    async with site_with(Rates(reads=Rate(SLOW, burst=2))) as site:
        site.hold("held")
        for key in "ab":
            await site.ask("GET", f"/v1/pages/{key}")
        assert (await site.ask("GET", "/v1/pages/c")).status == 429
        statuses = [(await site.ask("GET", "/v1/pages/held")).status for _ in range(3)]
        assert statuses == [200, 200, 429]
        assert (await site.ask("GET", "/v1/pages/held", {"If-None-Match": '"x"'})).status == 429


async def test_keys_of_a_batch_beyond_the_rate_fail_alone() -> None:
    async with site_with(Rates(reads=Rate(SLOW, burst=3))) as site:
        site.hold("held")
        results = await call(site, "get", {"keys": ["a", "b", "held", "c", "d"]})
        assert [got["outcome"] for got in results] == ["miss", "miss", "hit", "error", "error"]
        assert results[3]["problem"]["type"].endswith("/rate-limited")
        assert results[3]["problem"]["retry_after"] > 1
        counted = site.metrics.counts.batch_keys
        assert counted["pages", "get_many", "refused"] == 2


async def test_writes_beyond_the_rate_are_refused_and_give_their_leases_back() -> None:
    async with site_with(Rates(writes=Rate(SLOW, burst=2))) as site:
        assert (await site.ask("PUT", "/v1/pages/a", {}, b"1")).status == 204
        items = [{"key": "b", "value": b"2"}, {"key": "c", "value": b"3", "lease": "nonce:17"}]
        results = await call(site, "put", {"items": items})
        assert [put["outcome"] for put in results] == ["stored", "error"]
        assert results[1]["problem"]["type"].endswith("/rate-limited")
        assert site.writer.released == [("c", "nonce:17", "failed")]
        response = await site.ask("PUT", "/v1/pages/d", {"Cachesvc-Lease": "nonce:18"}, b"4")
        assert response.status == 429
        assert site.writer.released[1:] == [("d", "nonce:18", "failed")]


async def test_invalidations_beyond_the_rate_are_refused_before_they_begin() -> None:
    async with site_with(Rates(invalidations=Rate(SLOW, burst=2))) as site:
        body = msgspec.json.encode({"namespace": "pages", "keys": ["a", "b", "c"]})
        assert (await site.ask("POST", "/v1/invalidations", JSON, body)).status == 200
        assert (await site.ask("POST", "/v1/invalidations", JSON, body)).status == 429
        assert (await site.ask("DELETE", "/v1/pages/a")).status == 429
        dry = msgspec.json.encode({"namespace": "pages", "keys": ["a"], "dry_run": True})
        assert (await site.ask("POST", "/v1/invalidations", JSON, dry)).status == 200
        assert len(site.invalidator.saw) == 1


async def test_a_caller_has_rates_of_its_own_over_all_its_requests() -> None:
    token = "secret-of-shop"
    callers = Callers(
        named={
            "shop": NamedCaller(("read:*", "write:*"), tokens=(Token(sha256(token.encode()).hexdigest()),))
        },
        anonymous=("read:*",),
    )
    rates = RateLimits({}, {"shop": Rates(reads=Rate(SLOW, burst=2))}, instances=1)
    shop = {"Authorization": f"Bearer {token}"}
    async with running_site(rates=rates, callers=callers) as site:
        site.hold("held")
        for path in ("/v1/pages/a", "/v1/users/a"):
            assert (await site.ask("GET", path, shop)).status == 404
        refused = await site.ask("GET", "/v1/pages/b", shop)
        assert refused.status == 429
        assert refused.headers["ratelimit-policy"] == '"caller-reads";q=1;w=50'
        assert "caller 'shop'" in msgspec.json.decode(refused.body)["detail"]
        statuses = [(await site.ask("GET", "/v1/pages/held", shop)).status for _ in range(3)]
        assert statuses == [200, 200, 429]
        assert (await site.ask("GET", "/v1/pages/b")).status == 404


async def test_bytes_are_limited_by_what_was_read_and_written() -> None:
    async with site_with(Rates(bytes=ByteRate(Size(10), Size(20)))) as site:
        assert (await site.ask("PUT", "/v1/pages/a", {}, b"x" * 500)).status == 204
        response = await site.ask("GET", "/v1/pages/b")
        assert response.status == 429
        assert response.headers["ratelimit-policy"] == '"namespace-bytes";q=10;qu="content-bytes";w=1'
