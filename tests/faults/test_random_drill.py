"""Two random faults at a time.

`DRILL_SEED=…` repeats a schedule; without it every run plays another one.
"""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from itertools import combinations

import pytest

from tests.faults import breaking
from tests.faults.arena import Arena
from tests.faults.drill import Drill, drill

pytestmark = pytest.mark.faults

Break = Callable[[Drill, float], Awaitable[None]]

FAULTS: dict[str, Break] = {
    "memcached killed": lambda running, seconds: breaking.kill(running, "memcached-eu-m2", seconds=seconds),
    "memcached stopped": lambda running, seconds: breaking.stop(running, "memcached-us-m2", seconds=seconds),
    "memcached cut off": lambda running, seconds: breaking.cut_off(
        running, "us:memcached-us-m1", "hold", seconds=seconds
    ),
    "cell killed": lambda running, seconds: breaking.kill(running, "cell-us-2", seconds=seconds),
    "cell stopped": lambda running, seconds: breaking.stop(running, "cell-eu-2", seconds=seconds),
    "cell flushed": lambda running, seconds: breaking.flush(running, "us-1"),
    "cell cut off": lambda running, seconds: breaking.cut_off(
        running, "us:cell-eu-1", "lose", seconds=seconds
    ),
    "queue killed": lambda running, seconds: breaking.kill(running, "queue-us", seconds=seconds),
    "queue stopped": lambda running, seconds: breaking.stop(running, "queue-us", seconds=seconds),
    "feed cut off": lambda running, seconds: breaking.cut_off(
        running, "eu:queue-us", "hold", seconds=seconds
    ),
    "tail lost": lambda running, seconds: breaking.lose_the_tail(running, "eu"),
    "fences trimmed": lambda running, seconds: breaking.trim_fences_past(running, "us-a", "eu"),
    "instance killed": lambda running, seconds: breaking.kill(running, "instance-eu-b", seconds=seconds),
    "instance stopped": lambda running, seconds: breaking.stop_instance(running, "us-b", seconds=seconds),
}
"""Faults by name."""

OF_ONE_PROCESS = ({"queue killed", "queue stopped"}, {"fences trimmed", "tail lost"})
"""Faults that are not combined, because one has no process to break while the other runs."""

PAIRS = [pair for pair in combinations(sorted(FAULTS), 2) if set(pair) not in OF_ONE_PROCESS]

ROUNDS = 2


async def test_two_faults_at_a_time(field: Arena) -> None:
    seed = int(os.environ.get("DRILL_SEED", random.randrange(10_000)))
    dice = random.Random(seed)
    rounds = dice.sample(PAIRS, ROUNDS)
    async with drill(field, f"two at a time (DRILL_SEED={seed})", seconds=16, seed=seed) as running:
        await running.warm()
        for pair in rounds:
            await asyncio.gather(
                *(late(dice.uniform(0, 1), FAULTS[fault], running, dice.uniform(1, 2.5)) for fault in pair)
            )
            await running.recovers("nothing more", lambda: True)


async def late(after: float, fault: Break, running: Drill, seconds: float) -> None:
    await asyncio.sleep(after)
    await fault(running, seconds)
