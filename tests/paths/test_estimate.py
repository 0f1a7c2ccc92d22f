"""An estimate looks at a bounded part of L1."""

import pytest

from cachesvc.model.change import Change
from cachesvc.model.entry import Entry, Key
from cachesvc.paths import estimate
from tests.paths.world import Instance


@pytest.fixture
async def here() -> Instance:
    instance = Instance()
    now = instance.clock.now_us()
    for i in range(4000):
        tags = ("even",) if i % 2 == 0 else ()
        instance.l1.put(Key.of("docs", f"k{i}"), Entry(b"v", now, now + 10**7, 0, 0, tags=tags))
    return instance


async def test_keys_and_namespaces_are_counted_without_a_walk(
    here: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(here.l1, "copies", lambda: pytest.fail("walked over L1"))
    for change, held in (
        (Change("docs", all=True), 4000),
        (Change("aside", all=True), 0),
        (Change("docs", keys=("k1", "k1", "k2", "none")), 2),
    ):
        assert (await here.invalidator.estimate(change)).l1_entries == held


async def test_tags_are_looked_for_in_a_part_of_a_large_l1(
    here: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = 0
    copies = here.l1.copies

    def counting():  # type: ignore[no-untyped-def]
        nonlocal looked_at
        for shard in copies():
            looked_at += len(shard)
            yield shard

    monkeypatch.setattr(here.l1, "copies", counting)
    assert (await here.invalidator.estimate(Change("docs", keys=("k0",), tags=("even",)))).l1_entries == 2000
    shards = sum(1 for _ in copies())
    looked_at = 0
    monkeypatch.setattr(estimate, "MOST_LOOKED_AT", 1000)
    held = (await here.invalidator.estimate(Change("docs", tags=("even",)))).l1_entries
    assert looked_at <= max(1000 + 4000 / shards * 1.5, 4000 / shards)
    assert 1600 <= held <= 2400
