"""Many changes of many keys at once: applied part by part, and gone on with where they stopped."""

import asyncio
from unittest import mock

import pytest

from cachesvc.changes import consume
from cachesvc.model.change import Change
from cachesvc.model.errors import TierUnavailableError
from tests.paths.running import Running, started, stop
from tests.paths.world import FarSide

pytestmark = pytest.mark.looptime
TARGETS = 1000


async def appended(one: Running, changes: int) -> None:
    for number in range(changes):
        keys = tuple(f"{number}-{key}" for key in range(TARGETS))
        await one.paths.changes.append(Change("docs", keys=keys))


async def test_a_hundred_changes_of_a_thousand_keys_are_applied_in_parts() -> None:
    far = FarSide()
    (one,) = await started(far, "one")
    await appended(one, 100)
    await asyncio.sleep(5)
    assert (one.tally.changes, one.tally.waiting, one.tally.backlog) == (100, 0, 0)
    sizes = [size for method, size in far.cell.calls if method == "fence_many" and size >= TARGETS]
    assert sum(sizes) == 100 * TARGETS
    assert max(sizes) <= consume.MOST_TARGETS
    await stop(one)


async def test_what_was_published_before_a_failure_is_not_done_again() -> None:
    far = FarSide()
    one = Running(far, "one")
    await appended(one, 20)
    publish = one.paths.stream.publish
    calls = 0

    async def failing(*arguments: object, **named: object) -> str:
        nonlocal calls
        calls += bool(named.get("done"))
        if calls == 2 and named.get("done"):
            raise TierUnavailableError("queue", "down for a moment")
        return str(await publish(*arguments, **named))

    with mock.patch.object(one.consumer._stream, "publish", failing):
        one.start()
        await asyncio.sleep(6)
    assert one.tally.changes == 20
    sizes = [size for method, size in far.cell.calls if method == "fence_many" and size >= TARGETS]
    assert sum(sizes) == 28 * TARGETS, "the part that failed is done again, and nothing else"
    await stop(one)


async def test_a_change_with_more_targets_than_a_part_is_a_part_by_itself() -> None:
    far = FarSide()
    (one,) = await started(far, "one")
    keys = tuple(f"k{key}" for key in range(consume.MOST_TARGETS + 1))
    await one.paths.changes.append(Change("docs", keys=("a",)))
    await one.paths.changes.append(Change("docs", keys=keys))
    await one.paths.changes.append(Change("docs", keys=("b",)))
    await asyncio.sleep(5)
    assert one.tally.changes == 3
    assert ("fence_many", len(keys)) in far.cell.calls
    await stop(one)
