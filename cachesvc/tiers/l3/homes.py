"""The home cells of keys and targets: names of a placement joined with cell objects.

The placement may change while an instance runs (`take`), between two turns of the loop. Work that
asks several cells, and then says under which placement it was done, asks one view for all of it
(`now`): a change that is applied in the homes of one placement must not be published as one of
another (docs/coherence.md, trace 89).
"""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from cachesvc.model.change import Target
from cachesvc.model.entry import Key
from cachesvc.tiers.l3.contract import Cell
from cachesvc.tiers.l3.placement import Placement

T = TypeVar("T")


class Homes:
    """Finds the cells that a key is read from and an invalidation is applied in."""

    def __init__(self, placement: Placement, cells: Mapping[str, Cell], warm_until: int = 0) -> None:
        """`warm_until`: until then, µs, reads may find copies in former homes; 0 for never."""
        self._placement = placement
        self._cells = dict(cells)
        self.warm_until = warm_until if placement.former is not None else 0

    def now(self) -> "Homes":
        """Returns the homes as they are now, which stay so whatever is taken later."""
        return Homes(self._placement, self._cells)

    def take(self, placement: Placement, cells: Mapping[str, Cell], warm_until: int = 0) -> None:
        """Finds homes by another placement from now on; `cells` has all that it names."""
        self._placement, self._cells = placement, dict(cells)
        self.warm_until = warm_until if placement.former is not None else 0

    @property
    def placement(self) -> Placement:
        """The placement now."""
        return self._placement

    def of(self, key: Key) -> Cell:
        """Returns the home cell of a key."""
        return self._cells[self._placement.home(key.text)]

    def former_of(self, key: Key) -> Cell | None:
        """Returns the home that the key's partition has left; None if it has left none."""
        former = self._placement.former
        if former is None or (name := former.home(key.text)) == self._placement.home(key.text):
            return None
        return self._cells[name]

    def of_target(self, target: Target) -> list[Cell]:
        """Returns every cell that must apply an invalidation of this target."""
        return [self._cells[name] for name in self._placement.cells_of(target)]

    def distances(self, targets: Iterable[Target]) -> Mapping[str, float]:
        """Returns the round trips to the home cells of these targets, in seconds, by name.

        0 for a cell that was not reached yet.
        """
        cells = {cell.name: cell for target in targets for cell in self.of_target(target)}
        return {name: cell.round_trip_seconds for name, cell in cells.items()}

    def former_of_target(self, target: Target) -> list[Cell]:
        """Returns the cells that were home to this target and are not any more.

        They must apply an invalidation of the target too, after the present homes.
        """
        return [self._cells[name] for name in self._placement.former_cells_of(target)]

    def named(self, name: str) -> Cell | None:
        """Returns the cell of this name; None if the topology has none."""
        return self._cells.get(name)

    @property
    def has_former(self) -> bool:
        """True while partitions move: then `former_of_target` may name cells."""
        return self._placement.former is not None

    def move_at(self, now_us: int) -> str:
        """Returns the state of the move that is under way: `warm`, then `over`; empty for none."""
        if self._placement.former is None:
            return ""
        return "warm" if now_us < self.warm_until else "over"

    @property
    def placement_id(self) -> int:
        """The id of the placement, for fences: the placement that they were applied under."""
        return self._placement.id

    def group(self, items: Iterable[tuple[Key, T]]) -> list[tuple[Cell, list[T]]]:
        """Groups the items by the home of their key, so that each cell gets one batch."""
        groups: dict[str, tuple[Cell, list[T]]] = {}
        for key, item in items:
            cell = self.of(key)
            if (group := groups.get(cell.name)) is None:
                groups[cell.name] = (cell, [item])
            else:
                group[1].append(item)
        return list(groups.values())
