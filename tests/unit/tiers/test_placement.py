"""The home of a key: its partition by the hash-tag rule, then its pin, then the hash over active cells."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cachesvc.config.topology import Cell, Former, Namespace, Region, Topology
from cachesvc.model.change import Target
from cachesvc.model.partition import partition
from cachesvc.tiers.l3 import placement as module
from cachesvc.tiers.l3.contract import Cell as CellProtocol
from cachesvc.tiers.l3.homes import Homes
from cachesvc.tiers.l3.placement import Placement, as_it_was
from tests.doubles.clocks import ManualClock
from tests.doubles.memory_cell import MemoryCell


def topology(*, pins: dict[str, str] | None = None, former: Former | None = None, **active: bool) -> Topology:
    cells = {name: Cell(region="eu", url=f"redis://h/{name}", active=active[name]) for name in active}
    return Topology(
        1, {"eu": Region(queue="redis://q/0")}, cells, {"pages": Namespace(owner="web")}, pins or {}, former
    )


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
    assert (
        " ".join(placement.home(f"{{ws-{n}}}:a") for n in range(12)) == "c2 c3 c2 c1 c3 c3 c2 c3 c1 c1 c2 c1"
    )


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


def test_the_number_of_a_placement_is_the_same_in_every_release() -> None:
    """Golden: fences carry it, and instances of two releases must not take each other's placement for another."""
    plain = Placement(topology(c1=True, c2=True))
    pinned = Placement(topology(c1=True, c2=True, old=False, pins={"ws-1": "old", "wß": "c1"}))
    assert (plain.id, pinned.id) == (2484994667, 3080554056)


def test_documents_that_differ_only_in_what_places_nothing_have_one_number() -> None:
    one = topology(c1=True, c2=True, pins={"a": "c1", "b": "c2"})
    elsewhere = {
        name: replace(cell, url=f"{cell.url}/elsewhere", weight=1)
        for name, cell in reversed(one.cells.items())
    }
    other = replace(
        one,
        version=9,
        cells={"spare": Cell(region="eu", url="redis://s", active=False, weight=7.0), **elsewhere},
        pins={"b": "c2", "a": "c1"},
        namespaces={},
        former=Former({"spare": 1.0}),
    )
    assert Placement(one).id == Placement(other).id


def test_what_places_otherwise_has_another_number() -> None:
    base = topology(c1=True, c2=True, c3=False)
    heavier = replace(base, cells={**base.cells, "c1": replace(base.cells["c1"], weight=1.0000001)})
    others = [
        base,
        heavier,
        topology(c1=True, c2=False, c3=False),
        topology(c1=True, c2=True, c3=True),
        topology(c1=True, c2=True, pins={"ws-1": "c1"}),
        topology(c1=True, c2=True, pins={"ws-1": "c2"}),
        topology(c1=True, c2=True, pins={"ws-2": "c1"}),
    ]
    ids = {Placement(other).id for other in others}
    assert len(ids) == len(others)
    assert all(0 < id_ < 1 << 32 for id_ in ids)


def test_while_partitions_move_the_homes_they_left_are_known() -> None:
    moving = topology(
        c1=True,
        c2=True,
        old=False,
        pins={"ws-2": "c2"},
        former=Former({"old": 1.0}, {"ws-1": "c1", "ws-2": "c2"}),
    )
    placement = Placement(moving)
    assert placement.former_cells_of(Target.key("pages", "{ws-3}:a")) == ("old",)
    assert placement.former_cells_of(Target.key("pages", "{ws-2}:a")) == (), "it stays where it was"
    assert placement.former_cells_of(Target.tag("pages", "user:{ws-3}")) == ("old",)
    assert placement.former_cells_of(Target.tag("pages", "user:1")) == ("old",), (
        "the others apply it as homes of now"
    )
    assert placement.former_cells_of(Target.whole("pages")) == ("old",)
    assert Placement(topology(c1=True)).former_cells_of(Target.whole("pages")) == ()


