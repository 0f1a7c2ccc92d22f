"""The home of a key: its partition by the hash-tag rule, then its pin, then the hash over active cells."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachesvc import placement as module
from cachesvc.model import Target
from cachesvc.placement import Placement, partition
from cachesvc.topology import Cell, Namespace, Region, Topology


def topology(*, pins: dict[str, str] | None = None, **active: bool) -> Topology:
    cells = {name: Cell(region="eu", url=f"redis://h/{name}", active=active[name]) for name in active}
    return Topology(1, {"eu": Region(queue="redis://q/0")}, cells, {"pages": Namespace(owner="web")}, pins or {})


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("plain", "plain"),
        ("{ws-7}:block:42", "ws-7"),
        ("block:{ws-7}", "ws-7"),
        ("{a}{b}", "a"),
        ("{}:{b}", "{}:{b}"),
        ("{{a}}", "{a"),
        ("a{b", "a{b"),
        ("}a{b}", "b"),
        ("", ""),
    ],
)
def test_partitions_follow_the_rule_of_redis_hash_tags(key: str, expected: str) -> None:
    assert partition(key) == expected


@given(st.text("{}ab", max_size=12))
def test_the_partition_of_a_partition_is_itself(key: str) -> None:
    assert partition(partition(key)) == partition(key)


def test_keys_of_a_partition_share_their_home() -> None:
    placement = Placement(topology(c1=True, c2=True, c3=True))
    assert len({placement.home(f"{{ws-{n}}}:block") for n in range(50)}) == 3
    assert all(placement.home(f"{{ws-{n}}}:block") == placement.home(f"ws-{n}") for n in range(50))


def test_homes_are_the_same_in_every_release() -> None:
    """Golden: a change here moves partitions to another cell."""
    placement = Placement(topology(c1=True, c2=True, c3=True))
    assert " ".join(placement.home(f"{{ws-{n}}}:a") for n in range(12)) == "c2 c3 c2 c1 c3 c3 c2 c3 c1 c1 c2 c1"


def test_a_pin_wins_over_the_hash_and_over_inactivity() -> None:
    free = Placement(topology(c1=True, c2=True))
    pinned = Placement(topology(c1=True, c2=True, old=False, pins={"ws-1": "old", "ws-2": "c1"}))
    assert (pinned.home("{ws-1}:a"), pinned.home("{ws-2}:a")) == ("old", "c1")
    assert all(pinned.home(f"ws-{n}") == free.home(f"ws-{n}") for n in range(3, 100))


def test_an_inactive_cell_takes_no_partition_by_hash() -> None:
    placement = Placement(topology(c1=True, c2=False, c3=True))
    assert Counter(placement.home(f"ws-{n}") for n in range(200)).keys() == {"c1", "c3"}


def test_a_target_is_applied_where_its_entries_are_at_home() -> None:
    placement = Placement(topology(c1=True, c2=True, spare=False, old=False, pins={"ws-1": "old"}))
    everywhere = ("c1", "c2", "old")
    assert placement.cells == everywhere
    assert placement.cells_of(Target.key("pages", "{ws-1}:a")) == ("old",)
    assert placement.cells_of(Target.tag("pages", "user:{ws-1}")) == ("old",)
    assert placement.cells_of(Target.tag("pages", "user:1")) == everywhere
    assert placement.cells_of(Target.whole("pages")) == everywhere


def test_a_key_without_a_partition_has_one_home() -> None:
    placement = Placement(topology(c1=True, c2=True))
    assert placement.cells_of(Target.key("pages", "plain")) == (placement.home("plain"),)


def test_what_is_remembered_is_bounded_and_changes_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 10)
    placement = Placement(topology(c1=True, c2=True, c3=True))
    homes = [placement.home(f"ws-{n}") for n in range(100)]
    assert "20 remembered" in repr(placement)
    assert [placement.home(f"ws-{n}") for n in range(100)] == homes
