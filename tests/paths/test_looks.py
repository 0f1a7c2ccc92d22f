"""Looks: a batch asks L2 for its keys, which have flights only once somebody needs one."""

import asyncio
from typing import Any

import pytest

from cachesvc.model.entry import Key
from cachesvc.model.requests import Answer, Outcome
from cachesvc.paths.flight import Look, Mode
from tests.doubles.loaders import loaded
from tests.paths.world import FarSide, Instance

pytestmark = pytest.mark.looptime


def _keys(*texts: str) -> list[Key]:
    return [Key.of("docs", text) for text in texts]


async def _filled(*texts: str) -> Instance:
    """An instance whose L1 is empty, while L2 and L3 have these keys."""
    far = FarSide()
    await Instance(far, name="i1").reader.get_many(_keys(*texts))
    await asyncio.sleep(0.01)
    far.l2.gets.clear()
    return Instance(far)


async def _batch_on_the_way(here: Instance, *texts: str) -> "asyncio.Task[list[Answer]]":
    """A batch that L2 has answered and that has not got the answer yet."""
    task = asyncio.create_task(here.reader.get_many(_keys(*texts)))
    here.far.l2.hold_gets = here.far.l2.hold_gets or asyncio.Event()
    await asyncio.sleep(0.001)
    return task


def _answer_them(here: Instance) -> None:
    assert here.far.l2.hold_gets is not None
    here.far.l2.hold_gets.set()


def _told(answers: list[Answer]) -> list[tuple[str, bytes]]:
    return [(answer.tier, answer.entry.value if answer.entry else b"") for answer in answers]


async def test_batches_that_overlap_ask_l2_once_for_each_key_and_count_as_flights_do() -> None:
    here = await _filled("a", "b", "c")
    first = await _batch_on_the_way(here, "a", "b")
    second = await _batch_on_the_way(here, "b", "c", "a", "d")
    third = await _batch_on_the_way(here, "a", "b")
    assert here.far.l2.gets == ["a", "b", "c", "d"]
    _answer_them(here)
    assert _told(await first) == [("l2", b"value of a"), ("l2", b"value of b")]
    assert [answer.tier for answer in await second] == ["l2", "l2", "l2", "origin"]
    assert _told(await third) == [("l2", b"value of a"), ("l2", b"value of b")]
    assert (here.tally.flights, here.tally.joined) == (4, 4)
    assert (here.tally.l1.misses, here.tally.l2.hits, here.tally.l2.misses) == (8, 3, 1)
    assert here.tally.beyond == {("docs", "l2"): 7, ("docs", "origin"): 1}
    assert not len(here.flights)
    assert [here.l1.peek(key) is not None for key in _keys("a", "b", "c", "d")] == [True] * 4


async def test_answers_of_a_look_say_what_those_of_flights_say() -> None:
    here, other = await _filled("a", "b"), await _filled("a")
    (together, _), alone = await here.reader.get_many(_keys("a", "b")), await other.get("a")
    assert (together.outcome, together.tier, together.trail) == (alone.outcome, alone.tier, alone.trail)
    assert [(step.tier, step.reason, step.stored) for step in together.trail] == [("l1", "uri-miss", True)]


async def test_a_reader_of_one_key_joins_a_look_and_what_l2_lacks_is_loaded_once() -> None:
    here = await _filled("a")
    batch = await _batch_on_the_way(here, "a", "new")
    single, missing = asyncio.create_task(here.get("a")), asyncio.create_task(here.get("new"))
    await asyncio.sleep(0.001)
    assert here.far.l2.gets == ["a", "new"]
    _answer_them(here)
    told = [("l2", b"value of a"), ("origin", b"value of new")]
    assert _told([await single, await missing]) == _told(await batch) == told
    assert (here.far.loader.loads("new"), here.tally.joined, here.tally.flights) == (1, 2, 2)
    assert not len(here.flights)


async def test_a_key_that_stands_twice_in_a_batch_joins_its_own_look() -> None:
    here = await _filled("a", "b")
    answers = await here.reader.get_many(_keys("a", "b", "a", "new", "new"))
    assert [answer.tier for answer in answers] == ["l2", "l2", "l2", "origin", "origin"]
    assert here.far.l2.gets == ["a", "b", "new"]
    assert (here.tally.flights, here.tally.joined, here.far.loader.loads("new")) == (3, 2, 1)


