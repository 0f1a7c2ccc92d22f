"""Rooms of L1: what the document says becomes bytes of an instance, or a clear refusal."""

from typing import Any

import pytest

from cachesvc.config.document import read_struct
from cachesvc.config.l1_rooms import RoomBytes, rooms_of
from cachesvc.config.service import L1, Service, check_together
from cachesvc.config.topology import Topology
from cachesvc.model.errors import ConfigError
from cachesvc.model.units import Size

MIB = 1 << 20
BUDGET = 256 * MIB


def topology(**rooms: Any) -> Topology:
    """Namespaces, each with the given `l1`, or none."""
    namespaces = {name: {"owner": "web", **({} if l1 is None else {"l1": l1})} for name, l1 in rooms.items()}
    document = {
        "version": 1,
        "regions": {"local": {"queue": "redis://h/0"}},
        "cells": {"c1": {"region": "local", "url": "redis://h/1"}},
        "namespaces": namespaces,
    }
    return read_struct(document, Topology)


def refusal(budget: str, **rooms: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        check_together(Service(l1=L1(budget=Size.parse(budget))), topology(**rooms))
    return str(caught.value)


def test_as_long_as_nobody_asks_for_a_room_there_are_none() -> None:
    assert rooms_of(topology(pages=None, docs={}), BUDGET) == {}


def test_with_the_first_room_every_namespace_has_one() -> None:
    assert rooms_of(topology(pages={"guaranteed": "64MiB", "at_most": "40%"}, docs=None), BUDGET) == {
        "pages": RoomBytes(64 * MIB, BUDGET * 2 // 5),
        "docs": RoomBytes(0, BUDGET),
    }


def test_a_percentage_is_of_the_budget_of_the_instance() -> None:
    rooms = topology(pages={"guaranteed": "12.5%"})
    assert rooms_of(rooms, 80 * MIB)["pages"].guaranteed == 10 * MIB
    assert rooms_of(rooms, 8 * MIB)["pages"].guaranteed == MIB


def test_a_limit_above_the_budget_is_the_budget() -> None:
    assert rooms_of(topology(pages={"at_most": "1GiB"}), BUDGET)["pages"].at_most == BUDGET


def test_guarantees_that_fit_together_are_accepted() -> None:
    rooms = {"pages": {"guaranteed": "128MiB"}, "docs": {"guaranteed": "50%", "at_most": "128MiB"}}
    check_together(Service(region="local"), topology(**rooms))


def test_guarantees_above_the_budget_are_refused_by_name_and_sum() -> None:
    assert refusal("100MiB", pages={"guaranteed": "64MiB"}, docs={"guaranteed": "40%"}) == (
        "topology:$.namespaces.pages.l1.guaranteed: all guarantees (pages 64MiB, docs 40MiB) are 104MiB "
        "together, but l1.budget of the service document is 100MiB: lower them, or raise l1.budget"
    )


def test_of_many_guarantees_the_largest_are_named() -> None:
    rooms = {f"n{number}": {"guaranteed": f"{number}0MiB"} for number in range(1, 8)}
    assert "(n7 70MiB, n6 60MiB, n5 50MiB, n4 40MiB, n3 30MiB and 2 others) are 280MiB" in refusal(
        "256MiB", **rooms
    )


def test_a_guarantee_above_the_limit_of_its_own_namespace_is_refused() -> None:
    assert refusal("256MiB", pages={"guaranteed": "64MiB", "at_most": "10%"}) == (
        "topology:$.namespaces.pages.l1.guaranteed: is 64MiB, above at_most (25.6MiB): lower it, or raise "
        "at_most"
    )


@pytest.mark.parametrize("nothing", [0, "0B", "0%"])
def test_a_limit_of_nothing_is_refused(nothing: Any) -> None:
    assert "pages.l1.at_most: must be above 0" in refusal("256MiB", pages={"at_most": nothing})
