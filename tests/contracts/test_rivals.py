"""Consumers tell cells and queues of themselves, and are told of their rivals."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from cachesvc.changes.contract import Attendance, Rival
from cachesvc.tiers.l3.contract import Use
from tests.contracts import cell_benches, queue_benches
from tests.contracts.cell_benches import CellBench
from tests.contracts.queue_benches import QueueBench
from tests.doubles.servers import RealServer

LIVE_US = 300_000


@pytest.fixture
async def bench(server: RealServer | None) -> AsyncIterator[CellBench]:
    async with cell_benches.memory_bench() if server is None else cell_benches.redis_bench(server) as found:
        yield found


def me(incarnation: str, name: str = "i0", *cells: str) -> Attendance:
    return Attendance(incarnation, name, cells, LIVE_US)


async def rivals(queue: QueueBench, who: Attendance) -> list[Rival]:
    await queue.now_us()
    return list((await queue.changes.completion(who)).rivals)


async def test_a_consumer_alone_has_no_rival(queue: QueueBench) -> None:
    for _ in range(2):
        assert await rivals(queue, me("a", "i0", "c1=R1")) == []


async def test_two_of_one_name_are_rivals_once_both_were_heard_of(queue: QueueBench) -> None:
    assert await rivals(queue, me("a")) == []
    assert await rivals(queue, me("b")) == [], "the one before may have died"
    assert await rivals(queue, me("a")) == [Rival("instance", "b", "i0", was_first=False)]
    assert await rivals(queue, me("b")) == [Rival("instance", "a", "i0", was_first=True)]


async def test_names_with_spaces_are_whole_names(queue: QueueBench) -> None:
    await rivals(queue, me("a", "i 0"))
    await rivals(queue, me("b", "i 1"))
    assert await rivals(queue, me("a", "i 0")) == []


@pytest.mark.parametrize(
    ("mine", "others"),
    [
        (("c1=R1", "c2=R2"), ("c1=R8", "c2=R9")),
        (("c1=R1", "c2=R2"), ("c1=R8", "c2=")),
        (("c1=R1",), ("k1=R1",)),
        (("c1=",), ("k1=",)),
    ],
)
async def test_consumers_without_a_cell_in_common_are_of_two_deployments(
    queue: QueueBench, mine: tuple[str, ...], others: tuple[str, ...]
) -> None:
    assert await rivals(queue, me("a", "i0", *mine)) == []
    assert await rivals(queue, me("b", "i1", *others)) == [Rival("deployment", "a", "i0", was_first=True)]
    assert await rivals(queue, me("a", "i0", *mine)) == [Rival("deployment", "b", "i1", was_first=False)]


@pytest.mark.parametrize(
    ("mine", "others"),
    [
        (("c1=R1", "c2=R2"), ("c1=R1", "c2=R9")),
        (("c1=R1", "c2="), ("c1=", "c2=R2")),
        (("c1=R1", "c2=R2"), ("c2=R2", "c3=R3")),
        (("c1=R1", "c2="), ("c2=R2", "c3=R3")),
        ((), ("c1=R1",)),
    ],
)
async def test_one_server_in_common_is_enough_and_what_was_not_reached_says_nothing(
    queue: QueueBench, mine: tuple[str, ...], others: tuple[str, ...]
) -> None:
    await rivals(queue, me("a", "i0", *mine))
    assert await rivals(queue, me("b", "i1", *others)) == []
    assert await rivals(queue, me("a", "i0", *mine)) == []


async def test_the_dead_are_no_rivals(queue: QueueBench) -> None:
    await rivals(queue, me("a", "i0", "c1=R1"))
    for _ in range(4):
        await asyncio.sleep(0.1)
        if isinstance(queue, queue_benches.MemoryBench):
            queue.clock.advance(seconds=0.1)
    assert await rivals(queue, me("b", "i1", "c1=R9")) == []


async def test_a_cell_tells_which_other_queues_are_used_for_a_region(bench: CellBench) -> None:
    async def others(*uses: Use) -> list[list[str]]:
        return [list(found) for found in (await bench.cell.claim(uses, LIVE_US)).others]

    assert await others(Use("eu", "a", "q1"), Use("us", "a", "q7")) == [[], []]
    assert await others(Use("eu", "b", "q1")) == [[]]
    assert await others(Use("us", "b", "q7"), Use("eu", "c", "q 2")) == [[], ["q1"]]
    assert await others(Use("eu", "a", "q1"), Use("us", "a", "q7")) == [["q 2"], []]
    assert await others(Use("eu", "a", "q 2")) == [["q1"]]
    assert await others(Use("eu", "b", "q 2")) == [[]]


async def test_a_cell_keeps_the_note_of_a_journal_for_as_long_as_the_note_says(bench: CellBench) -> None:
    """Whether its instance lives or not; of two notes, the one with the larger number."""
    live_us = 20_000

    async def seen() -> list[str]:
        await bench.pass_time(0.03)
        return list((await bench.cell.claim([Use("eu", "a", "q1")], live_us)).others[0])

    async def note(number: int, counts_us: int) -> str:
        queue = f"journal:0f:{number}:{counts_us}"
        await bench.cell.claim([Use("eu", "journal-0f", queue)], live_us)
        return queue

    noted = await note(7, 60_000_000)
    assert await seen() == [noted]
    await note(6, 0)
    assert await seen() == [noted]
    await note(8, 0)
    assert await seen() == []
    await note(9, 1)
    assert await seen() == []


async def test_a_cell_tells_which_server_it_is(bench: CellBench) -> None:
    first = (await bench.cell.claim([], LIVE_US)).server
    assert first
    assert (await bench.cell.claim([], LIVE_US)).server == first