def test_the_former_placement_is_the_one_that_the_former_document_had() -> None:
    """By its number, with the weights of then: so the homes that are asked are those that were used."""
    before = topology(c1=True, c2=True, c3=False, pins={"ws-1": "c3"})
    before = replace(before, cells={**before.cells, "c2": replace(before.cells["c2"], weight=2.5)})
    after = topology(c1=False, c2=True, c3=True, former=Former({"c2": 2.5, "c1": 1.0}, {"ws-1": "c3"}))
    former = Placement(after).former
    assert former is not None
    assert former.id == Placement(before).id != Placement(after).id
    assert all(former.home(f"ws-{n}") == Placement(before).home(f"ws-{n}") for n in range(50))
    assert as_it_was(before) is before


def of_two_regions(**prefixes: tuple[str, ...]) -> Topology:
    """Cells `eu-1` to `eu-3` and `us-1` to `us-3`; these prefixes by region."""
    regions = {
        name: Region(queue=f"redis://{name}/0", partitions=prefixes.get(name, ())) for name in ("eu", "us")
    }
    cells = {f"{name}-{n}": Cell(name, f"redis://{name}-{n}/0") for name in regions for n in (1, 2, 3)}
    return Topology(1, regions, cells, {"pages": Namespace(owner="web")})


def test_a_partition_whose_prefix_names_a_region_is_homed_there_and_all_others_stay() -> None:
    before = Placement(of_two_regions())
    after = Placement(of_two_regions(eu=("eu.",), us=("us.", "na.")))
    for prefix, region in (("eu.", "eu"), ("us.", "us"), ("na.", "us")):
        homes = Counter(after.home(f"{{{prefix}ws-{n}}}:a") for n in range(300))
        assert sorted(homes) == [f"{region}-{n}" for n in (1, 2, 3)]
        assert after.cells_of(Target.tag("pages", f"{{{prefix}ws-1}}:t")) == (after.home(f"{prefix}ws-1"),)
        assert {name for name, _ in after.scores(f"{prefix}ws-1")} == set(homes)
    assert all(after.home(f"ws-{n}") == before.home(f"ws-{n}") for n in range(300))
    assert len({Placement(of_two_regions(eu=those)).id for those in ((), ("eu.",), ("eu-",))}) == 3


def test_the_longest_prefix_counts_and_a_pin_before_it() -> None:
    placement = Placement(replace(of_two_regions(eu=("a",), us=("a.b",)), pins={"a.b.1": "eu-2"}))
    assert {placement.home(f"a.{n}")[:2] for n in range(50)} == {"eu"}
    assert {placement.home(f"a.b.{n}")[:2] for n in range(2, 50)} == {"us"}
    assert placement.home("{a.b.1}:x") == "eu-2"


def test_the_former_placement_has_the_prefixes_of_then() -> None:
    before = of_two_regions(eu=("eu.",))
    cells = dict.fromkeys(before.cells, 1.0)
    after = replace(of_two_regions(us=("eu.",)), former=Former(cells, partitions={"eu": ("eu.",)}))
    former = Placement(after).former
    assert former is not None
    assert former.id == Placement(before).id != Placement(after).id
    target = Target.key("pages", "{eu.ws-1}:a")
    assert (former.home("eu.ws-1"),) == Placement(after).former_cells_of(target)


def test_homes_give_the_cells_of_now_and_of_before() -> None:
    cells: dict[str, CellProtocol] = {name: MemoryCell(name, ManualClock(), 0) for name in ("c1", "c2")}
    placement = Placement(topology(c1=False, c2=True, former=Former({"c1": 1.0})))
    homes = Homes(placement, cells)
    target = Target.key("pages", "a")
    assert homes.of_target(target) == [cells["c2"]]
    assert homes.former_of_target(target) == [cells["c1"]]
    assert (homes.has_former, homes.placement_id) == (True, placement.id)
    assert not Homes(Placement(topology(c1=True)), cells).has_former
