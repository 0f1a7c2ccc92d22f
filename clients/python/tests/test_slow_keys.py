"""A key that is being loaded from a slow origin holds up nobody but those who ask for it."""

import asyncio
from collections.abc import Sequence

import pytest
from cachesvc_client import Cache, CacheError, Namespace, PartialError, Unavailable
from cachesvc_client.aio.batching import Batcher
from cachesvc_client.aio.slow_lane import SlowLane
from cachesvc_client.protocol.turns import FIRST_TURN, SLOW_TURN, TURNS_SHARE
from cachesvc_client.values.durations import seconds_of

from clients.python.tests.fake_service import FakeService, Recorded

OTHERS = [f"k{i}" for i in range(19)]


@pytest.fixture
def slow(service: FakeService) -> asyncio.Event:
    """The event that lets the key `slow` be there; nineteen other keys are there at once."""
    for key in (*OTHERS, "slow"):
        service.hold(key, key.encode())
    return service.slow.setdefault("slow", asyncio.Event())


def told(call: Recorded) -> float:
    return seconds_of(call.headers["Cachesvc-Timeout"], "Cachesvc-Timeout")


async def asked_again(service: FakeService) -> None:
    for _ in range(2):
        await service.arrived.acquire()


def begun(pages: Namespace[bytes]) -> tuple[asyncio.Task[bytes | None], "asyncio.Future[list[bytes | None]]"]:
    """Begins gets of one moment; returns the get of the slow key, and the others."""
    return asyncio.create_task(pages.get("slow")), asyncio.gather(*(pages.get(key) for key in OTHERS))


async def test_a_slow_key_does_not_hold_up_the_others_of_its_batch(
    service: FakeService, cache: Cache, slow: asyncio.Event
) -> None:
    late, others = begun(cache.namespace("pages"))
    assert await others == [key.encode() for key in OTHERS]
    assert not late.done()
    await asked_again(service)
    slow.set()
    assert await late == b"slow"
    first, second, *_ = service.calls(":get")
    assert (len(first.body["keys"]), second.body["keys"]) == (20, ["slow"])
    assert (told(first), told(second)) == (FIRST_TURN, SLOW_TURN)
    assert cache.statistics().retries == 0


async def test_a_slow_key_is_late_for_its_callers_when_their_time_is_over(
    service: FakeService, cache: Cache, slow: asyncio.Event
) -> None:
    pages = cache.namespace("pages", timeout="0.2s")
    late, others = begun(pages)
    looked_up = asyncio.create_task(pages.lookup("slow"))
    assert await others == [key.encode() for key in OTHERS]
    with pytest.raises(CacheError) as caught:
        await late
    assert (caught.value.type, caught.value.retryable) == ("deadline", True)
    assert isinstance(await looked_up, Unavailable)
    assert cache.statistics().retries == 0


async def test_a_slow_key_alone_has_all_the_time_in_one_request(
    service: FakeService, cache: Cache, slow: asyncio.Event
) -> None:
    late = asyncio.create_task(cache.namespace("pages").get("slow"))
    await service.arrived.acquire()
    slow.set()
    assert await late == b"slow"
    (call,) = service.calls(":get")
    assert told(call) > 4


async def test_a_key_that_turns_do_not_bring_is_asked_for_alone_for_the_rest_of_its_time(
    service: FakeService, cache: Cache, slow: asyncio.Event
) -> None:
    late, others = begun(cache.namespace("pages", timeout="1s"))
    await others
    while told(service.calls(":get")[-1]) <= SLOW_TURN:
        await service.arrived.acquire()
    slow.set()
    assert await late == b"slow"
    *turns, last = service.calls(":get")
    assert SLOW_TURN < told(last) < 1 - TURNS_SHARE
    assert len(turns) > 2


async def test_a_slow_key_alone_that_never_comes_costs_one_request(
    service: FakeService, cache: Cache, slow: asyncio.Event
) -> None:
    with pytest.raises(CacheError, match="deadline"):
        await cache.namespace("pages", timeout="0.1s").get("slow")
    assert len(service.calls(":get")) == 1


