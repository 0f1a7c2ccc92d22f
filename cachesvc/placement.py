"""Which cell is home: the partition of a key, and the cell of a partition.

A partition is placed by its pin, else by weighted rendezvous hashing over the active cells. All that is asked together (one
tenant, one workspace) shares a partition by sharing a `{tag}` in its keys.
"""

from collections.abc import Iterable

from cachesvc.hashing.rendezvous import Rendezvous
from cachesvc.model import Target, TargetKind
from cachesvc.topology import Topology

REMEMBERED = 1 << 16
"""Homes remembered per generation; there are two."""


def partition(text: str) -> str:
    """The rule of Redis hash tags: what stands between the first `{` and the `}` after it, unless empty; else all of `text`.

    `{ws-7}:block:42` → `ws-7`; `{}:a`, `a{b` and `plain` are their own partitions. The partition of a partition is itself.
    """
    start = text.find("{")
    if start < 0:
        return text
    end = text.find("}", start + 1)
    return text[start + 1 : end] if end > start + 1 else text


def foreign_tags(text: str, tags: Iterable[str]) -> list[str]:
    """Tags that name another `{partition}` than the key's: their fences live in another home, so this key may not have them."""
    return [tag for tag in tags if "{" in tag and partition(tag) not in (tag, partition(text))]


class Placement:
    """The homes under one topology. Not changed once made: a new topology is a new placement.

    Homes are remembered in two generations: when the young one is full it becomes the old one and the oldest is forgotten.
    So memory is bounded, and forgetting costs neither a scan nor a stall.
    """

    def __init__(self, topology: Topology) -> None:
        self._pins = topology.pins
        self._hash = Rendezvous({name: cell.weight for name, cell in topology.cells.items() if cell.active})
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

    def _remember(self, text: str) -> str:
        if len(self._young) >= REMEMBERED:
            self._old, self._young = self._young, {}
        home = self._old.get(text) or self._place(partition(text))
        self._young[text] = home
        return home

    def _place(self, name: str) -> str:
        return self._pins.get(name) or self._hash.first(name.encode())

    def __repr__(self) -> str:
        return f"<Placement [{len(self._homes)} cells, {len(self._pins)} pins, {len(self._young) + len(self._old)} remembered]>"
