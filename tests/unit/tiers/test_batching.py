"""The batcher: who leaves together, who waits, and what a caller that goes away changes (nothing)."""

import asyncio
from collections.abc import Sequence

import pytest

from cachesvc.model.errors import TierError, TierTimeoutError, TierUnavailableError
from cachesvc.tiers.batching import Batcher


class Server:
    """Answers `item × 10`; records its batches. With `gate`, a batch is answered when the test opens it."""

    def __init__(self, *, gated: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.gates: list[asyncio.Event] = []
        self.gated = gated
        self.error: Exception | None = None

    async def run(self, items: list[int]) -> Sequence[int]:
        self.batches.append(list(items))
        if self.gated:
            self.gates.append(asyncio.Event())
            await self.gates[-1].wait()
        if self.error is not None:
            raise self.error
        return [item * 10 for item in items]


async def turns(number: int = 5) -> None:
    """Let everything that is ready run."""
    for _ in range(number):
        await asyncio.sleep(0)


async def test_items_of_one_tick_leave_together_and_each_gets_its_own_answer() -> None:
    server = Server()
    batcher = Batcher(server.run, 100)
    answers = await asyncio.gather(batcher.submit(1), batcher.submit_many([2, 3]), batcher.submit(4))
    assert list(answers) == [10, [20, 30], 40]
    assert server.batches == [[1, 2, 3, 4]]


async def test_what_comes_while_a_batch_is_in_flight_leaves_together_in_the_next() -> None:
    server = Server(gated=True)
    batcher = Batcher(server.run, 100)
    first = batcher.submit(1)
    await turns()
    later = [batcher.submit(2), batcher.submit(3)]
    await turns()
    assert server.batches == [[1]]
    server.gates[0].set()
    await turns()
    assert server.batches == [[1], [2, 3]]
    server.gates[1].set()
    assert await asyncio.gather(first, *later) == [10, 20, 30]


async def test_a_caller_just_answered_travels_with_the_next_batch() -> None:
    server = Server(gated=True)
    batcher = Batcher(server.run, 100)

    async def one_after_the_other() -> None:
        await batcher.submit(1)
        await batcher.submit(2)

    caller = asyncio.ensure_future(one_after_the_other())
    await turns()
    waiter = batcher.submit(3)
    server.gates[0].set()
    await turns()
    assert server.batches == [[1], [3, 2]]
    server.gates[1].set()
    await asyncio.gather(caller, waiter)


async def test_with_two_in_flight_the_second_does_not_wait_for_the_first() -> None:
    server = Server(gated=True)
    batcher = Batcher(server.run, 100, in_flight=2)
    orders = []
    for item in (1, 2, 3):
        orders.append(batcher.submit(item))
        await turns()
    assert server.batches == [[1], [2]]
    server.gates[1].set()
    await turns()
    assert server.batches == [[1], [2], [3]]
    server.gates[0].set()
    server.gates[2].set()
    assert await asyncio.gather(*orders) == [10, 20, 30]


async def test_batches_are_bounded_and_keep_the_order() -> None:
    server = Server()
    batcher = Batcher(server.run, 3)
    await asyncio.gather(*(batcher.submit(item) for item in range(8)))
    assert server.batches == [[0, 1, 2], [3, 4, 5], [6, 7]]


async def test_an_order_that_fits_is_not_split() -> None:
    server = Server()
    batcher = Batcher(server.run, 4)
    await asyncio.gather(batcher.submit_many([1, 2, 3]), batcher.submit_many([4, 5]), batcher.submit(6))
    assert server.batches == [[1, 2, 3], [4, 5, 6]]


async def test_an_order_larger_than_a_batch_travels_in_several_and_is_answered_once() -> None:
    server = Server()
    batcher = Batcher(server.run, 4)
    assert await batcher.submit_many(range(10)) == [item * 10 for item in range(10)]
    assert [len(batch) for batch in server.batches] == [4, 4, 2]


async def test_an_empty_order_is_answered_without_a_batch() -> None:
    server = Server()
    assert await Batcher(server.run, 4).submit_many([]) == []
    assert server.batches == []


@pytest.mark.parametrize("leavers", [0, 1, 2, 3])
@pytest.mark.parametrize("sent", [False, True], ids=["waiting", "in flight"])
async def test_callers_that_leave_do_not_disturb_the_batch(leavers: int, sent: bool) -> None:
    server = Server(gated=True)
    batcher = Batcher(server.run, 100)
    orders: list[asyncio.Future[object]] = [batcher.submit(1), batcher.submit_many([2, 3]), batcher.submit(4)]  # type: ignore[list-item]  # answers of different shape
    if sent:
        await turns()
    for order in orders[:leavers]:
        order.cancel()
    await turns()
    server.gates[0].set()
    assert await asyncio.gather(*orders[leavers:]) == [10, [20, 30], 40][leavers:]
    server.gated = False
    assert await batcher.submit(5) == 50
    assert server.batches == [[1, 2, 3, 4], [5]]


async def test_leaving_a_large_order_leaves_its_other_parts_alone() -> None:
    server = Server()
    batcher = Batcher(server.run, 2)
    large, small = batcher.submit_many(range(6)), batcher.submit(9)
    large.cancel()
    assert await small == 90
    assert [len(batch) for batch in server.batches] == [2, 2, 2, 1]


async def test_when_too_many_wait_an_order_is_refused_at_once_with_a_value() -> None:
    server = Server(gated=True)
    batcher = Batcher(server.run, 10, max_waiting=3, name="mc-0 gets")
    in_flight = batcher.submit(0)
    await turns()
    waiting = batcher.submit_many([1, 2])
    refused = await batcher.submit_many([3, 4])
    taken = batcher.submit(5)
    also_refused = await batcher.submit(6)
    assert [str(refusal) for refusal in refused] == ["mc-0 gets: more than 3 items wait"] * 2
    assert isinstance(also_refused, TierUnavailableError)
    server.gates[0].set()
    await turns()
    server.gates[1].set()
    assert list(await asyncio.gather(in_flight, waiting, taken)) == [0, [10, 20], 50]
    assert batcher.statistics().refused == 3


async def test_a_tier_error_of_the_exchange_is_the_value_of_every_item() -> None:
    server = Server()
    server.error = TierTimeoutError("mc-0", "no answer")
    batcher = Batcher(server.run, 2)
    single, many = await asyncio.gather(batcher.submit(1), batcher.submit_many([2, 3, 4]))
    assert single is server.error
    assert many == [server.error] * 3


async def test_a_defect_is_raised_to_every_caller_and_the_batcher_goes_on() -> None:
    server = Server()
    server.error = ZeroDivisionError("a defect")
    batcher = Batcher(server.run, 2)
    raised = await asyncio.gather(batcher.submit(1), batcher.submit_many([2, 3, 4]), return_exceptions=True)
    assert list(raised) == [server.error, server.error]
    server.error = None
    assert await batcher.submit(5) == 50


async def test_a_wrong_number_of_results_is_a_defect_and_nobody_gets_anothers() -> None:
    async def forgetful(items: list[int]) -> Sequence[int]:
        return items[1:]

    batcher = Batcher(forgetful, 10)
    raised = await asyncio.gather(batcher.submit(1), batcher.submit(2), return_exceptions=True)
    assert [type(error) for error in raised] == [RuntimeError, RuntimeError]


async def test_closing_fails_what_waits_refuses_what_comes_and_waits_for_what_is_in_flight() -> None:
    server = Server(gated=True)
    batcher = Batcher(server.run, 2, name="mc-0 gets")
    in_flight = batcher.submit(1)
    await turns()
    waiting = [batcher.submit_many([2, 3]), batcher.submit_many([4])]
    closing = asyncio.ensure_future(batcher.close())
    await turns()
    assert not closing.done()
    assert [str(answer[0]) for answer in await asyncio.gather(*waiting)] == ["mc-0 gets: closed"] * 2
    assert isinstance(await batcher.submit(5), TierError)
    server.gates[0].set()
    await closing
    assert await in_flight == 10
    assert server.batches == [[1]]


async def test_statistics_and_repr_tell_the_state() -> None:
    server = Server(gated=True)
    batcher = Batcher(server.run, 10, name="mc-0 gets")
    orders = [batcher.submit(1), batcher.submit(2)]
    await turns()
    orders.append(batcher.submit(3))
    seen = batcher.statistics()
    assert (seen.batches, seen.items, seen.waiting, seen.in_flight) == (1, 2, 1, 1)
    assert repr(batcher) == "<Batcher mc-0 gets [1 waiting, 1 in flight]>"
    server.gates[0].set()
    await turns()
    server.gates[1].set()
    await asyncio.gather(*orders)
    await turns()
    seen = batcher.statistics()
    assert (seen.batches, seen.items, seen.waiting, seen.in_flight) == (2, 3, 0, 0)


@pytest.mark.parametrize(("max_batch", "max_waiting", "in_flight"), [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_bounds_below_one_are_refused_when_it_is_built(
    max_batch: int, max_waiting: int, in_flight: int
) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Batcher(Server().run, max_batch, max_waiting=max_waiting, in_flight=in_flight)


@pytest.mark.parametrize("together", [False, True])
async def test_a_result_whose_caller_has_gone_is_given_to_unclaimed(together: bool) -> None:
    server = Server(gated=True)
    dropped: list[tuple[Sequence[int], Sequence[int | TierError]]] = []
    batcher = Batcher(server.run, 100, unclaimed=lambda items, results: dropped.append((items, results)))
    leaves = batcher.submit_many([1, 2]) if together else batcher.submit(1)
    stays = batcher.submit(3)
    await turns()
    leaves.cancel()
    server.gates[0].set()
    assert await stays == 30
    assert dropped == ([([1, 2], [10, 20])] if together else [([1], [10])])


async def test_the_results_of_a_call_in_parts_whose_caller_has_gone_are_given_to_unclaimed() -> None:
    server = Server(gated=True)
    dropped: list[tuple[Sequence[int], Sequence[int | TierError]]] = []
    batcher = Batcher(server.run, 2, unclaimed=lambda items, results: dropped.append((items, results)))
    leaves = batcher.submit_many([1, 2, 3])
    await turns()
    server.gates[0].set()
    await turns()
    leaves.cancel()
    server.gates[1].set()
    await turns()
    assert dropped == [([1, 2], [10, 20]), ([3], [30])]


async def test_an_order_of_more_items_than_may_wait_is_taken_by_an_idle_server() -> None:
    server = Server()
    batcher = Batcher(server.run, 10, max_waiting=30)
    assert await batcher.submit_many(range(100)) == [item * 10 for item in range(100)]
    assert [len(batch) for batch in server.batches] == [10] * 10
    assert batcher.statistics().refused == 0


async def test_it_is_refused_while_too_many_wait() -> None:
    server = Server(gated=True)
    batcher = Batcher(server.run, 10, max_waiting=3)
    in_flight = batcher.submit(0)
    await turns()
    waiting = batcher.submit_many([1, 2, 3])
    refused = await batcher.submit_many(range(100))
    assert all(isinstance(refusal, TierUnavailableError) for refusal in refused)
    server.gates[0].set()
    await turns()
    server.gates[1].set()
    assert list(await asyncio.gather(in_flight, waiting)) == [0, [10, 20, 30]]


@pytest.mark.parametrize("together", [True, False])
async def test_a_batch_is_bounded_by_the_weight_of_its_items(together: bool) -> None:
    server = Server()
    batcher: Batcher[int, int] = Batcher(server.run, 100, weigh=sum, most_weight=10)
    items = [4, 4, 4, 25, 1, 1, 1, 1]
    answers = (
        await batcher.submit_many(items)
        if together
        else await asyncio.gather(*(batcher.submit(item) for item in items))
    )
    assert list(answers) == [item * 10 for item in items]
    assert server.batches == [[4, 4], [4], [25], [1, 1, 1, 1]]
    assert batcher.statistics().waiting == 0


async def test_calls_of_several_items_share_a_batch_up_to_its_weight() -> None:
    server = Server()
    batcher: Batcher[int, int] = Batcher(server.run, 100, weigh=sum, most_weight=10)
    await asyncio.gather(batcher.submit_many([3, 3]), batcher.submit_many([2, 2]), batcher.submit_many([1]))
    assert server.batches == [[3, 3, 2, 2], [1]]
