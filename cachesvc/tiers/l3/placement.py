"""The home of a key: the key's partition, and the cell that the partition is placed in.

A partition is placed by its pin, else by weighted rendezvous hashing over the active cells: those
of one region, if the partition's name has a prefix of that region (`regions.<name>.partitions`),
else all. Keys that are asked for together (one tenant, one workspace) share a partition by sharing
a `{tag}`.

While partitions move, a topology also says where they were (`former`), and a placement knows the
placement before it.
"""

import json
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from cachesvc.config.topology import Topology
from cachesvc.model.change import Target, TargetKind
from cachesvc.model.digest import digest
from cachesvc.model.partition import partition
from cachesvc.tiers.l3.rendezvous import Rendezvous

REMEMBERED = 1 << 16
"""Homes remembered per generation; there are two generations."""


class Placement:
    """The homes under one topology. Immutable: a new topology is a new placement.

    Homes are remembered in two generations: when the young one is full, it becomes the old one, and the
    former old one is forgotten. So memory is bounded, and forgetting costs neither a scan nor a stall.
    """

    def __init__(self, topology: Topology) -> None:
        self._pins = topology.pins
        weights = {name: cell.weight for name, cell in topology.cells.items() if cell.active}
        self._hash = Rendezvous(weights)
        self._by_prefix = _by_prefix(topology, weights)
        """Prefixes of partitions, with the cells of the region that has them."""
        self.id = _id_of(weights, topology.pins, self._by_prefix)
        """32 bits, never 0: a digest of the active cells with their weights, of the pins, and of
        the prefixes with their cells. Documents that agree in these have the same id, in every process
        and release."""
        self.former = Placement(as_it_was(topology)) if topology.former else None
        """The placement before the move; None unless partitions are moving."""
        pinned_to = set(topology.pins.values())
        self._homes = tuple(name for name, cell in topology.cells.items() if cell.active or name in pinned_to)
        self._young: dict[str, str] = {}
        self._old: dict[str, str] = {}

    @property
    def cells(self) -> tuple[str, ...]:
        """Every cell that is home to some partition.

        These are the active cells, and the cells that a pin names.
        """
        return self._homes

    def home(self, text: str) -> str:
        """Returns the name of the home cell of a key or of a partition."""
        found = self._young.get(text)
        return found if found is not None else self._remember(text)

    def scores(self, name: str) -> list[tuple[str, float]]:
        """Returns the cells by their rendezvous score for a partition, the highest score first.

        They are those of its region, if a prefix names one. The first cell is the home unless a pin names
        another one.
        """
        return self._hash_of(name).ranked(name.encode())

    def is_pinned(self, name: str) -> bool:
        """True if a pin places this partition."""
        return name in self._pins

    def cells_of(self, target: Target) -> tuple[str, ...]:
        """Returns the cells in which an invalidation of the target must be applied.

        A key: its home. A tag with a `{partition}`: the home of that partition. Any other tag, and a
        namespace, may be on entries of every partition: every cell that is home to some partition.
        """
        if target.kind is TargetKind.KEY:
            return (self.home(target.text),)
        if target.kind is TargetKind.TAG and partition(target.text) != target.text:
            return (self.home(target.text),)
        return self._homes

    def former_cells_of(self, target: Target) -> tuple[str, ...]:
        """Returns the cells that were home to the target and are not any more.

        They may hold copies and leases of the target, and instances that still have the former topology
        read there.
        """
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
        return self._pins.get(name) or self._hash_of(name).first(name.encode())

    def _hash_of(self, name: str) -> Rendezvous:
        for prefix, cells in self._by_prefix:
            if name.startswith(prefix):
                return cells
        return self._hash

    def __repr__(self) -> str:
        remembered = len(self._young) + len(self._old)
        counts = f"{len(self._homes)} cells, {len(self._pins)} pins, {remembered} remembered"
        return f"<Placement {self.id:08x} [{counts}]>"


def as_it_was(topology: Topology) -> Topology:
    """Returns the topology with its partitions where `former` says that they were.

    Without `former`, returns the topology itself.
    """
    former = topology.former
    if former is None:
        return topology
    cells = {
        name: replace(cell, active=name in former.cells, weight=former.cells.get(name, cell.weight))
        for name, cell in topology.cells.items()
    }
    regions = {
        name: replace(region, partitions=former.partitions.get(name, ()))
        for name, region in topology.regions.items()
    }
    return replace(topology, regions=regions, cells=cells, pins=former.pins, former=None)


def _by_prefix(topology: Topology, weights: Mapping[str, float]) -> Sequence[tuple[str, Rendezvous]]:
    """Returns the prefixes with the active cells of their region, the longest prefix first."""
    found = []
    for region, there in topology.regions.items():
        if there.partitions:
            near = {name: weight for name, weight in weights.items() if topology.cells[name].region == region}
            cells = Rendezvous(near)
            found += [(prefix, cells) for prefix in there.partitions]
    return sorted(found, key=lambda one: (-len(one[0]), one[0]))


def _id_of(
    weights: Mapping[str, float], pins: Mapping[str, str], by_prefix: Sequence[tuple[str, Rendezvous]]
) -> int:
    """Returns the placement id, which is wire format: fences carry it.

    The digest is of JSON, so that no name can run into the next one; weights stand in hex, which no
    release rounds.
    """
    cells = [[name, float(weights[name]).hex()] for name in sorted(weights)]
    document: list[object] = [cells, sorted(pins.items())]
    if by_prefix:
        document.append([[prefix, near.names] for prefix, near in by_prefix])
    text = json.dumps(document, separators=(",", ":"))
    return digest(text.encode()) & 0xFFFFFFFF or 1
