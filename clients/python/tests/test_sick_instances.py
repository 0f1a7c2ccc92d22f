"""A sick instance costs a few calls a share of their time, and the others nothing.

The instances are FakeService, which is well, and a hostile server.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import msgspec
import pytest
from cachesvc_client import Cache, CacheError, Hit, Namespace, Unavailable
from cachesvc_client.instances import endpoints

from clients.python.tests.fake_service import FakeService, Recorded
from clients.python.tests.hostile import Hostile, answer, is_proven, probes_only
from clients.python.tests.test_transport import closed_port

TIMEOUT = 2.0
"""Seconds of a call; a hung instance costs half of them, as the other one is well."""
BUSY = b'{"type": "https://cachesvc.dev/problems/overloaded", "status": 503, "retryable": true}'


def _leases(path: str) -> bytes | None:
    """Grants a lease for one key, and is silent to its fill."""
    got = {"results": [{"outcome": "miss", "lease": "lease-1"}]}
    return answer("200 OK", msgspec.msgpack.encode(got)) if path.endswith(":get") else probes_only(path)


@pytest.fixture
def hostile() -> Iterator[Hostile]:
    with Hostile() as running:
        yield running


@asynccontextmanager
async def opened(service: FakeService, hostile: str, seconds: float = TIMEOUT) -> AsyncIterator[Cache]:
    """A client that has found both instances well."""
    service.instances = {"a": service.url, "b": hostile}
    async with Cache.from_url(service.url, default_timeout=seconds) as cache:
        await cache.namespace("warm").get("x")
        while errands := cache._transport._errands:
            await asyncio.wait(errands)
        assert is_proven(cache)
        yield cache


def keys_of(cache: Cache, url: str, namespace: str = "pages") -> Iterator[str]:
    """Keys whose home is the instance at `url`."""
    calls = cache.namespace(namespace)._calls
    for nth in range(10_000):
        key = f"k{nth}"
        digest = calls._requests.digest(key)
        ring = cache._region._rings.of(digest)
        assert ring is not None
        home = cache._region._instances[ring.first(digest)]
        if str(home.base) == url:
            yield key


def gets(service: FakeService) -> list[Recorded]:
    return [call for call in service.calls(":get") if "x" not in call.body["keys"]]


async def asked_in_turn(pages: Namespace[bytes], number: int) -> list[object]:
    return [await pages.lookup(f"k{nth}") for nth in range(number)]


async def test_a_hung_instance_costs_two_calls_a_share_of_their_time_and_no_call_its_answer(
    service: FakeService, hostile: Hostile, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(service, hostile.url) as cache:
        began = time.monotonic()
        outcomes = await asked_in_turn(cache.namespace("pages"), 60)
        took = time.monotonic() - began
        assert not [outcome for outcome in outcomes if isinstance(outcome, Unavailable)]
        assert (len(hostile.asked), cache.statistics().failovers) == (2, 2)
        assert took < 2 * TIMEOUT
        assert [record.getMessage() for record in caplog.records] == [
            f"cache instance {hostile.url} is out of reach (no answers): others are asked instead"
        ]


async def test_one_that_says_that_it_stops_is_left_at_once_and_asked_again_when_it_says_so_no_more(
    service: FakeService, hostile: Hostile, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "PROBE_SECONDS", 0.01)
    async with opened(service, hostile.url) as cache:
        pages, keys = cache.namespace("pages"), keys_of(cache, hostile.url)
        found = answer("200 OK", msgspec.msgpack.encode({"results": [{"outcome": "hit", "value": b"v"}]}))
        said = found.replace(b"\r\n", b"\r\nConnection: close\r\nCachesvc-Stopping: 1\r\n", 1)
        hostile.answers = lambda _: said
        first = [await pages.get(key) for key, _ in zip(keys, range(30), strict=False)]
        assert (first[0], len(hostile.asked)) == (b"v", 1)
        hostile.answers = lambda path: probes_only(path) or found
        while len(hostile.asked) < 2:
            await pages.get(next(keys))
        assert cache.statistics().failovers == 0
    assert not caplog.records


async def test_callers_that_were_on_their_way_when_it_hung_are_answered_too(
    service: FakeService, hostile: Hostile
) -> None:
    async with opened(service, hostile.url) as cache:
        spaces = [cache.namespace("pages") for _ in range(20)]
        keys = keys_of(cache, hostile.url)
        outcomes = await asyncio.gather(*(space.lookup(next(keys)) for space in spaces))
        assert not [outcome for outcome in outcomes if isinstance(outcome, Unavailable)]


async def test_one_that_answers_again_is_found_by_a_probe_and_one_request(
    service: FakeService, hostile: Hostile, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "REST_SECONDS", 0.01)
    monkeypatch.setattr(endpoints, "PROBE_SECONDS", 0.01)
    async with opened(service, hostile.url, 1.0) as cache:
        pages = cache.namespace("pages")
        await asked_in_turn(pages, 20)
        hostile.answers = lambda path: answer("503 Service Unavailable", BUSY)
        while "answers again" not in caplog.text:
            await pages.lookup(next(keys_of(cache, hostile.url)))
        outages = [record.getMessage() for record in caplog.records]
        assert [text.partition(hostile.url)[2][:17] for text in outages] == [
            " is out of reach ",
            " answers again",
        ]


async def test_an_instance_that_answers_probes_and_nothing_else_stays_out(
    service: FakeService, hostile: Hostile, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "REST_SECONDS", 0.01)
    async with opened(service, hostile.url, 1.0) as cache:
        outcomes = await asked_in_turn(cache.namespace("pages"), 60)
        assert not [outcome for outcome in outcomes if isinstance(outcome, Unavailable)]
        assert len(hostile.asked) <= 6
        assert len(caplog.records) == 1


@pytest.mark.parametrize("reaches", ["nobody", "silence", "no-http"])
async def test_an_advertised_address_that_cannot_be_reached_slows_no_call(
    service: FakeService, reaches: str
) -> None:
    nonsense = b"nonsense\r\n\r\n"
    with Hostile(lambda path: nonsense if reaches == "no-http" else None) as hostile:
        url = f"http://127.0.0.1:{closed_port()}" if reaches == "nobody" else hostile.url
        service.instances = {"a": service.url, "b": url}
        async with Cache.from_url(service.url, default_timeout=TIMEOUT) as cache:
            began = time.monotonic()
            outcomes = await asked_in_turn(cache.namespace("pages"), 37)
            assert time.monotonic() - began < TIMEOUT
            assert not [outcome for outcome in outcomes if isinstance(outcome, Unavailable)]
            assert (hostile.asked, cache.statistics().failovers) == ([], 0)


async def test_a_slow_origin_is_no_silence(
    service: FakeService, hostile: Hostile, caplog: pytest.LogCaptureFixture
) -> None:
    """The instance says in its share that the key is late, and then has all the time."""
    async with opened(service, hostile.url) as cache:
        pages = cache.namespace("pages")
        key = next(keys_of(cache, service.url))
        service.hold(key, b"1")
        service.slow[key] = asyncio.Event()
        asking = asyncio.create_task(pages.get(key))
        while len(gets(service)) < 2:
            await service.arrived.acquire()
        service.slow[key].set()
        assert await asking == b"1"
        assert (len(gets(service)), hostile.asked, cache.statistics().failovers) == (2, [], 0)
    assert caplog.records == []


async def test_a_slow_key_of_a_hung_instance_is_waited_for_at_the_one_that_answers(
    service: FakeService, hostile: Hostile
) -> None:
    async with opened(service, hostile.url) as cache:
        key = next(keys_of(cache, hostile.url))
        service.hold(key, b"1")
        service.slow[key] = asyncio.Event()
        asking = asyncio.create_task(cache.namespace("pages").get(key))
        while len(gets(service)) < 1:
            await service.arrived.acquire()
        service.slow[key].set()
        assert await asking == b"1"
        assert len(hostile.asked) == 1


async def test_an_answer_is_an_answer_even_503(
    service: FakeService, hostile: Hostile, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(service, hostile.url) as cache:
        hostile.answers = lambda path: answer("503 Service Unavailable", BUSY)
        pages = cache.namespace("pages")
        keys = keys_of(cache, hostile.url)
        for _ in range(5):
            with pytest.raises(CacheError, match="overloaded"):
                await pages.get(next(keys))
        assert (gets(service), cache.statistics().failovers) == ([], 0)
    assert caplog.records == []


async def test_a_write_without_a_lease_is_sent_to_one_instance_alone(
    service: FakeService, hostile: Hostile
) -> None:
    """A hung instance may act on it after a newer write."""
    async with opened(service, hostile.url, 0.2) as cache:
        pages = cache.namespace("pages")
        key = next(keys_of(cache, hostile.url))
        with pytest.raises(CacheError, match="deadline"):
            await pages.set(key, b"1")
        assert (len(hostile.asked), service.calls(":put")) == (1, [])


async def test_an_invalidation_is_moved(service: FakeService, hostile: Hostile) -> None:
    async with opened(service, hostile.url, 1.0) as cache:
        await cache.namespace("pages").delete(next(keys_of(cache, hostile.url)))
        assert (len(hostile.asked), len(service.fences)) == (1, 1)


async def test_a_fill_is_moved(service: FakeService, hostile: Hostile) -> None:
    async with opened(service, hostile.url, 1.0) as cache:
        hostile.answers = _leases
        key = next(keys_of(cache, hostile.url))
        service.leases[key] = "lease-1"

        async def load(key: str) -> bytes:
            return b"loaded"

        assert await cache.namespace("pages").get_or_load(key, load) == b"loaded"
        assert hostile.asked == ["/v1/pages:get", "/v1/pages:put"]
        assert service.held[key].value == b"loaded"
        assert cache.statistics().failed_fills == 0


async def test_a_lease_that_a_hung_instance_may_have_granted_is_not_waited_for_to_its_end(
    service: FakeService, hostile: Hostile
) -> None:
    async with opened(service, hostile.url, 0.3) as cache:
        key = next(keys_of(cache, hostile.url))
        service.leases[key] = "lease-9"

        async def load(key: str) -> bytes:
            return b"loaded"

        began = time.monotonic()
        assert await cache.namespace("pages").get_or_load(key, load) == b"loaded"
        assert time.monotonic() - began < 2.0, "not the five seconds of a lease"
        assert cache.statistics().loads == 1


async def test_with_all_instances_hung_a_call_fails_in_its_time_and_says_whom_it_asked(
    service: FakeService, hostile: Hostile
) -> None:
    async with opened(service, hostile.url, 0.2) as cache:
        service.gate.clear()
        pages = cache.namespace("pages")
        for _ in range(4):
            began = time.monotonic()
            with pytest.raises(CacheError, match=r"deadline: no answer to .* in time from http://"):
                await pages.get("k1")
            assert time.monotonic() - began < 0.2 + 0.15
        service.gate.set()
        service.hold("k1", b"1")
        while not isinstance(await pages.lookup("k1"), Hit):
            pass


async def test_another_client_of_the_process_does_not_ask_a_hung_instance(
    service: FakeService, hostile: Hostile
) -> None:
    async with opened(service, hostile.url, 1.0) as cache:
        await asked_in_turn(cache.namespace("pages"), 20)
        hostile.asked.clear()
        async with Cache.from_url(service.url, default_timeout="1s") as other:
            outcomes = await asked_in_turn(other.namespace("others"), 20)
        assert not [outcome for outcome in outcomes if isinstance(outcome, Unavailable)]
        assert hostile.asked == []


async def test_a_client_with_a_session_of_its_own_keeps_what_it_knows_to_itself(service: FakeService) -> None:
    async with Cache.from_url(service.url) as cache, Cache.from_url(service.url) as other:
        own = Cache.from_url(service.url, session=cache._transport.session)
        ours, theirs, its = (one._region.candidates(0.0)[0] for one in (cache, other, own))
        assert ours is theirs
        assert its is not ours
