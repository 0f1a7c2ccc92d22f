"""The share of recent reads that an invalidation would touch."""

import random

import pytest

from cachesvc.model.change import Target
from cachesvc.model.entry import Entry, Key, tag_digests_of
from cachesvc.telemetry.popularity.hot_keys import HotKeys
from cachesvc.telemetry.popularity.read_sample import SIZE, ReadSample
from tests.doubles.clocks import ManualClock


def new_sample() -> ReadSample:
    return ReadSample(HotKeys(("pages", "posts"), ManualClock()), random.Random(7))


def entry(*tags: str) -> Entry:
    return Entry(b"v", 1, 2, tags=tags, tag_digests=tag_digests_of("pages", tags))


def test_a_read_is_touched_by_its_key_its_tags_and_its_namespace() -> None:
    sample = new_sample()
    sample.note(Key.of("pages", "a"), entry("menu"))
    sample.note(Key.of("pages", "b"), entry("menu", "footer"))
    sample.note(Key.of("posts", "a"), entry())
    sample.note(Key.of("posts", "b"), entry())
    shares = [
        sample.share({target.digest})
        for target in (
            Target.key("pages", "a"),
            Target.tag("pages", "menu"),
            Target.whole("posts"),
            Target.tag("pages", "other"),
        )
    ]
    assert shares == [0.25, 0.5, 0.5, 0.0]
    assert sample.share({Target.key("pages", "a").digest, Target.tag("pages", "menu").digest}) == 0.5, (
        "each read counts once"
    )


def test_without_reads_the_share_is_nothing() -> None:
    assert new_sample().share({1}) == 0.0


def test_only_the_newest_reads_are_remembered() -> None:
    sample = new_sample()
    for number in range(SIZE + 10):
        sample.note(Key.of("pages", str(number)), entry())
    assert len(sample) == SIZE
    assert sample.share({Target.key("pages", "0").digest}) == 0.0
    assert sample.share({Target.key("pages", str(SIZE)).digest}) == pytest.approx(1 / SIZE)
