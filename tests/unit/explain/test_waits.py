"""A place that gave no answer is waited for longer the next time."""

import asyncio

import pytest

from cachesvc.explain.waits import NoAnswerError, Waits


async def test_a_far_place_answers_the_second_or_third_question() -> None:
    waits = Waits(0.001, 0.004)
    answers = asyncio.Event()
    for longest in ("1 ms", "2 ms", "4 ms", "4 ms"):
        with pytest.raises(NoAnswerError, match=f"no answer within {longest}"):
            await waits.within("far", answers.wait())
    with pytest.raises(NoAnswerError, match="no answer within 1 ms"):
        await waits.within("another", answers.wait())
    answers.set()
    assert await waits.within("far", answers.wait())
    assert repr(waits) == "<Waits [0.001 s, longer for 1]>", "a quick answer ends it"
