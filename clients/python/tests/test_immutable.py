"""A decoded object is shared between callers only if none of them can change it."""

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import msgspec
import pytest
from cachesvc_client.values.immutable import is_immutable


class Colour(enum.Enum):
    RED = "red"


class Frozen(msgspec.Struct, frozen=True):
    name: str
    colours: tuple[Colour, ...] = ()
    parent: "Frozen | None" = None


class FrozenOutside(msgspec.Struct, frozen=True):
    names: list[str]


class Open(msgspec.Struct):
    name: str


@dataclass(frozen=True)
class Point:
    x: int
    at: datetime


@dataclass
class Movable:
    x: int


class Pair(NamedTuple):
    left: int
    right: UUID


@pytest.mark.parametrize(
    "kind",
    [
        bytes,
        str,
        int,
        None,
        Colour,
        Frozen,
        Point,
        Pair,
        tuple[int, ...],
        frozenset[str],
        int | None,
        Literal["a"],
        Annotated[int, "!"],
    ],
)
def test_sure(kind: Any) -> None:
    assert is_immutable(kind)


@pytest.mark.parametrize(
    "kind",
    [
        Any,
        object,
        list[int],
        dict[str, int],
        tuple,
        FrozenOutside,
        Open,
        Movable,
        tuple[Open, ...],
        int | list[int],
        bytearray,
    ],
)
def test_not_sure(kind: Any) -> None:
    assert not is_immutable(kind)
