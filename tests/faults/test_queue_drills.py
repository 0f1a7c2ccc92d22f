"""A region's queue goes away, comes back without its tail, or is trimmed past a reader."""

import pytest

from cachesvc.changes.contract import epoch_of
from cachesvc.commands.check.history import Merged
from tests.faults import breaking
from tests.faults.arena import Arena
from tests.faults.drill import Drill, drill

pytestmark = pytest.mark.faults


async def test_both_queues_stopped_for_longer_than_max_lag(field: Arena) -> None:
    async with drill(field, "both queues stopped, continued", seconds=9) as running:
        await running.warm()
        await breaking.stop_queues(running, "eu", "us")
        await is_believed_again(running)


async def test_queue_killed_and_restarted_from_its_log(field: Arena) -> None:
    async with drill(field, "queue killed, restarted from its log", seconds=9) as running:
        await running.warm()
        await breaking.kill(running, "queue-eu", seconds=breaking.LONG)
        await is_believed_again(running)


async def test_queue_comes_back_without_its_tail(field: Arena) -> None:
    epochs = await field.counted_in("eu", "cachesvc_changes_epochs_total")
    async with drill(field, "queue comes back without its tail", seconds=8) as running:
        await running.warm()
        await breaking.lose_the_tail(running, "eu")
        await is_believed_again(running)
    assert await field.counted_in("eu", "cachesvc_changes_epochs_total") > epochs, "the loss was announced"


async def test_fences_trimmed_past_a_stopped_instance(field: Arena) -> None:
    gaps = await field.counted("eu-b", "cachesvc_feed_gaps_total")
    async with drill(field, "fences trimmed past an instance", seconds=8) as running:
        await running.warm()
        await breaking.trim_fences_past(running, "eu-b", "eu")
        await is_believed_again(running)
    assert await field.counted("eu-b", "cachesvc_feed_gaps_total") > gaps


async def test_a_queue_fails_over_and_back_while_the_old_server_lives(field: Arena) -> None:
    epochs = await field.counted_in("eu", "cachesvc_changes_epochs_total")
    async with drill(field, "queue fails over and back", seconds=11) as running:
        await running.warm()
        await breaking.fail_over_and_back(running, "eu")
        await is_believed_again(running)
    assert await field.counted_in("eu", "cachesvc_changes_epochs_total") >= epochs + 2


async def test_a_queue_split_between_two_servers_that_both_live(field: Arena) -> None:
    gaps = await field.counted("us-a", "cachesvc_feed_gaps_total")
    async with drill(field, "queue split: two masters of one name", seconds=9) as running:
        await running.warm()
        await breaking.split_queue(running, "eu", "us")
        await is_believed_again(running)
    epochs = {
        epoch_of(record.position)
        for record in running.records
        if isinstance(record, Merged) and record.region == "eu"
    }
    assert len(epochs) == 2, "the checker tells positions of the two servers apart"
    assert await field.counted("us-a", "cachesvc_feed_gaps_total") >= gaps + 2


async def test_changes_trimmed_before_they_were_done(field: Arena) -> None:
    lost = await field.counted_in("eu", "cachesvc_changes_lost_total")
    async with drill(field, "changes trimmed", seconds=8) as running:
        await running.warm()
        await breaking.trim_changes(running, "eu")
        await is_believed_again(running)
    assert await field.counted_in("eu", "cachesvc_changes_lost_total") > lost, "the loss was noticed"


async def is_believed_again(running: Drill) -> None:
    """Waits until every instance answers hits from L1 again.

    After the loss of a feed such hits would be refused.
    """
    await running.recovers(
        "all answer from L1 again",
        lambda: (
            len({read.instance for read in running.reads(since=running.mended, tier="l1")})
            == len(running.arena.fleet.instances)
        ),
    )
