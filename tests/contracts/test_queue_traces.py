"""The traces that changes and fences come from: kept from the producer to every reader, whatever the queue."""

import pytest

from cachesvc.changes.contract import FenceStream, OpenChange
from cachesvc.model.change import Change
from cachesvc.model.fence import Fence
from cachesvc.telemetry.traces.trace import SpanContext
from tests.contracts.queue_benches import QueueBench
from tests.doubles.spans import Recording, unsampled

CHANGE = Change("docs", keys=("a",))
SHORT = 0.01


async def taken(queue: QueueBench) -> OpenChange:
    (item,) = await queue.changes.take("c1", count=10, wait_seconds=SHORT)
    return item


async def reading(queue: QueueBench) -> FenceStream:
    reader = queue.stream()
    await reader.open()
    await reader.read(wait_seconds=0)  # its first position
    return reader


def contexts(number: int) -> list[SpanContext]:
    return [Recording().root().context for _ in range(number)]


async def test_a_change_keeps_the_trace_it_was_made_in_sampled_or_not(queue: QueueBench) -> None:
    for context in (*contexts(1), unsampled().context):
        await queue.changes.append(CHANGE, traceparent=str(context))
        item = await taken(queue)
        assert (item.trace, item.changes) == (context, (CHANGE,))


async def test_whoever_takes_it_over_knows_the_trace_too(queue: QueueBench) -> None:
    (context,) = contexts(1)
    await queue.changes.append(CHANGE, traceparent=str(context))
    item = await taken(queue)
    (reclaimed,) = await queue.changes.reclaim("c2", idle_seconds=0, count=1)
    assert reclaimed == item


async def test_a_change_without_a_trace_has_none(queue: QueueBench) -> None:
    await queue.changes.append(CHANGE)
    assert (await taken(queue)).trace is None


@pytest.mark.parametrize(
    "traceparent",
    [b'""', b'"00-0-0-01"', b"7", b"null", b'["00"]', b'"00-' + b"0" * 32 + b'-1234567890abcdef-01"'],
)
async def test_no_change_is_lost_over_what_is_no_traceparent(queue: QueueBench, traceparent: bytes) -> None:
    await queue.append_event(
        b'{"specversion":"1.0","id":"1","source":"/s","type":"dev.cachesvc.change.v1","traceparent":%s,'
        % traceparent
        + b'"data":{"namespace":"docs","keys":["a"]}}'
    )
    item = await taken(queue)
    assert (item.changes, item.reason, item.trace) == ((CHANGE,), "", None)


async def test_every_reader_of_a_fence_is_told_whose_it_is(queue: QueueBench) -> None:
    readers = [await reading(queue), await reading(queue)]
    causes = contexts(2)
    await queue.stream().publish([Fence(1, 1)], causes=causes)
    for reader in readers:
        batch = await reader.read(wait_seconds=SHORT)
        assert ([fence.at for fence in batch.fences], batch.causes, batch.gap) == ([1], causes, False)


async def test_a_publication_names_eight_traces_however_many_items_and_causes_it_has(
    queue: QueueBench,
) -> None:
    reader = await reading(queue)
    causes = contexts(500)
    await queue.stream().publish(
        [Fence(number, 1, placement=number % 2) for number in range(1, 11)], causes=causes
    )
    batch = await reader.read(wait_seconds=SHORT)
    assert (len(batch.fences), batch.causes) == (10, causes[:8])


async def test_a_fence_that_nobody_traces_says_nothing_of_it(queue: QueueBench) -> None:
    reader = await reading(queue)
    await queue.stream().publish([Fence(1, 1)])
    assert (await reader.read(wait_seconds=SHORT)).causes == []


async def test_a_publication_without_fences_has_no_causes(queue: QueueBench) -> None:
    assert await queue.stream().publish([], causes=contexts(1)) == ""


async def test_each_item_of_fences_has_its_time_and_a_heartbeat_has_none(queue: QueueBench) -> None:
    reader = await reading(queue)
    times = [await queue.now_us()]
    for number in (1, 2):
        await queue.stream().publish([Fence(number, 1)])
        await queue.beat(5)
        times.append(await queue.now_us())
    batch = await reader.read(wait_seconds=SHORT)
    assert len(batch.published) == 2
    for earliest, published, latest in zip(times, batch.published, times[1:], strict=False):
        assert earliest // 1000 <= published // 1000 <= latest // 1000
