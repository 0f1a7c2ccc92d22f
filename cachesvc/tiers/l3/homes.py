"""Which cell object is home to what: placement's names joined with the cells that are connected."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from cachesvc.model.change import Target
from cachesvc.model.entry import Key
from cachesvc.tiers.l3.contract import Cell
from cachesvc.tiers.l3.placement import Placement

T = TypeVar("T")


class Homes:
    def __init__(self, placement: Placement, cells: Mapping[str, Cell]) -> None:
        self._placement = placement
        self._cells = cells

    def of(self, key: Key) -> Cell:
        """The home cell of a key."""
        return self._cells[self._placement.home(key.text)]

    def of_target(self, target: Target) -> list[Cell]:
        """Every cell that must apply an invalidation of this target."""
        return [self._cells[name] for name in self._placement.cells_of(target)]

    def former_of_target(self, target: Target) -> list[Cell]:
        """Cells that were home to this target and are not now: they must apply its invalidation too, after the homes of now."""
        return [self._cells[name] for name in self._placement.former_cells_of(target)]

    @property
    def has_former(self) -> bool:
        """Partitions are moving: `former_of_target` may name cells."""
        return self._placement.former is not None

    @property
    def placement_id(self) -> int:
        """For fences: under which placement they were applied."""
        return self._placement.id

    def group(self, items: Iterable[tuple[Key, T]]) -> list[tuple[Cell, list[T]]]:
        """The items by the home of their key, so that each cell gets one batch."""
        groups: dict[str, tuple[Cell, list[T]]] = {}
        for key, item in items:
            cell = self.of(key)
            if (group := groups.get(cell.name)) is None:
                groups[cell.name] = (cell, [item])
            else:
                group[1].append(item)
        return list(groups.values())
