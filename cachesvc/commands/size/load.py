"""The load document of `cachesvc size`: the expected calls of each namespace."""

from pathlib import Path

from msgspec import Struct

from cachesvc.config.document import parse, read_struct
from cachesvc.config.mistakes import Mistakes
from cachesvc.config.topology import Topology
from cachesvc.model.did_you_mean import did_you_mean
from cachesvc.model.units import Size

EXAMPLE = """\
# What callers are expected to ask. Rates are per second, of one region.
instances: 0              # of each region; 0: as many as the topology names
namespaces:
  pages:
    keys: 2000000         # different keys that have a copy at a time
    value: 1200B          # the mean value
    key_bytes: 40         # the mean key
    tags: 1               # of a copy
    reads: 20000
    l1_hits: 0.8          # shares of the reads; what is left is loaded
    l2_hits: 0.15
    l3_hits: 0.03
    puts: 50              # values that callers write
    invalidations: 100    # keys; tags beside them
    invalidated_tags: 5
"""


class NamespaceLoad(Struct, frozen=True, forbid_unknown_fields=True):
    """The calls of one namespace. Rates are per second, of one region."""

    keys: int
    """The different keys that have a copy at a time."""
    value: Size
    """The mean value."""
    key_bytes: int = 40
    """The mean key, without the namespace."""
    tags: int = 0
    """The tags of a copy, of 20 bytes each."""
    reads: float = 0.0
    l1_hits: float = 0.8
    l2_hits: float = 0.15
    l3_hits: float = 0.03
    """The shares of the reads that each tier answers.

    All others are loads, which fill the tiers."""
    puts: float = 0.0
    invalidations: float = 0.0
    """Keys that are invalidated, each by a call of its own.

    Together they cost the queue less."""
    invalidated_tags: float = 0.0

    @property
    def loads(self) -> float:
        return self.reads * max(0.0, 1 - self.l1_hits - self.l2_hits - self.l3_hits)


class Load(Struct, frozen=True, forbid_unknown_fields=True):
    """The load document."""

    namespaces: dict[str, NamespaceLoad]
    instances: int = 0
    """The instances of each region; 0: as many as the topology names."""


def load_of(path: Path, topology: Topology) -> Load:
    """Returns the load document at `path`.

    Raises `ConfigError` with every mistake, among them a namespace that the topology does not
    declare.
    """
    found = Mistakes()
    load = read_struct(parse(path, found), Load, found=found)
    for name, each in load.namespaces.items():
        where = f"$.namespaces.{name}"
        known = name in topology.namespaces
        found.require(
            known, where, f"the topology has no such namespace{did_you_mean(name, topology.namespaces)}"
        )
        _check(each, where, found)
    found.require(load.instances >= 0, "$.instances", "must not be below 0")
    for name, region in topology.regions.items():
        found.require(
            load.instances > 0 or bool(region.instances),
            "$.instances",
            f"the topology names no instance of region {name}: say how many a region has",
        )
    found.end()
    return load


def _check(load: NamespaceLoad, where: str, found: Mistakes) -> None:
    for field in ("keys", "key_bytes", "value", "tags"):
        least = 0 if field in ("tags", "value") else 1
        found.require(getattr(load, field) >= least, f"{where}.{field}", f"must be at least {least}")
    for field in ("reads", "puts", "invalidations", "invalidated_tags"):
        found.require(getattr(load, field) >= 0, f"{where}.{field}", "must not be below 0")
    hits = (load.l1_hits, load.l2_hits, load.l3_hits)
    for field, share in zip(("l1_hits", "l2_hits", "l3_hits"), hits, strict=True):
        found.require(0 <= share <= 1, f"{where}.{field}", "is a share of the reads: 0 to 1")
    found.require(
        sum(hits) <= 1 + 1e-9, f"{where}.l3_hits", f"the shares of hits are {sum(hits):g} together: 1 at most"
    )