async def test_get_many_has_what_is_there_at_its_deadline(
    service: FakeService, cache: Cache, slow: asyncio.Event
) -> None:
    with pytest.raises(PartialError) as caught:
        await cache.namespace("pages", timeout="0.2s").get_many([*OTHERS, "slow"])
    assert {key: error.type for key, error in caught.value.failed.items()} == {"slow": "deadline"}
    assert sorted(caught.value.found) == sorted(OTHERS)


async def test_get_many_waits_for_a_slow_key(service: FakeService, cache: Cache, slow: asyncio.Event) -> None:
    asking = asyncio.create_task(cache.namespace("pages").get_many([*OTHERS, "slow"]))
    await asked_again(service)
    slow.set()
    assert await asking == {key: key.encode() for key in (*OTHERS, "slow")}


LATE = CacheError("deadline", status=504, retryable=True)


class Turns:
    """A double that records the keys asked for again and their deadlines; the test answers."""

    def __init__(self) -> None:
        self.sent: list[list[str]] = []
        self.departed = asyncio.Semaphore(0)
        self.answers: asyncio.Queue[Sequence[str | CacheError]] = asyncio.Queue()

    async def __call__(self, items: list[str], _deadline: float) -> Sequence[str | CacheError]:
        self.sent.append(items)
        self.departed.release()
        return await self.answers.get()


@pytest.fixture
def turns() -> Turns:
    return Turns()


@pytest.fixture
def batcher(turns: Turns) -> Batcher[str, str]:
    """A batcher in whose batches nearly every key is late."""

    async def send(items: list[str], _deadline: float) -> list[str | CacheError]:
        return ["quick" if item == "quick" else LATE for item in items]

    tasks: set[asyncio.Task[None]] = set()
    lane = SlowLane(Batcher(turns, timeout=5, tasks=tasks), send, tasks)
    return Batcher(send, timeout=5, tasks=tasks, slow_lane=lane)


async def test_the_slow_keys_of_a_batch_wait_together(batcher: Batcher[str, str], turns: Turns) -> None:
    orders = [batcher.join(item) for item in ("a", "b", "quick")]
    assert await orders[2] == "quick"
    await turns.departed.acquire()
    turns.answers.put_nowait(["A", "B"])
    assert await asyncio.gather(*orders[:2]) == ["A", "B"]
    assert turns.sent == [["a", "b"]]


async def test_a_slow_key_that_fails_has_failed(batcher: Batcher[str, str], turns: Turns) -> None:
    order, _ = batcher.join("a"), batcher.join("quick")
    turns.answers.put_nowait([CacheError("load-failed", status=502)])
    answer = await order
    assert isinstance(answer, CacheError)
    assert answer.type == "load-failed"


async def test_what_nobody_waits_for_is_not_asked_for_again(batcher: Batcher[str, str], turns: Turns) -> None:
    left, stays = batcher.join("left"), batcher.join("stays")
    await turns.departed.acquire()
    left.cancel()
    turns.answers.put_nowait([LATE, LATE])
    turns.answers.put_nowait(["STAYS"])
    assert await stays == "STAYS"
    assert turns.sent == [["left", "stays"], ["stays"]]


async def test_get_many_has_what_is_there_at_the_deadline_of_its_call(
    service: FakeService, cache: Cache, slow: asyncio.Event
) -> None:
    """The timeout of one call does as the timeout of its namespace: what came in time is not lost."""
    with pytest.raises(PartialError) as caught:
        await cache.namespace("pages").get_many([*OTHERS, "slow"], timeout="0.2s")
    assert {key: error.type for key, error in caught.value.failed.items()} == {"slow": "deadline"}
    assert sorted(caught.value.found) == sorted(OTHERS)


async def test_a_few_keys_have_what_is_there_at_the_deadline_of_their_call(
    service: FakeService, cache: Cache, slow: asyncio.Event
) -> None:
    """They share a request with another caller's, who has more time and keeps it."""
    pages = cache.namespace("pages")
    patient = asyncio.create_task(pages.get("slow"))
    with pytest.raises(PartialError) as caught:
        await pages.get_many(["k1", "slow"], timeout="0.2s")
    assert ([*caught.value.failed], caught.value.found) == (["slow"], {"k1": b"k1"})
    slow.set()
    assert await patient == b"slow"
