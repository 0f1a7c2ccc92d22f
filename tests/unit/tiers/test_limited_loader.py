"""At most N loads at once, in order, whatever is cancelled when."""

import asyncio

import pytest

from cachesvc.model.entry import Key
from cachesvc.model.errors import OriginError
from cachesvc.tiers.origin.contract import Loaded
from cachesvc.tiers.origin.limited import LimitedLoader
from tests.doubles.loaders import ScriptedLoader


class Stand:
    """A limited loader over a held origin, and the loads that were begun through it."""

    def __init__(self, limit: int, *, wait_seconds: float = float("inf")) -> None:
        self.origin = ScriptedLoader()
        self.origin.hold()
        self.loader = LimitedLoader(self.origin, limit=limit, wait_seconds=wait_seconds)

    async def begin(self, text: str, *, timeout_seconds: float = 60) -> asyncio.Task[Loaded]:
        task = asyncio.create_task(
            self.loader.load(Key.of("pages", text), known=None, timeout_seconds=timeout_seconds)
        )
        await asyncio.sleep(0)
        return task

    @property
    def asked(self) -> list[str]:
        return [call.key.text for call in self.origin.calls]

    def counters(self) -> tuple[int, int, int, int]:
        return self.loader.running, self.loader.waiting, self.loader.peak, self.loader.refused


async def test_no_more_than_the_limit_reach_the_origin_and_the_others_follow_in_order() -> None:
    stand = Stand(2)
    tasks = [await stand.begin(text) for text in "abcdef"]
    assert stand.asked == ["a", "b"]
    assert stand.counters() == (2, 4, 2, 0)
    assert repr(stand.loader) == "<LimitedLoader 2/2 running, 4 waiting, 0 refused>"
    stand.origin.release()
    values = [loaded.value for loaded in await asyncio.gather(*tasks)]
    assert values == [
        b"value of a",
        b"value of b",
        b"value of c",
        b"value of d",
        b"value of e",
        b"value of f",
    ]
    assert stand.asked == list("abcdef")
    assert stand.origin.peak == 2
    assert stand.counters() == (0, 0, 2, 0)


async def test_a_late_comer_does_not_overtake_those_who_wait() -> None:
    stand = Stand(1)
    first, second = await stand.begin("a"), await stand.begin("b")
    stand.origin.release()
    await first
    stand.origin.hold()
    third = await stand.begin("c")
    stand.origin.release()
    await asyncio.gather(second, third)
    assert stand.asked == ["a", "b", "c"]


async def test_a_load_that_gets_no_turn_in_time_is_refused_and_never_reaches_the_origin() -> None:
    stand = Stand(1, wait_seconds=0.01)
    first = await stand.begin("a")
    with pytest.raises(OriginError, match="1 loads run already") as raised:
        await stand.loader.load(Key.of("pages", "b"), known=None, timeout_seconds=60)
    assert (raised.value.status, raised.value.retryable) == (503, True)
    assert stand.counters() == (1, 0, 1, 1)
    stand.origin.release()
    await first
    assert stand.asked == ["a"]


async def test_nobody_waits_for_a_turn_beyond_the_timeout_of_the_load() -> None:
    stand = Stand(1)
    first = await stand.begin("a")
    with pytest.raises(OriginError):
        await stand.loader.load(Key.of("pages", "b"), known=None, timeout_seconds=0.01)
    assert stand.loader.refused == 1
    first.cancel()


async def test_what_was_waited_is_taken_off_the_timeout() -> None:
    stand = Stand(1)
    first, second = await stand.begin("a"), await stand.begin("b", timeout_seconds=30)
    stand.origin.release()
    await asyncio.gather(first, second)
    assert stand.origin.calls[0].timeout_seconds == 60
    assert 0 < stand.origin.calls[1].timeout_seconds < 30


@pytest.mark.parametrize("cancelled", ["loading", "next", "last", "all waiting"])
async def test_a_cancelled_caller_gives_its_turn_to_the_next(cancelled: str) -> None:
    stand = Stand(1)
    tasks = [await stand.begin(text) for text in "abcd"]
    gone = {"loading": tasks[:1], "next": tasks[1:2], "last": tasks[3:], "all waiting": tasks[1:]}[cancelled]
    for task in gone:
        task.cancel()
    await asyncio.gather(*gone, return_exceptions=True)
    stand.origin.release()
    others = [task for task in tasks if task not in gone]
    assert len(await asyncio.gather(*others)) == len(others)
    assert stand.counters() == (0, 0, 1, 0)
    assert (await (await stand.begin("e"))).value == b"value of e"


async def test_a_caller_cancelled_in_the_instant_it_got_its_turn_passes_it_on() -> None:
    stand = Stand(1)
    first, second, third = [await stand.begin(text) for text in "abc"]
    first.cancel()
    await asyncio.sleep(0)  # the first has let go: the second has been given the turn and has not run yet
    second.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    stand.origin.release()
    assert (await third).value == b"value of c"
    assert stand.asked == ["a", "c"]
    assert stand.counters() == (0, 0, 1, 0)


async def test_a_failed_load_gives_its_turn_back() -> None:
    stand = Stand(1)
    stand.origin.release()
    stand.origin.script("a", OriginError("down"))
    with pytest.raises(OriginError, match="down"):
        await (await stand.begin("a"))
    assert (await (await stand.begin("b"))).value == b"value of b"


@pytest.mark.looptime
async def test_a_load_is_timed_from_its_turn_on_whether_it_succeeds_or_fails() -> None:
    stand = Stand(1)
    stand.origin.script("b", OriginError("down"))
    tasks = [await stand.begin(text) for text in "ab"]
    await asyncio.sleep(3)
    stand.origin.release()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(stand.loader.durations.buckets) == 2
    assert stand.loader.durations.total == pytest.approx(3, abs=0.1)


async def test_it_starts_and_stops_what_it_wraps() -> None:
    stand = Stand(1)
    await stand.loader.start()
    await stand.loader.stop()
    assert (stand.origin.started, stand.origin.stopped) == (1, 1)


def test_a_limit_that_lets_nothing_through_is_refused() -> None:
    with pytest.raises(ValueError, match="limit of 0"):
        LimitedLoader(ScriptedLoader(), limit=0)
