"""The rules for a document that gives partitions other homes than the one in force.

docs/coherence.md, "Moving a partition", says why they are needed.
"""

from cachesvc.config.topology import Topology
from cachesvc.model.errors import ConfigError
from cachesvc.tiers.l3.placement import Placement, as_it_was


def check_move(before: Topology, after: Topology) -> None:
    """Raises `ConfigError` if an instance under `before` must not take the homes of `after`.

    A version in between may have been missed: then the `former` of `after` is not about `before`.
    """
    now = Placement(before).id
    if Placement(after).id == now:
        return
    if after.version <= before.version:
        why = f"must be above {before.version}, which is in force: other cells are home to partitions"
        raise ConfigError("$.version", why)
    if after.version == before.version + 1 and not is_from(after, now):
        why = "does not say where partitions are now, and they move: let `cachesvc cell` write the document"
        raise ConfigError("$.former", why)


def is_from(topology: Topology, placement: int) -> bool:
    """True if the topology says that partitions had their homes under this placement before."""
    return topology.former is not None and Placement(as_it_was(topology)).id == placement