@pytest.mark.parametrize("is_tag", [False, True])
async def test_a_fence_that_comes_while_l2_answers_refuses_the_copy(is_tag: bool) -> None:
    far = FarSide()
    far.loader.script("a", loaded(b"old", tags=("t",)))
    await Instance(far, name="i1").reader.get_many(_keys("a", "b"))
    await asyncio.sleep(0.01)
    here = Instance(far)
    first = await _batch_on_the_way(here, "a", "b")
    joined = await _batch_on_the_way(here, "a", "b")
    far.loader.script("a", loaded(b"new", tags=("t",)))
    await (here.invalidate(tags=["t"]) if is_tag else here.invalidate("a"))
    _answer_them(here)
    for batch in (first, joined):
        assert _told(await batch) == [("origin", b"new"), ("l2", b"value of b")]
    assert here.tally.l2.refused == 1


async def test_the_fence_of_a_key_forgets_its_flight_in_the_look() -> None:
    here = await _filled("a", "b")
    first = await _batch_on_the_way(here, "a", "b")
    await here.invalidate("a")
    assert here.flights.find(_keys("a")[0], Mode.THROUGH) is None
    assert here.flights.find(_keys("b")[0], Mode.THROUGH) is not None
    later = await _batch_on_the_way(here, "a", "b")
    _answer_them(here)
    assert [answer.tier for answer in await first + await later] == ["origin", "l2", "l3", "l2"]
    assert here.far.l2.gets == ["a", "b", "a"]
    assert here.far.loader.loads("a") == 2, "one load before the fence, and one for both batches"


async def test_a_fence_between_the_landing_and_a_readers_turn_refuses_the_copies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = await _filled("a", "b")
    land = Look.land

    def land_before_a_fence(look: Look, *landing: Any) -> None:
        land(look, *landing)
        here.fences.raise_floor(here.clock.now_us())

    monkeypatch.setattr(Look, "land", land_before_a_fence)
    answers = await here.reader.get_many(_keys("a", "b"))
    assert [answer.tier for answer in answers] == ["l3", "l3"]
    assert here.tally.reads_again == 2


async def test_a_cancelled_batch_leaves_its_look_to_fill_l1() -> None:
    here = await _filled("a", "b")
    batch = await _batch_on_the_way(here, "a", "b", "new")
    joined = await _batch_on_the_way(here, "a", "new")
    batch.cancel()
    await asyncio.wait((batch,))
    _answer_them(here)
    assert [answer.tier for answer in await joined] == ["l2", "origin"]
    assert [here.l1.peek(key) is not None for key in _keys("a", "b", "new")] == [True] * 3
    assert not len(here.flights)


async def test_a_look_that_breaks_ends_all_its_flights() -> None:
    here = await _filled("a", "b")

    async def broken(keys: object) -> list[None]:
        raise ZeroDivisionError

    here.far.l2.tier.get_many = broken  # type: ignore[method-assign]
    answers = await here.reader.get_many(_keys("a", "b"))
    assert [answer.outcome for answer in answers] == [Outcome.ERROR] * 2
    assert not len(here.flights)


async def test_a_look_that_began_too_long_ago_is_not_joined_while_the_feed_is_late() -> None:
    here = await _filled("a", "b")
    first = await _batch_on_the_way(here, "a", "b")
    await asyncio.sleep(3 * here.topology.namespaces["docs"].max_lag.seconds)
    here.fences.watermark = 0
    second = await _batch_on_the_way(here, "a", "b")
    assert here.far.l2.gets == ["a", "b"] * 2
    _answer_them(here)
    await asyncio.wait((first, second))
    assert here.tally.joined == 0


async def test_an_l2_that_is_down_counts_an_error_for_each_key() -> None:
    here = await _filled("a", "b")
    here.far.l2.down = True
    answers = await here.reader.get_many(_keys("a", "b"))
    assert [answer.tier for answer in answers] == ["l3", "l3"]
    assert [step.detail for step in answers[0].trail] == ["unavailable", ""]
    assert here.tally.l2.errors == 2
