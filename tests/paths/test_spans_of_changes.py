"""Change → fence → merge in traces: what is done for a change is linked to whoever made it, in every instance."""

import asyncio

import pytest

from cachesvc.model.change import Change
from cachesvc.telemetry.traces.trace import Span, SpanContext, under
from tests.doubles.spans import Recording, unsampled
from tests.paths.running import Running, started, stop
from tests.paths.world import FarSide

pytestmark = pytest.mark.looptime

CHANGE = Change("docs", keys=("a",))


def linked_to(context: SpanContext, spans: list[Span]) -> list[str]:
    return sorted(span.name for span in spans if context in span.links)


async def test_an_invalidate_call_is_one_trace_and_each_instance_links_its_merge_to_it() -> None:
    far, recording = FarSide(), Recording()
    one, two = await started(far, "one", "two", recorder=recording)
    request = recording.root("cache.invalidate")
    with under(request):
        await one.paths.invalidate("a")
    await asyncio.sleep(1)
    assert recording.tree(request).split() == ["cache.invalidate", "cache.apply", "cache.publish"]
    assert linked_to(request.context, recording.spans) == ["cache.merge", "cache.merge"]
    assert len({span.context.trace_id for span in recording.spans}) == 3, "a merge is a trace of its own"
    await stop(one, two)


async def test_what_a_producer_announces_is_linked_to_its_trace_when_applied_and_when_merged() -> None:
    far, recording = FarSide(), Recording()
    one, two = await started(far, "one", "two", recorder=recording)
    producer = Recording().root("order placed").context
    await one.paths.changes.append(CHANGE, traceparent=str(producer))
    await asyncio.sleep(1)
    assert linked_to(producer, recording.spans) == ["cache.apply", "cache.merge", "cache.merge"]
    applying = recording.named("cache.apply")
    assert recording.tree(applying).split() == ["cache.apply", "cache.publish"]
    assert applying.attributes == {
        "cachesvc.changes": 1,
        "cachesvc.cells": "c1",
        "cachesvc.namespace": "docs",
    }
    assert [(span.kind, span.parent_id) for span in recording.spans if span.name == "cache.merge"] == [
        ("consumer", 0)
    ] * 2
    await stop(one, two)


async def test_a_merge_says_whose_fences_and_how_late() -> None:
    far, recording = FarSide(), Recording()
    (one,) = await started(far, "one", recorder=recording)
    one.paths.stream.down = True
    await asyncio.sleep(1)
    producer = recording.root()
    with under(producer):
        await Running(far, "other").paths.invalidate("a")
    await asyncio.sleep(2)
    one.paths.stream.down = False
    await asyncio.sleep(1)
    merging = recording.named("cache.merge")
    lag = merging.attributes.pop("cachesvc.lag_ms")
    assert merging.attributes == {"cachesvc.feed": "here", "cachesvc.fences": 1}
    assert isinstance(lag, float)
    assert 2000 <= lag <= 3000
    await stop(one)


async def test_changes_that_are_applied_together_are_one_span_linked_to_every_sampled_producer() -> None:
    far, recording = FarSide(), Recording()
    one = Running(far, "one", recording)
    producers = [Recording().root().context, Recording().root().context]
    for context in (*producers, unsampled().context):
        await one.paths.changes.append(CHANGE, traceparent=str(context))
    await one.paths.changes.append(Change("aside", all=True))
    one.start()
    await asyncio.sleep(1)
    applying = recording.named("cache.apply")
    assert applying.links == producers
    assert applying.attributes["cachesvc.changes"] == 4
    assert "cachesvc.namespace" not in applying.attributes
    await stop(one)


async def test_a_change_that_its_call_did_not_finish_is_linked_to_that_call_by_who_does() -> None:
    far, recording = FarSide(), Recording()
    (one,) = await started(far, "one", recorder=recording)
    request = recording.root("cache.invalidate")
    dying = Running(far, "dying").paths.announcer
    with under(request):
        await dying.announce(CHANGE)
    await asyncio.sleep(5)
    assert linked_to(request.context, recording.spans) == ["cache.apply", "cache.merge"]
    await stop(one)


async def test_a_home_that_is_away_is_an_error_of_applying_and_its_return_is_no_span() -> None:
    """Nor are the tries in between, one a second: a parked target may be of many changes."""
    far, recording = FarSide(), Recording()
    (one,) = await started(far, "one", recorder=recording)
    far.cell.down = True
    await one.paths.changes.append(CHANGE, traceparent=str(recording.root().context))
    await asyncio.sleep(5)
    assert recording.names == ["cache.publish", "cache.apply", "cache.merge"]
    applying = recording.named("cache.apply")
    assert (applying.error, applying.attributes["cachesvc.missed"]) == ("home-unavailable", "c1")
    far.cell.down = False
    await asyncio.sleep(5)
    assert recording.names == ["cache.publish", "cache.apply", "cache.merge"]
    await stop(one)


async def test_a_queue_that_is_away_is_the_error_of_publishing() -> None:
    far, recording = FarSide(), Recording()
    (one,) = await started(far, "one", recorder=recording)
    request = recording.root("cache.invalidate")
    one.paths.stream.down = True
    with under(request), pytest.raises(Exception, match="could not be published"):
        await one.paths.invalidate("a")
    assert recording.named("cache.publish").error == "TierUnavailableError"
    await stop(one)


async def test_nothing_is_recorded_of_what_nobody_samples() -> None:
    far, recording = FarSide(), Recording()
    (one,) = await started(far, "one", recorder=recording)
    await one.paths.invalidate("a")
    with under(unsampled()):
        await one.paths.invalidate("b")
    await one.paths.changes.append(CHANGE)
    await asyncio.sleep(1)
    assert one.tally.changes == 1
    assert recording.spans == []
    await stop(one)


async def test_an_unsampled_caller_is_handed_on_with_the_change() -> None:
    one = Running(FarSide(), "one").paths
    caller = unsampled()
    with under(caller):
        await one.announcer.announce(CHANGE)
    (item,) = await one.changes.reclaim("two", idle_seconds=0, count=1)
    assert item.trace == caller.context


async def test_an_instance_without_a_recorder_passes_on_whose_a_fence_is() -> None:
    far, recording = FarSide(), Recording()
    silent, heard = Running(far, "silent"), Running(far, "heard", recording)
    silent.start()
    heard.start(consuming=False)
    await asyncio.sleep(2)
    producer = Recording().root().context
    await silent.paths.changes.append(CHANGE, traceparent=str(producer))
    await asyncio.sleep(1)
    assert linked_to(producer, recording.spans) == ["cache.merge"]
    await stop(silent, heard)


async def test_what_was_there_before_an_instance_started_is_in_no_trace() -> None:
    far, recording = FarSide(), Recording()
    (one,) = await started(far, "one")
    with under(Recording().root()):
        await one.paths.invalidate("a")
    late = Running(far, "late", recording)
    late.start(consuming=False)
    await asyncio.sleep(1)
    assert late.feed.has_caught_up
    assert recording.spans == []
    await stop(one, late)
