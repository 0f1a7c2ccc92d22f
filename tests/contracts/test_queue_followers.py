"""How far each instance has read a region's fences: positions, who is asked to say where it is, and who is waited for."""

import pytest

from cachesvc.changes.contract import FenceStream, FollowerPosition, position_of
from cachesvc.model.fence import Fence
from tests.contracts.queue_benches import QueueBench

SHORT = 0.01
ONE, TWO = ("here", "i1"), ("there", "i/2")


async def merged(stream: FenceStream) -> str:
    """Read and report everything; the position."""
    while (
        (batch := await stream.read(wait_seconds=SHORT)).fences or batch.gap or batch.complete_to is not None
    ):
        await stream.report(batch.position)
    return batch.position


async def standing(stream: FenceStream) -> dict[str, str]:
    return {f"{reader.region}/{reader.instance}": reader.position for reader in await stream.followers()}


async def test_positions_grow_in_the_order_of_publication(queue: QueueBench) -> None:
    reader, publisher = queue.stream(max_batch=1), queue.stream()
    start = await reader.open()
    assert start.position
    published = [await publisher.publish([Fence(at, at)]) for at in (1, 2, 3)]
    seen = [start.position]
    while position_of(seen[-1]) < position_of(published[-1]):
        seen.append((await reader.read(wait_seconds=SHORT)).position)
    assert sorted(seen, key=position_of) == seen
    assert seen[-3:] == published


async def test_a_publication_of_many_items_is_at_the_last_of_them(queue: QueueBench) -> None:
    reader = queue.stream()
    position = await queue.stream().publish(
        [Fence(at, at, unapplied=at % 2 == 0, placement=at % 3) for at in range(1, 20)]
    )
    await reader.open()
    assert await merged(reader) == position


async def test_publishing_nothing_is_at_no_position(queue: QueueBench) -> None:
    assert await queue.stream().publish([]) == ""
    assert await queue.stream().publish([], report=True) == ""


async def test_a_new_reader_is_not_past_what_it_has_yet_to_read(queue: QueueBench) -> None:
    """Not even past the oldest item: whoever waits for that one would be told that it is merged."""
    position = await queue.stream().publish([Fence(1, 1)])
    reader = queue.stream(follower=ONE)
    start = await reader.open()
    assert position_of(start.position) < position_of(position)
    assert start.tail == position
    (registered,) = await queue.stream().followers()
    assert (registered.region, registered.instance) == ONE
    assert position_of(registered.position) < position_of(position)
    assert await merged(reader) == start.tail


async def test_the_reader_of_an_empty_stream_catches_up_with_its_tail(queue: QueueBench) -> None:
    reader = queue.stream()
    start = await reader.open()
    assert position_of(start.position) < position_of(start.tail)
    assert (await reader.read(wait_seconds=SHORT)).position == start.tail


async def test_readers_are_where_they_said_they_are(queue: QueueBench) -> None:
    one, two = queue.stream(follower=ONE), queue.stream(follower=TWO)
    await one.open()
    await two.open()
    await merged(two)
    first = await queue.stream().publish([Fence(1, 1)])
    await merged(one)
    found = await standing(queue.stream())
    assert found["here/i1"] == first
    assert position_of(found["there/i/2"]) < position_of(first)
    assert await merged(two) == first
    assert await standing(one) == {"here/i1": first, "there/i/2": first}


async def test_a_publisher_alone_is_no_reader(queue: QueueBench) -> None:
    stream = queue.stream()
    await stream.open()
    await merged(stream)
    await stream.report("1-1")
    assert list(await stream.followers()) == []


async def test_an_instance_that_starts_again_has_merged_nothing(queue: QueueBench) -> None:
    position = await queue.stream().publish([Fence(1, 1)])
    before = queue.stream(follower=ONE)
    await before.open()
    await merged(before)
    await queue.stream(follower=ONE).open()
    (found,) = await queue.stream().followers()
    assert position_of(found.position) < position_of(position)


async def test_who_is_silent_for_a_minute_is_waited_for_no_longer(queue: QueueBench) -> None:
    one, two = queue.stream(follower=ONE), queue.stream(follower=TWO)
    await one.open()
    await two.open()
    await queue.pass_time(40)
    await two.report("5-0")
    silent = {reader.instance: reader.silent_us for reader in await queue.stream().followers()}
    assert 40_000_000 <= silent["i1"] < 45_000_000
    assert 0 <= silent["i/2"] < 5_000_000
    await queue.pass_time(30)
    assert [reader.instance for reader in await queue.stream().followers()] == ["i/2"]
    await one.report("6-0")
    found = await standing(queue.stream())
    assert {who: position_of(where) for who, where in found.items()} == {
        "here/i1": (6, 0),
        "there/i/2": (5, 0),
    }


