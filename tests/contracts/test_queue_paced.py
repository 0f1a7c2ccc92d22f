"""Paced fences are told to every reader while they are in force, however long ago their items were trimmed."""

from cachesvc.changes.contract import FenceBatch
from cachesvc.model.fence import Fence
from tests.contracts.queue_benches import RETENTION, QueueBench

SHORT = 0.01
MINUTE = 60_000_000
BIG = (1 << 64) - 1


async def test_paced_fences_arrive_as_they_were_published(queue: QueueBench) -> None:
    fences = [
        Fence(BIG, 1, over=MINUTE),
        Fence(2, 2, True, over=1),
        Fence(3, 3, namespace="ü,\n", over=MINUTE),
        Fence(4, 4),
    ]
    assert await queue.delivered(fences) == fences


async def test_a_new_reader_is_told_of_those_whose_items_are_gone(queue: QueueBench) -> None:
    now = await queue.now_us()
    paced = [
        Fence(BIG, now, over=MINUTE),
        Fence(BIG, now, over=2 * MINUTE),
        Fence(3, now, namespace="docs", over=MINUTE),
    ]
    await queue.stream().publish([*paced, Fence(4, now)])
    await queue.stream().publish([paced[0], Fence(5, now)])
    await queue.trim_fences(1)
    start = await queue.stream().open()
    assert sorted(start.fences, key=lambda fence: (fence.namespace, fence.over)) == paced


async def test_one_is_in_force_for_its_window_and_the_retention(queue: QueueBench) -> None:
    """As long as a copy may be held that is older than it."""
    now = await queue.now_us()
    stream = queue.stream()
    await stream.publish([Fence(1, now, over=MINUTE)])
    await queue.pass_time(RETENTION.seconds + 50)
    assert len((await stream.open()).fences) == 1
    await queue.pass_time(20)
    assert list((await stream.open()).fences) == []


async def test_a_reader_that_meets_a_gap_is_told_of_them(queue: QueueBench) -> None:
    paced = Fence(1, await queue.now_us(), over=MINUTE)
    reader, publisher = queue.stream(), queue.stream()
    await publisher.publish([Fence(2, 2)])
    await reader.open()
    await publisher.publish([paced])
    await publisher.publish([Fence(3, 3)])
    await queue.trim_fences(1)
    batch = await reader.read(wait_seconds=SHORT)
    assert batch == FenceBatch([paced], None, gap=True, position=batch.position, report=True)
    assert list((await reader.read(wait_seconds=SHORT)).fences) == [Fence(3, 3)]
