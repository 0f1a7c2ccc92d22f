"""Changes and fences come twice, in the wrong order, and long after they were new."""

import asyncio
from random import Random

import pytest
from redis.asyncio import Redis

from tests.faults.arena import Arena
from tests.faults.drill import drill, until
from tests.faults.replay import Recorder

pytestmark = pytest.mark.faults

SEED = 7


async def test_events_duplicated_shuffled_and_replayed_from_an_hour_ago(field: Arena) -> None:
    async with (
        drill(field, "events and fences replayed, shuffled", seconds=12, seed=SEED) as running,
        Redis(port=field.fleet.port("queue-eu")) as redis,
    ):
        recorder = Recorder(redis)
        following = asyncio.create_task(recorder.follow())
        await running.warm()
        await until(
            "there is enough to replay", lambda: len([s for s, _ in recorder.items if s == "changes"]) >= 20
        )
        following.cancel()
        with running.fault("everything comes again"):
            for _ in range(3):
                await recorder.give_again(Random(SEED))
                await asyncio.sleep(0.5)
        await running.recovers(
            "all answer from L1 again",
            lambda: (
                len({read.instance for read in running.reads(since=running.mended, tier="l1")})
                == len(field.fleet.instances)
            ),
        )
