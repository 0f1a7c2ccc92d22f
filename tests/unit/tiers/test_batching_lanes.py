"""The lanes of a batcher: namespaces take turns, and none takes all the room."""

import asyncio
from collections.abc import Sequence

from cachesvc.model.errors import TierError, TierUnavailableError
from cachesvc.tiers.batching import Batcher

Item = tuple[str, int]


class Server:
    """Answers each item with itself, when the test says so; records its batches."""

    def __init__(self) -> None:
        self.batches: list[list[Item]] = []
        self._gates: list[asyncio.Event] = []

    async def run(self, items: list[Item]) -> Sequence[Item]:
        self.batches.append(list(items))
        self._gates.append(asyncio.Event())
        await self._gates[-1].wait()
        return items

    async def answer(self, count: int = 1) -> None:
        """Answers so many batches, one after the other."""
        for _ in range(count):
            for _ in range(5):
                await asyncio.sleep(0)
            for gate in self._gates:
                gate.set()
        for _ in range(5):
            await asyncio.sleep(0)

    def namespaces(self) -> list[str]:
        """The namespaces of each batch, in the order of its items, each named once in a row."""
        return ["".join(dict.fromkeys(name for name, _ in batch)) for batch in self.batches]


def batcher(server: Server, most: int, max_waiting: int = 65_536) -> Batcher[Item, Item]:
    return Batcher(server.run, most, lane_of=lambda item: item[0], max_waiting=max_waiting)


def items(namespace: str, count: int) -> list[Item]:
    return [(namespace, number) for number in range(count)]


async def test_a_namespace_with_much_to_read_delays_another_by_one_batch() -> None:
    server = Server()
    made = batcher(server, 10)
    much = made.submit_many(items("a", 50))
    await asyncio.sleep(0)
    few = made.submit_many(items("b", 3))
    await server.answer(3)
    assert server.namespaces()[:3] == ["a", "a", "b"]
    assert await few == items("b", 3)
    await server.answer(6)
    assert await much == items("a", 50)


async def test_small_calls_of_many_namespaces_share_a_batch() -> None:
    server = Server()
    made = batcher(server, 100)
    first = made.submit(("a", 0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting = [made.submit((name, 1)) for name in "abcdef"]
    await server.answer(2)
    assert server.namespaces() == ["a", "abcdef"]
    assert await asyncio.gather(first, *waiting) == [("a", 0), *((name, 1) for name in "abcdef")]


async def test_lanes_that_are_always_full_take_turns() -> None:
    server = Server()
    made = batcher(server, 4)
    calls = [made.submit_many(items(name, 12)) for name in "abc"]
    await server.answer(10)
    assert server.namespaces() == ["a", "b", "c"] * 3
    assert await asyncio.gather(*calls) == [items(name, 12) for name in "abc"]


async def test_a_batch_of_several_lanes_is_bounded_by_weight() -> None:
    server = Server()
    made = Batcher(
        server.run,
        100,
        lane_of=lambda item: item[0],
        weigh=lambda weighed: sum(weight for _, weight in weighed),
        most_weight=10,
    )
    first = made.submit(("x", 0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    calls = [made.submit_many(part) for part in ([("a", 6)], [("b", 3)], [("c", 4)], [("a", 2)])]
    await server.answer(4)
    assert server.batches[1:] == [[("a", 6), ("a", 2)], [("b", 3), ("c", 4)]]
    await asyncio.gather(first, *calls)


async def test_what_an_exchange_had_no_room_for_leaves_first() -> None:
    server = Server()
    made = batcher(server, 2)
    first = made.submit(("a", 0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    later = made.submit_many(items("a", 4))
    again = made.resubmit([("a", 90), ("a", 91), ("a", 92)])
    await server.answer(6)
    assert server.batches[1:3] == [[("a", 90), ("a", 91)], [("a", 92)]]
    assert await again == [("a", 90), ("a", 91), ("a", 92)]
    assert (await first, await later) == (("a", 0), items("a", 4))
    assert made.statistics().waiting == 0


async def test_a_single_item_without_room_in_its_exchange_is_sent_again_first() -> None:
    server, later = Server(), ("later", 0)
    rooms = {("a", 1), ("b", 2), ("a", 3), ("a", 4)}

    async def run(items: list[Item]) -> Sequence[Item]:
        await server.run(items)
        left = [item in rooms for item in items]
        rooms.difference_update(items)
        return [later if has_none else item for item, has_none in zip(items, left, strict=True)]

    made: Batcher[Item, Item] = Batcher(run, 5, lane_of=lambda item: item[0], again=later)
    calls = [made.submit(item) for item in [("a", 0), ("a", 1), ("b", 2), ("a", 3), ("a", 4)]]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    others = made.submit_many(items("a", 3))
    calls.pop().cancel()
    await server.answer(5)
    assert server.batches[1:] == [[("a", 3), ("a", 1), ("b", 2)], items("a", 3)]
    assert await asyncio.gather(*calls) == [("a", 0), ("a", 1), ("b", 2), ("a", 3)]
    assert await others == items("a", 3)
    assert made.statistics().waiting == 0


async def test_a_closed_batcher_sends_nothing_again() -> None:
    server, later = Server(), ("later", 0)

    async def run(items: list[Item]) -> Sequence[Item]:
        await server.run(items)
        return [later]

    made: Batcher[Item, Item] = Batcher(run, 5, again=later)
    asked = made.submit(("a", 0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    closing = asyncio.create_task(made.close())
    await server.answer()
    assert isinstance(await asked, TierUnavailableError)
    await closing


async def test_nobody_takes_all_the_room_for_waiting_items() -> None:
    server = Server()
    made = batcher(server, 10, max_waiting=80)
    made.submit(("a", 0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    taken = [made.submit(("a", number)) for number in range(100)]
    refused = [future for future in taken if future.done()]
    assert len(refused) == 29, "71 of 80: beyond 7/8 of it there is no place for one lane"
    assert isinstance(await refused[0], TierUnavailableError)
    assert not made.submit(("b", 0)).done()
    await server.answer(20)
    await made.close()


async def test_a_closed_batcher_refuses_what_waits_in_every_lane() -> None:
    server = Server()
    made = batcher(server, 1)
    running = made.submit(("a", 0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting = [made.submit((name, 1)) for name in "abc"]
    closing = asyncio.create_task(made.close())
    await asyncio.sleep(0)
    assert all(isinstance(refused, TierError) for refused in await asyncio.gather(*waiting))
    assert isinstance((await made.resubmit([("a", 2)]))[0], TierError)
    await server.answer()
    assert await running == ("a", 0)
    await closing
    assert made.statistics().waiting == 0
