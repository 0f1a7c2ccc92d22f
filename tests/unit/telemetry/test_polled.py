"""Servers' figures are asked for in the background, and forgotten when a server falls silent."""

import asyncio

import pytest

from cachesvc.model.errors import TierUnavailableError
from cachesvc.telemetry.metrics.polled import POLL_SECONDS, Polled


class Talker:
    def __init__(self) -> None:
        self.asked = 0
        self.is_silent = False

    async def say(self) -> int:
        self.asked += 1
        if self.is_silent:
            raise TierUnavailableError("mc-0", "no answer")
        return self.asked


@pytest.mark.looptime
async def test_the_newest_words_of_each_are_kept_and_those_of_a_silent_one_forgotten() -> None:
    one, other = Talker(), Talker()
    polled: Polled[int] = Polled("talkers", {"one": one.say, "other": other.say})
    running = asyncio.create_task(polled.run())
    await asyncio.sleep(POLL_SECONDS + 1)
    assert (polled.said, polled.failed) == ({("one",): 2, ("other",): 2}, 0)
    one.is_silent = True
    await asyncio.sleep(2 * POLL_SECONDS)
    assert (polled.said, polled.failed) == ({("other",): 4}, 2)
    assert repr(polled) == "<Polled talkers [1 of 2 known]>"
    running.cancel()


@pytest.mark.looptime
async def test_one_that_hangs_keeps_nobody_from_what_the_others_said() -> None:
    async def hang() -> int:
        await asyncio.Event().wait()
        return 0

    polled = Polled("talkers", {"hangs": hang, "talks": Talker().say})
    running = asyncio.create_task(polled.run())
    await asyncio.sleep(1)
    assert polled.said == {("talks",): 1}
    running.cancel()


@pytest.mark.looptime
async def test_an_answer_that_nobody_expected_ends_neither_the_poll_nor_the_answers_of_others() -> None:
    async def without_a_field() -> int:
        raise KeyError("used_memory")

    talker = Talker()
    polled = Polled("talkers", {"odd": without_a_field, "talks": talker.say})
    running = asyncio.create_task(polled.run())
    await asyncio.sleep(2 * POLL_SECONDS + 1)
    assert (polled.said, polled.failed, polled.loop.failures) == ({("talks",): 3}, 3, 3)
    running.cancel()