async def test_who_stops_is_waited_for_no_longer(queue: QueueBench) -> None:
    one, two = queue.stream(follower=ONE), queue.stream(follower=TWO)
    await one.open()
    await two.open()
    await two.report("5-0")
    await one.stop()
    found = await standing(two)
    assert {who: position_of(where) for who, where in found.items()} == {"there/i/2": (5, 0)}


async def test_who_has_left_before_a_loss_is_not_waited_for_after_it(queue: QueueBench) -> None:
    one, two = queue.stream(follower=ONE), queue.stream(follower=TWO)
    await one.open()
    await two.open()
    await two.report("5-0")
    await one.stop()
    await two.report("5-0")
    await queue.lose_all()
    assert await standing(two) == {"there/i/2": "0-0"}


async def test_a_queue_that_lost_its_readers_does_not_make_them_vanish(queue: QueueBench) -> None:
    """Whoever waits through an instance that has heard of them still waits for them."""
    one, two = queue.stream(follower=ONE), queue.stream(follower=TWO)
    await one.open()
    await two.open()
    await two.report("5-0")
    await one.report("5-0")
    await queue.lose_all()
    position = await queue.stream().publish([Fence(1, 1)])
    found = await standing(one)
    assert set(found) == {"here/i1", "there/i/2"}
    assert all(position_of(where) < position_of(position) for where in found.values())


async def test_a_position_from_before_a_loss_is_none_after_it(queue: QueueBench) -> None:
    """The new server's clock may be behind, and its ids smaller than those that were lost."""
    reader = queue.stream(follower=ONE)
    await reader.open()
    await queue.lose_all()
    await reader.report("9999999999999-0")
    assert await standing(queue.stream()) == {"here/i1": "0-0"}
    position = await queue.stream().publish([Fence(1, 1)])
    assert (await reader.read(wait_seconds=SHORT)).gap
    assert await merged(reader) == position
    assert await standing(queue.stream()) == {"here/i1": position}


async def test_readers_report_at_once_when_somebody_waits(queue: QueueBench) -> None:
    reader, publisher = queue.stream(), queue.stream()
    await reader.open()
    await merged(reader)
    await publisher.publish([Fence(1, 1)])
    assert not (await reader.read(wait_seconds=SHORT)).report
    await queue.beat(1, publisher)
    batch = await reader.read(wait_seconds=SHORT)
    assert (batch.complete_to, batch.report) == (1, False), "a heartbeat alone is in no hurry"
    await publisher.publish([Fence(at, at, placement=at % 2) for at in range(1, 5)], report=True)
    await publisher.publish([Fence(9, 9)])
    batch = await reader.read(wait_seconds=SHORT)
    assert (len(batch.fences), batch.report) == (5, True)


@pytest.mark.parametrize("how", ["trimmed", "lost"])
async def test_a_reader_reports_its_new_position_after_a_gap(queue: QueueBench, how: str) -> None:
    """Once its floor is up: until then its last word stands."""
    reader, publisher = queue.stream(max_batch=1, follower=ONE), queue.stream()
    first = await publisher.publish([Fence(1, 1)])
    await reader.open()
    await reader.report((await reader.read(wait_seconds=SHORT)).position)
    if how == "lost":
        await queue.lose_all()
    last = [await publisher.publish([Fence(at, at)]) for at in (2, 3)][-1]
    await queue.trim_fences(1)
    batch = await reader.read(wait_seconds=SHORT)
    assert (batch.gap, batch.report) == (True, True)
    assert position_of(batch.position) < position_of(last)
    assert await standing(queue.stream()) == ({"here/i1": first} if how == "trimmed" else {})
    await reader.report(batch.position)
    assert await standing(queue.stream()) == {"here/i1": batch.position}


async def test_a_reader_stands_by_its_region_and_name(queue: QueueBench) -> None:
    reader = queue.stream(follower=TWO)
    await reader.open()
    (found,) = await queue.stream().followers()
    assert found == FollowerPosition("there", "i/2", "0-0", found.silent_us)
