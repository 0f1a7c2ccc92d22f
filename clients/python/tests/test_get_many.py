"""`get_many` answers as a `get` of each key would, with one request for each instance."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest
from cachesvc_client import Cache, CacheError, Namespace, PartialError
from cachesvc_client.aio import batching as limits
from cachesvc_client.aio.batching import LANES, Batcher, SpreadBatches
from cachesvc_client.aio.slow_lane import SlowLane
from cachesvc_client.protocol.batch_limits import MAX_ITEMS, MIN_OWN

from clients.python.tests.fake_service import FakeService

KEYS = [f"k{i}" for i in range(100)]
LATE = CacheError("deadline", status=504, retryable=True)


async def one_by_one(pages: Namespace[bytes], keys: Sequence[str]) -> tuple[dict[str, bytes], dict[str, str]]:
    """Gets the keys one by one; returns the values found, and the types of the failures."""
    answers = await asyncio.gather(*map(pages.get, keys), return_exceptions=True)
    named = dict(zip(keys, answers, strict=True))
    found = {key: answer for key, answer in named.items() if isinstance(answer, bytes)}
    return found, {key: answer.type for key, answer in named.items() if isinstance(answer, CacheError)}


async def together(pages: Namespace[bytes], keys: Sequence[str]) -> tuple[dict[str, bytes], dict[str, str]]:
    try:
        return await pages.get_many(keys), {}
    except PartialError as error:
        return error.found, {key: failure.type for key, failure in error.failed.items()}


@pytest.mark.parametrize("count", [0, 1, MIN_OWN - 1, MIN_OWN, 100, MAX_ITEMS, MAX_ITEMS + 1])
async def test_it_answers_what_single_gets_do(service: FakeService, cache: Cache, count: int) -> None:
    """A third of the keys is missing, one is known absent, one fails, one is named twice."""
    keys = [f"k{i}" for i in range(count)]
    for key in (key for nth, key in enumerate(keys) if nth % 3):
        service.hold(key, key.encode())
    service.hold("k4", b"", absent=True)
    service.key_problems["k5"] = {"type": "https://cachesvc.dev/problems/overtaken", "status": 503}
    pages = cache.namespace("pages")
    expected = await one_by_one(pages, keys)
    assert await together(pages, [*keys, *keys[:2]]) == expected
    assert list((await together(pages, keys))[0]) == list(expected[0]), "in the order of the keys"


@pytest.mark.parametrize("bad", ["", "a\nb", "ü\x85", "\ud800", "k" * 1025, "ü" * 513])
async def test_one_key_out_of_rule_is_refused_before_anything_is_sent(
    service: FakeService, cache: Cache, bad: str
) -> None:
    with pytest.raises(ValueError, match="key"):
        await cache.namespace("pages").get_many([*KEYS, bad, *KEYS])
    assert not service.calls(":get")
    assert await cache.namespace("pages").get_many([*KEYS, "ü" * 512, "k" * 1024]) == {}


async def test_each_call_is_a_request_and_names_a_key_once(service: FakeService, cache: Cache) -> None:
    pages = cache.namespace("pages")
    await asyncio.gather(pages.get_many([*KEYS, *KEYS]), pages.get_many(KEYS))
    assert [call.body["keys"] for call in service.calls(":get")] == [KEYS, KEYS]


async def test_calls_for_few_keys_share_a_request(service: FakeService, cache: Cache) -> None:
    pages = cache.namespace("pages")
    await asyncio.gather(pages.get_many(["a", "b"]), pages.get_many(["b", "c"]), pages.get("d"))
    assert [call.body["keys"] for call in service.calls(":get")] == [["a", "b", "c", "d"]]


async def test_many_keys_are_several_requests(service: FakeService, cache: Cache) -> None:
    keys = [f"k{i}" for i in range(1000)]
    await cache.namespace("pages").get_many(keys)
    asked = [call.body["keys"] for call in service.calls(":get")]
    assert sorted(map(len, asked)) == [1000 - 3 * MAX_ITEMS, *[MAX_ITEMS] * 3]
    assert sorted(key for part in asked for key in part) == sorted(keys)


async def test_a_failed_request_fails_all_of_its_keys_each_with_an_error_of_its_own(
    service: FakeService, cache: Cache
) -> None:
    service.problem = (403, {"type": "https://cachesvc.dev/problems/forbidden", "status": 403}, {})
    with pytest.raises(PartialError) as caught:
        await cache.namespace("pages").get_many(KEYS)
    assert {key: error.type for key, error in caught.value.failed.items()} == dict.fromkeys(KEYS, "forbidden")
    assert len(set(map(id, caught.value.failed.values()))) == len(KEYS)


async def test_a_token_from_elsewhere_holds_for_all_keys(service: FakeService, cache: Cache) -> None:
    for key in KEYS:
        service.hold(key, b"old")
    async with Cache.from_url(service.url) as other:
        receipt = await other.namespace("pages").delete("k50")
    with cache.with_token(receipt.token):
        assert sorted(await cache.namespace("pages").get_many(KEYS)) == sorted({*KEYS} - {"k50"})
    (call,) = service.calls(":get")
    assert call.body["token"]


async def test_a_call_that_was_cancelled_leaves_another_its_answers(
    service: FakeService, cache: Cache
) -> None:
    for key in KEYS:
        service.hold(key, key.encode())
    pages = cache.namespace("pages")
    service.gate.clear()
    gone, stays = (asyncio.create_task(pages.get_many(KEYS)) for _ in range(2))
    await service.arrived.acquire()
    gone.cancel()
    service.gate.set()
    assert await stays == {key: key.encode() for key in KEYS}
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_a_call_has_its_own_timeout(service: FakeService, cache: Cache) -> None:
    service.gate.clear()
    with pytest.raises(CacheError, match="deadline"):
        await cache.namespace("pages").get_many(KEYS, timeout="0.05s")


async def test_a_closed_cache_says_so_and_one_that_closes_answers_first(service: FakeService) -> None:
    service.hold("k1", b"1")
    async with Cache.from_url(service.url) as cache:
        pages = cache.namespace("pages")
        asking = asyncio.create_task(pages.get_many(KEYS))
        await asyncio.sleep(0)
    assert await asking == {"k1": b"1"}
    with pytest.raises(PartialError) as caught:
        await pages.get_many(KEYS)
    assert {error.type for error in caught.value.failed.values()} == {"closed"}


async def test_every_key_is_asked_of_its_instance(service: FakeService) -> None:
    async with FakeService() as second:
        for key in KEYS:
            service.hold(key, key.encode())
            second.hold(key, key.encode())
        service.instances = {"a": service.url, "b": second.url}
        async with Cache.from_url(service.url) as cache, asyncio.timeout(5):
            pages = cache.namespace("pages")
            while not second.saw:  # until the topology is known
                assert await pages.get_many(KEYS) == {key: key.encode() for key in KEYS}
            service.saw.clear()
            second.saw.clear()
            assert list(await pages.get_many(KEYS)) == KEYS
            many = [
                {key for call in one.calls(":get") for key in call.body["keys"]} for one in (service, second)
            ]
            service.saw.clear()
            second.saw.clear()
            await asyncio.gather(*map(pages.get, KEYS))
            single = [
                {key for call in one.calls(":get") for key in call.body["keys"]} for one in (service, second)
            ]
    assert many == single
    assert all(many)


ITEMS = [f"i{nth}" for nth in range(MIN_OWN)]


class Line:
    """A double that sends batches, in which the keys of `late` are late.

    When such a key is asked for again, it is there as soon as `may_go` is set.
    """

    def __init__(self) -> None:
        self.sent: list[list[str]] = []
        self.late: set[str] = set()
        self.may_go = asyncio.Event()
        self.asked_again = asyncio.Event()

    async def __call__(self, items: list[str], _deadline: float) -> list[str | CacheError]:
        self.sent.append(items)
        return [LATE if item in self.late else item.upper() for item in items]

    async def again(self, items: list[str], _deadline: float) -> list[str | CacheError]:
        self.asked_again.set()
        await self.may_go.wait()
        return [item.upper() for item in items]


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def tasks() -> set[asyncio.Task[None]]:
    return set()


@pytest.fixture
def batcher(line: Line, tasks: set[asyncio.Task[None]]) -> Batcher[str, str]:
    turns = Batcher(line.again, timeout=5, tasks=tasks)
    return Batcher(line, timeout=5, tasks=tasks, slow_lane=SlowLane(turns, line, tasks))


async def test_the_slow_ones_of_a_call_come_later_and_in_their_place(
    batcher: Batcher[str, str], line: Line
) -> None:
    line.late = {ITEMS[3], ITEMS[7]}
    (order,) = batcher.join_all(ITEMS)
    await line.asked_again.wait()
    assert await batcher.join(ITEMS[0]) == ITEMS[0].upper(), "nobody else waits for them"
    assert not order.done()
    line.may_go.set()
    assert await order == [item.upper() for item in ITEMS]


async def test_a_caller_that_leaves_waits_for_no_slow_one(
    batcher: Batcher[str, str], line: Line, tasks: set[asyncio.Task[None]]
) -> None:
    line.late = set(ITEMS)
    (order,) = batcher.join_all(ITEMS)
    await line.asked_again.wait()
    order.cancel()
    line.may_go.set()
    while tasks:
        await asyncio.wait(tasks)
    assert line.sent == [ITEMS]


async def test_a_caller_that_left_before_departure_is_not_sent(
    batcher: Batcher[str, str], line: Line, tasks: set[asyncio.Task[None]]
) -> None:
    (order,) = batcher.join_all(ITEMS)
    order.cancel()
    await asyncio.wait(tasks)
    assert line.sent == []


async def test_a_call_does_not_wait_for_a_lane() -> None:
    async def send(items: list[str], _deadline: float) -> list[str]:
        """Answers batches; a batch of a single item is never answered."""
        if len(items) == 1:
            await asyncio.Event().wait()
        return items

    tasks: set[asyncio.Task[None]] = set()
    batcher: Batcher[str, str] = Batcher(send, timeout=5, tasks=tasks, max_delay=60)
    for nth in range(LANES):
        batcher.join(f"busy{nth}")
        await asyncio.sleep(0)
    (order,) = batcher.join_all(ITEMS)
    assert await order == ITEMS
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_what_is_cancelled_with_its_batch_is_told() -> None:
    departed = asyncio.Event()

    async def never(items: list[str], _deadline: float) -> list[str]:
        departed.set()
        await asyncio.Event().wait()
        return items

    tasks: set[asyncio.Task[None]] = set()
    batcher: Batcher[str, str] = Batcher(never, timeout=5, tasks=tasks)
    (order,) = batcher.join_all(ITEMS)
    await departed.wait()
    for task in tasks:
        task.cancel()
    assert {answer.type for answer in await order if isinstance(answer, CacheError)} == {"closed"}


async def test_too_many_are_refused_at_once_and_no_longer_than_they_wait(
    batcher: Batcher[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_WAITING", MIN_OWN + 1)
    orders = batcher.join_all(ITEMS)
    with pytest.raises(CacheError, match="overloaded"):
        batcher.join_all(ITEMS)
    await asyncio.gather(*orders)
    assert await batcher.join_all(ITEMS)[0] == [item.upper() for item in ITEMS]


async def test_the_answers_of_several_homes_are_in_the_order_of_the_items() -> None:
    sent: dict[str, list[str]] = {}

    def by_home(items: Sequence[str]) -> Mapping[str, Sequence[str]]:
        return {"odd": items[1::2], "even": items[::2]}

    def batcher_for(home: str) -> Batcher[str, str]:
        async def send(items: list[str], _deadline: float) -> list[str]:
            sent[home] = items
            return [f"{item} {home}" for item in items]

        return Batcher(send, timeout=5, tasks=set())

    spread = SpreadBatches(lambda _: "odd", by_home, batcher_for)
    items = [str(nth) for nth in range(2 * MIN_OWN + 1)]
    assert await spread.join_all(items) == [f"{item} {'odd' if int(item) % 2 else 'even'}" for item in items]
    assert sent == by_home(items)


async def test_keys_for_which_an_answer_had_no_room_are_asked_for_again(
    service: FakeService, cache: Cache
) -> None:
    for key in KEYS:
        service.hold(key, key.encode())
    service.room = 30
    assert await cache.namespace("pages").get_many(KEYS) == {key: key.encode() for key in KEYS}
    assert [len(request.body["keys"]) for request in service.calls(":get")] == [100, 70, 40, 10]


async def test_an_answer_without_any_value_ends_the_asking(service: FakeService, cache: Cache) -> None:
    service.hold("a", b"A")
    service.room = 0
    assert await together(cache.namespace("pages"), KEYS) == ({}, dict.fromkeys(KEYS, "answer-full"))
    assert len(service.calls(":get")) == 2


async def test_what_was_there_is_returned_if_the_rest_fails(service: FakeService, cache: Cache) -> None:
    for key in KEYS:
        service.hold(key, key.encode())
    service.room = 60
    service.on_read = lambda nth: setattr(
        service, "problem", (503, {"type": "https://cachesvc.dev/problems/stopping", "status": 503}, {})
    )
    found, failed = await together(cache.namespace("pages"), KEYS)
    assert (list(found), failed) == (KEYS[:60], dict.fromkeys(KEYS[60:], "stopping"))
