"""Which of the answers of sentinels is the master's address."""

import asyncio

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from cachesvc.tiers.sentinels import (
    ANSWER_HOLDS_SECONDS,
    ANSWER_SECONDS,
    FOLLOW_SECONDS,
    OTHERS_SECONDS,
    MasterName,
    Place,
    Told,
    told_by,
)

OLD, NEW = ("10.0.0.1", 6379), ("10.0.0.2", 6379)
DOWN = OSError("refused")
HANGS = None

pytestmark = pytest.mark.looptime


class Group:
    """Sentinels with set answers; `answers` may be changed between two look-ups."""

    def __init__(self, *answers: Told | Exception | None) -> None:
        self.answers = list(answers)
        self.asked = 0
        places = [(f"s{number}", 26379) for number in range(len(answers))]
        self.name = MasterName("m", [(place, self._asking(n)) for n, place in enumerate(places)])
        self.name.moved = self._moved
        self.moves: list[Place] = []

    async def _moved(self, place: Place) -> None:
        self.moves.append(place)

    def _asking(self, number: int):  # type: ignore[no-untyped-def]  # a small fake
        async def ask() -> Told:
            self.asked += 1
            answer = self.answers[number]
            if answer is HANGS:
                await asyncio.sleep(1e6)
            if isinstance(answer, Exception):
                raise answer
            assert isinstance(answer, Told)
            await asyncio.sleep(number / 100)
            return answer

        return ask


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize(
    ("answers", "place", "seconds"),
    [
        ((Told(1, OLD), Told(1, OLD), Told(1, OLD)), OLD, 0.01),
        ((Told(1, OLD), Told(2, NEW), Told(1, OLD)), NEW, 0.01),
        ((DOWN, Told(1, OLD), Told(1, OLD)), OLD, 0.02),
        ((HANGS, Told(1, OLD), Told(2, NEW)), NEW, 0.02),
        ((DOWN, Told(1, OLD), DOWN), OLD, 0.01),
        ((HANGS, Told(1, OLD), HANGS), OLD, 0.01 + OTHERS_SECONDS),
        ((Told(0, OLD), Told(0, NEW), Told(0, NEW), HANGS, HANGS), NEW, 0.02),
        ((Told(1, OLD),), OLD, 0.0),
    ],
)
async def test_the_newest_answer_of_a_majority_counts(
    answers: tuple[Told | Exception | None, ...], place: Place, seconds: float
) -> None:
    began = now()
    assert await Group(*answers).name.look_up() == place
    assert now() - began == pytest.approx(seconds)


async def test_no_answer_is_an_error_that_says_what_each_sentinel_said() -> None:
    group = Group(DOWN, RedisError("it knows no master 'm'"), HANGS)
    began = now()
    with pytest.raises(
        RedisConnectionError,
        match="no sentinel tells the address of 'm': s0:26379: refused;"
        " s1:26379: it knows no master 'm'; s2:26379: no answer",
    ):
        await group.name.look_up()
    assert now() - began == pytest.approx(ANSWER_SECONDS)


async def test_callers_share_a_look_up_also_one_that_fails() -> None:
    group = Group(DOWN, DOWN, DOWN)
    for wanted in (3, 6):
        answers = await asyncio.gather(*(group.name.look_up() for _ in range(10)), return_exceptions=True)
        assert all(isinstance(answer, RedisConnectionError) for answer in answers)
        assert group.asked == wanted
        await asyncio.sleep(ANSWER_HOLDS_SECONDS)


async def test_a_caller_that_leaves_leaves_the_look_up_to_the_next() -> None:
    group = Group(HANGS, HANGS, Told(1, OLD))
    first = asyncio.create_task(group.name.look_up())
    second = asyncio.create_task(group.name.look_up())
    await asyncio.sleep(0.1)
    first.cancel()
    assert await second == OLD
    assert len(asyncio.all_tasks()) == 1


async def test_a_switch_is_noticed_by_asking_one_sentinel_after_the_other() -> None:
    group = Group(Told(1, OLD), Told(1, OLD), Told(1, OLD))
    group.name.follow()
    assert group.asked == 0
    await group.name.look_up()
    group.answers[1:] = [Told(2, NEW), Told(2, NEW)]
    for asked, moves in ((4, []), (8, [NEW])):
        group.name.follow()
        group.name.follow()
        await asyncio.sleep(1.1 * FOLLOW_SECONDS)
        assert (group.asked, group.moves) == (asked, moves)
    group.name.follow()
    await asyncio.sleep(1.1 * FOLLOW_SECONDS)  # one that names the old master still, with the old number
    assert (group.asked, group.moves, group.name.place) == (9, [NEW], NEW)
    group.answers[0] = HANGS
    group.name.follow()
    await group.name.close()
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ([None, []], "it knows no master 'm'"),
        ([[b"10.0.0.1", b"6379"], [b"name", b"m"]], "an answer of an unknown shape"),
        ([[b"10.0.0.1", b"x"], [b"config-epoch", b"1"]], "an answer of an unknown shape"),
        ([[b"\xff", b"1"], [b"config-epoch", b"1"]], "an answer of an unknown shape"),
        ([b"OK", b"OK"], "an answer of an unknown shape"),
        (None, "an answer of an unknown shape"),
    ],
)
def test_an_answer_of_another_shape_is_a_failure_of_its_sentinel(said: object, why: str) -> None:
    with pytest.raises(RedisError, match=why):
        told_by("m", said)


def test_an_answer_is_an_address_and_the_number_of_its_failover() -> None:
    assert told_by("m", [[b"10.0.0.2", b"6379"], [b"name", b"m", b"config-epoch", b"7"]]) == Told(7, NEW)
