"""Paced fences are told to every reader while they are in force, however long ago their items were trimmed."""

import pytest

from cachesvc.changes.contract import FenceBatch
from cachesvc.changes.redis import fences as redis_fences
from cachesvc.model.fence import EVERYTHING, Fence
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


# bounds ------------------------------------------------------------------------------------------


def everything(at: int) -> Fence:
    """The fence that stands for those for which there was no room."""
    return Fence(0, at, soft=True, namespace=EVERYTHING, over=1)


async def told(queue: QueueBench) -> list[Fence]:
    """The paced fences that a new follower is told of."""
    return sorted((await queue.stream().open()).fences, key=lambda fence: (fence.namespace, fence.digest))


async def test_those_without_room_become_one_that_concerns_everything(queue: QueueBench) -> None:
    async with queue.bounded(paced=4) as small:
        now = await small.now_us()
        fences = [Fence(n, now - n, over=MINUTE + 2 * n) for n in range(1, 6)]
        stream = small.stream()
        await stream.publish(fences[:4])
        assert await told(small) == fences[:4]
        count = (await small.changes.completion()).count
        assert (count.paced, count.paced_given_up) == (4, 0)
        await stream.publish(fences[4:])
        assert await told(small) == [*fences[2:], everything(now - 1)], "the newest `at` of the two"
        await stream.publish([Fence(9, now, over=3 * MINUTE)])
        assert await told(small) == [*fences[3:], Fence(9, now, over=3 * MINUTE), everything(now - 1)]
        count = (await small.changes.completion()).count
        assert (count.paced, count.paced_given_up) == (4, 2)


async def test_what_stands_for_them_ends_with_the_last_of_them(queue: QueueBench) -> None:
    async with queue.bounded(paced=2) as small:
        now = await small.now_us()
        await small.stream().publish([Fence(n, now, over=n * MINUTE) for n in range(1, 5)])
        await small.pass_time(RETENTION.seconds + 2.5 * 60)
        assert await told(small) == [Fence(4, now, over=4 * MINUTE), everything(now)]
        await small.pass_time(60)
        assert await told(small) == [Fence(4, now, over=4 * MINUTE)]


async def test_under_a_new_epoch_a_bounded_number_is_published_again(
    queue: QueueBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_fences, "REMEMBER_PACED", 4)
    now = await queue.now_us()
    fences = [Fence(n, now, over=MINUTE + n) for n in range(1, 8)]
    publisher = queue.stream()
    for fence in fences:
        await publisher.publish([fence])
    await queue.lose_all()
    await publisher.publish([Fence(99, now)])
    found = await told(queue)
    if found:  # a queue in memory is told nothing again
        assert found[-1] == everything(now)
        assert 2 <= len(found) <= 5
        assert found[-2] == fences[-1]
