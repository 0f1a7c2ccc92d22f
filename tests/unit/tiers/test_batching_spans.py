"""Batches in traces: one span per exchange, in the first caller's trace, linked from the others; nobody's context leaks."""

import asyncio
from collections.abc import Sequence

import pytest

from cachesvc.model.errors import TierError, TierTimeoutError, TierUnavailableError
from cachesvc.telemetry.traces.exchange_span import ExchangeSpan, Server
from cachesvc.telemetry.traces.trace import Span, current, under
from cachesvc.tiers.batching import Batcher
from tests.doubles.spans import Recording, unsampled

EXCHANGE = ExchangeSpan(Server("memcached", "m1", "10.0.0.1", 11211), "get")


class Exchanges:
    """Answers every item with itself, or what `answer` says; remembers the span that each batch ran under."""

    def __init__(self) -> None:
        self.under: list[Span | None] = []
        self.answer: TierError | None = None
        self.raises: BaseException | None = None

    async def run(self, items: list[int]) -> Sequence[int | TierError]:
        self.under.append(current())
        await asyncio.sleep(0)
        if self.raises is not None:
            raise self.raises
        return items if self.answer is None else [self.answer] * len(items)


@pytest.fixture
def server() -> Exchanges:
    return Exchanges()


@pytest.fixture
def batcher(server: Exchanges) -> Batcher[int, int]:
    return Batcher(server.run, 100, exchange_span=EXCHANGE)


@pytest.fixture
def recording() -> Recording:
    return Recording()


async def test_an_exchange_is_a_client_span_under_its_callers(
    server: Exchanges, batcher: Batcher[int, int], recording: Recording
) -> None:
    caller = recording.root()
    with under(caller):
        await batcher.submit(1)
    (span,) = recording.spans
    assert (span.name, span.kind, span.parent_id, span.error) == (
        "get m1",
        "client",
        caller.context.span_id,
        "",
    )
    assert span.context.trace_id == caller.context.trace_id
    assert span.attributes == {
        "db.system.name": "memcached",
        "db.operation.name": "get",
        "server.address": "10.0.0.1",
        "server.port": 11211,
    }
    assert server.under == [span]


async def test_a_batch_is_in_the_trace_of_its_first_caller_and_linked_from_the_others(
    batcher: Batcher[int, int], recording: Recording
) -> None:
    callers = [recording.root() for _ in range(3)]
    orders = [batcher.submit(0)]  # of nobody who is traced
    for caller in callers:
        with under(caller):
            orders.append(batcher.submit(1))
    with under(callers[1]):
        many = batcher.submit_many([1, 2])
    await asyncio.gather(*orders, many)
    (span,) = recording.spans
    assert span.parent_id == callers[0].context.span_id
    assert [caller.links for caller in callers] == [[], [span.context], [span.context]]
    assert span.attributes["db.operation.batch.size"] == 6


async def test_nothing_sampled_is_no_span(server: Exchanges, batcher: Batcher[int, int]) -> None:
    with under(unsampled()):
        await batcher.submit(1)
    await batcher.submit_many([1, 2])
    assert server.under == [None, None]


async def test_a_batch_of_others_does_not_run_in_the_trace_of_who_came_before(
    server: Exchanges, batcher: Batcher[int, int], recording: Recording
) -> None:
    with under(recording.root()):
        first = batcher.submit(1)
        await asyncio.sleep(0)  # the first batch was sent
    other = batcher.submit(2)  # its batch is scheduled by the end of the first
    await asyncio.gather(first, other)
    assert [span and span.name for span in server.under] == ["get m1", None]


async def test_parts_of_a_large_order_are_a_span_each(server: Exchanges, recording: Recording) -> None:
    batcher: Batcher[int, int] = Batcher(server.run, 2, exchange_span=EXCHANGE)
    with under(recording.root()):
        assert await batcher.submit_many([1, 2, 3]) == [1, 2, 3]
    assert [span.attributes.get("db.operation.batch.size") for span in recording.spans] == [2, None]


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (TierTimeoutError("m1", "late"), "timeout"),
        (TierUnavailableError("m1", "gone"), "unavailable"),
        (TierError("m1", "too large"), "refused"),
    ],
)
async def test_a_failure_is_named_whether_it_is_raised_or_answered(
    server: Exchanges, batcher: Batcher[int, int], recording: Recording, failure: TierError, error: str
) -> None:
    with under(recording.root()):
        server.answer = failure
        await batcher.submit_many([1, 2])
        server.answer, server.raises = None, failure
        await batcher.submit(1)
    assert [span.error for span in recording.spans] == [error, error]


async def test_an_exchange_that_is_answered_in_part_has_not_failed(recording: Recording) -> None:
    async def run(items: list[int]) -> Sequence[int | TierError]:
        return [TierError("m1", "too large"), *items[1:]]

    with under(recording.root()):
        await Batcher(run, 100, exchange_span=EXCHANGE).submit_many([1, 2])
    assert [span.error for span in recording.spans] == [""]


async def test_a_defect_is_named_by_its_class(
    server: Exchanges, batcher: Batcher[int, int], recording: Recording
) -> None:
    server.raises = ZeroDivisionError()
    with under(recording.root()):
        await asyncio.gather(batcher.submit(1), return_exceptions=True)
    assert [span.error for span in recording.spans] == ["ZeroDivisionError"]


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        (Server.memcached("m1", "cache.local:11211"), ("cache.local", 11211)),
        (Server.memcached("m1", "unix:/run/m1"), ("/run/m1", None)),
        (Server.redis("c1", "redis://:secret@cell.local:6380/2"), ("cell.local", 6380)),
        (Server.redis("c1", "unix:///run/c1?db=0"), ("/run/c1", None)),
        (Server.redis("c1", "redis://cell.local/0"), ("cell.local", None)),
    ],
)
def test_a_server_is_named_by_its_address_without_secrets(
    server: Server, expected: tuple[str, int | None]
) -> None:
    assert (server.address, server.port) == expected
