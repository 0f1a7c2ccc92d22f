"""A region's queue goes away, comes back without its tail, or is trimmed past a reader."""

import asyncio
import os
from pathlib import Path

import pytest

from tests.faults.arena import MAX_LAG_SECONDS, Arena
from tests.faults.drill import drill

pytestmark = pytest.mark.faults

QUEUE = "queue-eu"


async def test_queue_stopped_for_longer_than_max_lag(field: Arena) -> None:
    async with drill(field, "queue stopped, continued", seconds=9) as running:
        await running.warm()
        with running.fault("queue stopped"):
            field.pause(QUEUE)
            await asyncio.sleep(2.5 * MAX_LAG_SECONDS)
            await nobody_is_believed(field)
            field.resume(QUEUE)
        await field.healthy()


async def test_queue_killed_and_restarted_from_its_log(field: Arena) -> None:
    async with drill(field, "queue killed, restarted from its log", seconds=9) as running:
        await running.warm()
        with running.fault("queue killed"):
            field.kill(QUEUE)
            await asyncio.sleep(2 * MAX_LAG_SECONDS)
            await nobody_is_believed(field)
            await field.start(QUEUE)
        await field.healthy()


async def test_queue_comes_back_without_its_tail(field: Arena) -> None:
    """As after a failover to a replica that lagged: the last second of changes and fences is not there any more."""
    async with drill(field, "queue comes back without its tail", seconds=9) as running, field.redis(QUEUE) as redis:
        await running.warm()
        log = log_of(field)
        kept = log.stat().st_size
        before = await redis.xinfo_stream("fences")
        with running.fault("queue loses its tail"):
            await running.written()
            after = await redis.xinfo_stream("fences")
            field.kill(QUEUE)
            os.truncate(log, kept)
            await field.start(QUEUE)
            restored = await redis.xinfo_stream("fences")
        assert before["last-generated-id"] <= restored["last-generated-id"] < after["last-generated-id"], "a tail was lost"
        await field.healthy()


async def test_fences_trimmed_past_a_stopped_instance(field: Arena) -> None:
    async with drill(field, "fences trimmed past an instance", seconds=9) as running, field.redis(QUEUE) as redis:
        await running.warm()
        gaps = await field.counted("eu-b", "cachesvc_feed_gaps_total")
        with running.fault("fences trimmed"):
            field.pause("instance-eu-b")
            await running.written()
            await redis.xtrim("fences", maxlen=1, approximate=False)
            field.resume("instance-eu-b")
        await field.healthy()
        assert await field.counted("eu-b", "cachesvc_feed_gaps_total") > gaps


def log_of(field: Arena) -> Path:
    """The file that the queue appends to."""
    (log,) = (field.fleet.run_dir / QUEUE / "appendonlydir").glob("*.incr.aof")
    return log


async def nobody_is_believed(field: Arena) -> None:
    """The fault is felt: every instance knows that it may be stale, and goes by `max_lag`."""
    for instance in field.fleet.instances:
        assert await field.counted(instance, "cachesvc_staleness_bound_seconds") > MAX_LAG_SECONDS
