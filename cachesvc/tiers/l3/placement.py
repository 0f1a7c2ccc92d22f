"""Which cell is home: the partition of a key, and the cell of a partition.

A partition is placed by its pin, else by weighted rendezvous hashing over the active cells. All that is asked together (one
tenant, one workspace) shares a partition by sharing a `{tag}` in its keys.

While partitions move, a topology also says where they were (`former`), and a placement knows the one before it.
"""

import json
from collections.abc import Mapping

from msgspec.structs import replace

from cachesvc.config.topology import Topology
from cachesvc.model.change import Target, TargetKind
from cachesvc.model.digest import digest
from cachesvc.model.partition import partition
from cachesvc.tiers.l3.rendezvous import Rendezvous

REMEMBERED = 1 << 16
"""Homes remembered per generation; there are two."""


class Placement:
    """The homes under one topology. Not changed once made: a new topology is a new placement.

    Homes are remembered in two generations: when the young one is full it becomes the old one and the oldest is forgotten.
    So memory is bounded, and forgetting costs neither a scan nor a stall.
    """

    def __init__(self, topology: Topology) -> None:
        self._pins = topology.pins
        weights = {name: cell.weight for name, cell in topology.cells.items() if cell.active}
        self._hash = Rendezvous(weights)
        self.id = _id_of(weights, topology.pins)
        """32 bits, never 0. Of the active cells with their weights, and the pins: documents that agree in these have the same
        one, in every process and release."""
        self.former = Placement(as_it_was(topology)) if topology.former else None
        pinned_to = set(topology.pins.values())
        self._homes = tuple(name for name, cell in topology.cells.items() if cell.active or name in pinned_to)
        self._young: dict[str, str] = {}
        self._old: dict[str, str] = {}

    @property
    def cells(self) -> tuple[str, ...]:
        """Every cell that is home to some partition: the active ones, and those that a pin names."""
        return self._homes

    def home(self, text: str) -> str:
        """The name of the home cell of a key or of a partition."""
        found = self._young.get(text)
        return found if found is not None else self._remember(text)

    def scores(self, name: str) -> list[tuple[str, float]]:
        """The cells that a partition could be placed in by its hash, with their scores, the home first; a pin overrides it."""
        return self._hash.ranked(name.encode())

    def is_pinned(self, name: str) -> bool:
        return name in self._pins

    def cells_of(self, target: Target) -> tuple[str, ...]:
        """The cells in which an invalidation must be applied.

        A key: its home. A tag with a `{partition}`: that partition's home. Any other tag and a namespace may be on entries
        of every partition: every cell that is home to some.
        """
        if target.kind is TargetKind.KEY:
            return (self.home(target.text),)
        if target.kind is TargetKind.TAG and partition(target.text) != target.text:
            return (self.home(target.text),)
        return self._homes

    def former_cells_of(self, target: Target) -> tuple[str, ...]:
        """The cells that were home to what it concerns and are not any more. They may hold its copies and leases, and instances
        that still have the former topology read there."""
        if self.former is None:
            return ()
        now = self.cells_of(target)
        return tuple(name for name in self.former.cells_of(target) if name not in now)

    def _remember(self, text: str) -> str:
        if len(self._young) >= REMEMBERED:
            self._old, self._young = self._young, {}
        home = self._old.get(text) or self._place(partition(text))
        self._young[text] = home
        return home

    def _place(self, name: str) -> str:
        return self._pins.get(name) or self._hash.first(name.encode())

    def __repr__(self) -> str:
        remembered = len(self._young) + len(self._old)
        return f"<Placement {self.id:08x} [{len(self._homes)} cells, {len(self._pins)} pins, {remembered} remembered]>"


def as_it_was(topology: Topology) -> Topology:
    """The topology with its partitions where `former` says that they were. Without `former`, itself."""
    former = topology.former
    if former is None:
        return topology
    cells = {
        name: replace(cell, active=name in former.cells, weight=former.cells.get(name, cell.weight))
        for name, cell in topology.cells.items()
    }
    return replace(topology, cells=cells, pins=former.pins, former=None)


def _id_of(weights: Mapping[str, float], pins: Mapping[str, str]) -> int:
    """Wire format: fences carry it. JSON, so that no name can run into the next; weights in hex, which no release rounds."""
    cells = [[name, float(weights[name]).hex()] for name in sorted(weights)]
    text = json.dumps([cells, sorted(pins.items())], separators=(",", ":"))
    return digest(text.encode()) & 0xFFFFFFFF or 1
