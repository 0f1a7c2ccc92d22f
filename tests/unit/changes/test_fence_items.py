"""Items of the `fences` stream, byte by byte: every released form is read for ever."""

import struct

import msgspec
import pytest

from cachesvc.changes.redis import fence_items
from cachesvc.model.fence import Fence
from cachesvc.telemetry.traces.trace import SpanContext

BIG = (1 << 64) - 1
PAIRS = struct.pack(">4Q", 1, 2, BIG, 4)


def decoded(*items: dict[bytes, bytes]) -> tuple[list[Fence], int | None, bool, bool]:
    found = fence_items.decode(enumerate(items))
    return list(found.fences), found.complete_to, found.report, found.whole


def written(*fences: Fence, report: bool = False) -> list[dict[bytes, bytes]]:
    return [
        dict(zip(item[::2], item[1::2], strict=True)) for item in fence_items.encode(fences, report=report)
    ]


@pytest.mark.parametrize(
    ("item", "fences"),
    [
        ({b"p": PAIRS}, [Fence(1, 2), Fence(BIG, 4)]),
        ({b"q": PAIRS, b"u": b"1"}, [Fence(1, 2, True, unapplied=True), Fence(BIG, 4, True, unapplied=True)]),
        ({b"n": msgspec.msgpack.encode([(7, 8, True, "docs")])}, [Fence(7, 8, True, "docs")]),
        ({b"p": PAIRS[:16], b"g": b"4294967295"}, [Fence(1, 2, placement=(1 << 32) - 1)]),
        (
            {b"w": b'[[18446744073709551615,2,false,"",3],[4,5,true,"docs",6]]'},
            [Fence(BIG, 2, over=3), Fence(4, 5, True, "docs", over=6)],
        ),
    ],
)
def test_every_form_is_read(item: dict[bytes, bytes], fences: list[Fence]) -> None:
    assert decoded(item) == (fences, None, False, True)
    assert written(*fences) == [item]


def test_a_first_position_says_nothing() -> None:
    assert decoded({b"o": b"1"}) == ([], None, False, True)


def test_the_last_heartbeat_counts_and_asks_for_no_report() -> None:
    assert decoded({b"h": b"5"}, {b"p": PAIRS[:16]}, {b"h": b"3"}) == ([Fence(1, 2)], 3, False, True)


@pytest.mark.parametrize(
    "item",
    [
        {b"p": b"odd"},
        {b"n": b"\x92\x01"},
        {b"w": b"[[1,2]]"},
        {b"g": b"x"},
        {b"h": b"soon"},
        {b"p": PAIRS, b"later": b"1"},
    ],
)
def test_what_cannot_be_read_costs_nothing_of_the_others(item: dict[bytes, bytes]) -> None:
    fences, _, _, whole = decoded(
        {b"q": PAIRS[:16]}, item, {b"n": msgspec.msgpack.encode([(7, 8, False, "docs")])}
    )
    assert not whole
    assert {Fence(1, 2, True), Fence(7, 8, namespace="docs")} <= set(fences)


def test_an_item_holds_fences_of_one_placement_and_one_state() -> None:
    fences = [
        Fence(number, number, unapplied=number % 2 == 0, placement=number % 3) for number in range(1, 13)
    ]
    items = written(*fences)
    assert len(items) == 6
    assert (
        sorted((fence for item in items for fence in decoded(item)[0]), key=lambda fence: fence.at) == fences
    )


def test_no_item_is_larger_than_a_command_should_be() -> None:
    items = written(*[Fence(number, 1) for number in range(10_000)])
    assert [len(item[b"p"]) // 16 for item in items] == [4096, 4096, 1808]


def test_only_the_last_item_asks_for_a_report() -> None:
    assert [b"r" in item for item in written(Fence(1, 1), Fence(2, 2, placement=1), report=True)] == [
        False,
        True,
    ]
    assert written(report=True) == []
    assert decoded({b"p": PAIRS[:16], b"r": b"1"}) == ([Fence(1, 2)], None, True, True)


@pytest.mark.parametrize("causes", [b"", b"x", b"00-0-0-01", b"\xff " * 9])
def test_traces_that_cannot_be_read_cost_no_fence(causes: bytes) -> None:
    found = fence_items.decode([(7, {b"p": PAIRS[:16], b"t": causes})])
    assert (found.fences, found.whole, found.causes) == ([Fence(1, 2)], True, [])


def test_only_the_last_item_names_the_traces_it_comes_from() -> None:
    cause = SpanContext(1, 2, True)
    items = fence_items.encode([Fence(1, 1), Fence(2, 2, placement=1)], causes=[cause])
    assert [b"t" in item for item in items] == [False, True]
    assert items[-1][-1] == b"00-00000000000000000000000000000001-0000000000000002-01"


def test_a_paced_fence_travels_without_what_says_nothing_of_it() -> None:
    assert decoded(*written(Fence(1, 2, over=3, unapplied=True, placement=4)))[0] == [Fence(1, 2, over=3)]


def test_members_that_a_later_release_wrote_are_left_out() -> None:
    fence = Fence(BIG, 2, True, 'a "quoted" name', over=3)
    members: list[bytes | str] = [fence_items.paced_member(fence), b"[1,2,3]", "x"]
    assert fence_items.paced_fences(members) == [fence]
