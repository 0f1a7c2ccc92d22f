"""Reads in traces: what a flight does is in the trace of who started it, and who joins it is shown where."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from cachesvc.model.entry import Key
from cachesvc.model.errors import OriginError
from cachesvc.model.problems import ProblemKind
from cachesvc.model.requests import Outcome, ReadOptions
from cachesvc.telemetry.traces.trace import Span, under
from tests.doubles.loaders import loaded
from tests.doubles.spans import Recording, unsampled
from tests.paths.world import FarSide, Instance

pytestmark = pytest.mark.looptime

KEY = Key.of("docs", "a")


@pytest.fixture
async def instance() -> AsyncIterator[Instance]:
    one = Instance()
    yield one
    await one.tasks.stop()


@pytest.fixture
def recording() -> Recording:
    return Recording()


async def read(
    instance: Instance, span: Span | None, key: str = "a", ns: str = "docs", *, lease: bool = False
) -> Outcome:
    with under(span):
        options = ReadOptions(lease=lease, wait_seconds=1.0) if lease else ReadOptions()
        outcome = (await instance.get(key, ns, options)).outcome
    if span is not None:
        span.end()
    return outcome


async def test_a_load_is_a_span_under_its_reader(instance: Instance, recording: Recording) -> None:
    reader = recording.root()
    await read(instance, reader)
    await asyncio.sleep(1)
    load = recording.named("cache.load")
    assert (load.kind, load.parent_id, load.error) == ("internal", reader.context.span_id, "")
    assert load.attributes == {"cachesvc.namespace": "docs", "cachesvc.lease": "granted"}
    assert reader.attributes == {"cachesvc.lease": "granted"}


async def test_who_joins_a_flight_is_linked_to_it_and_one_that_is_not_traced_leaves_nothing(
    instance: Instance, recording: Recording
) -> None:
    instance.far.loader.hold()
    first, early, late = recording.root("first"), recording.root("early"), recording.root("late")
    reads = [asyncio.ensure_future(read(instance, span)) for span in (first, early, None, unsampled())]
    await asyncio.sleep(0.1)
    reads.append(asyncio.ensure_future(read(instance, late)))
    await asyncio.sleep(0.1)
    instance.far.loader.release()
    assert await asyncio.gather(*reads) == [Outcome.LOADED] * 5
    await asyncio.sleep(1)
    load = recording.named("cache.load")
    assert len(instance.far.loader.calls) == 1
    assert (early.links, early.attributes) == ([first.context], {"cachesvc.collapsed": True})
    assert late.links == [load.context], "it came when the load was under way"
    assert sorted(recording.names) == ["cache.load", "early", "first", "late"]


async def test_who_joins_a_flight_that_is_not_traced_knows_that_it_did(
    instance: Instance, recording: Recording
) -> None:
    instance.far.loader.hold()
    first = asyncio.ensure_future(read(instance, None))
    await asyncio.sleep(0.1)
    reader = recording.root()
    second = asyncio.ensure_future(read(instance, reader))
    await asyncio.sleep(0.1)
    instance.far.loader.release()
    await asyncio.gather(first, second)
    assert (reader.links, reader.attributes) == ([], {"cachesvc.collapsed": True})


async def test_one_key_twice_in_a_call_is_no_other_ones_flight(
    instance: Instance, recording: Recording
) -> None:
    reader = recording.root()
    with under(reader):
        await instance.reader.get_many((KEY, KEY))
    assert (reader.links, reader.attributes.get("cachesvc.collapsed")) == ([], None)


async def test_who_joins_many_flights_of_one_caller_has_one_link_to_it(
    instance: Instance, recording: Recording
) -> None:
    keys = [Key.of("docs", text) for text in "abc"]
    first, second = recording.root("first"), recording.root("second")

    async def read_all(span: Span) -> None:
        with under(span):
            await instance.reader.get_many(keys)

    await asyncio.gather(read_all(first), read_all(second))
    assert second.links == [first.context]


async def test_a_refresh_behind_a_stale_answer_is_in_the_trace_of_who_was_answered(
    instance: Instance, recording: Recording
) -> None:
    instance.far.loader.script("a", loaded(b"old", ttl_us=1_000_000, stale_for_us=60_000_000))
    await read(instance, None)
    await asyncio.sleep(5)
    instance.far.loader.hold()
    reader = recording.root()
    assert await read(instance, reader) is Outcome.STALE
    await asyncio.sleep(0.1)
    instance.far.loader.release()
    await asyncio.sleep(0.1)
    assert recording.names == ["cache.get", "cache.load"]
    assert recording.named("cache.load").parent_id == reader.context.span_id
    assert reader.attributes == {}, "nothing is added to a span that has ended"


async def test_a_failed_load_says_how(instance: Instance, recording: Recording) -> None:
    instance.far.loader.script("a", OriginError("no"), OriginError("late", kind=ProblemKind.ORIGIN_TIMEOUT))
    await read(instance, recording.root("one"))
    await read(instance, recording.root("two"))
    await asyncio.sleep(1)
    assert [span.error for span in recording.spans if span.name == "cache.load"] == [
        "origin-failed",
        "origin-timeout",
    ]


async def test_a_load_without_its_home_has_no_lease(instance: Instance, recording: Recording) -> None:
    instance.far.cell.down = True
    await read(instance, recording.root())
    await asyncio.sleep(1)
    assert recording.named("cache.load").attributes["cachesvc.lease"] == "none"


async def test_who_waits_for_anothers_fill_says_so(recording: Recording) -> None:
    far = FarSide()
    holder, waiter = Instance(far, name="one"), Instance(far, name="two")
    far.loader.hold()
    first = asyncio.ensure_future(read(holder, None))
    await asyncio.sleep(0.1)
    reader = recording.root()
    second = asyncio.ensure_future(read(waiter, reader))
    await asyncio.sleep(0.1)
    far.loader.release()
    await asyncio.gather(first, second)
    assert reader.attributes == {"cachesvc.lease": "waited"}
    assert recording.names == ["cache.get"], "the load is another instance's"
