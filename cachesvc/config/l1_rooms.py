"""Rooms of L1: the `l1` of each namespace in bytes of one instance, and their rules."""

from collections.abc import Mapping

from msgspec import Struct

from cachesvc.config.mistakes import Mistakes
from cachesvc.config.topology import L1Room, Topology

MOST_NAMED = 5


class RoomBytes(Struct, frozen=True):
    """The room of a namespace in the L1 of one instance, in bytes."""

    guaranteed: int
    at_most: int


def rooms_of(topology: Topology, budget: int) -> Mapping[str, RoomBytes]:
    """Returns each namespace's room in an L1 of `budget` bytes; none if all have the defaults."""
    namespaces = topology.namespaces.items()
    if all(namespace.l1 == L1Room() for _, namespace in namespaces):
        return {}
    return {name: _bytes_of(namespace.l1, budget) for name, namespace in namespaces}


def note_rooms(topology: Topology, budget: int, found: Mistakes) -> None:
    """Notes rooms that an L1 of `budget` bytes does not have, or that keep nothing.

    `found` has the mistakes of the topology.
    """
    guarantees = {}
    for name, room in rooms_of(topology, budget).items():
        path = f"$.namespaces.{name}.l1"
        found.require(room.at_most > 0, f"{path}.at_most", "must be above 0, or nothing is kept")
        found.require(
            room.guaranteed <= room.at_most,
            f"{path}.guaranteed",
            f"is {_mib(room.guaranteed)}, above at_most ({_mib(room.at_most)}): lower it, or raise at_most",
            f"{path}.at_most",
        )
        if room.guaranteed:
            guarantees[name] = room.guaranteed
    promised = sum(guarantees.values())
    if promised <= budget:
        return
    largest = sorted(guarantees, key=guarantees.__getitem__, reverse=True)
    named = ", ".join(f"{name} {_mib(guarantees[name])}" for name in largest[:MOST_NAMED])
    others = f" and {len(largest) - MOST_NAMED} others" if len(largest) > MOST_NAMED else ""
    found.note(
        f"$.namespaces.{largest[0]}.l1.guaranteed",
        f"all guarantees ({named}{others}) are {_mib(promised)} together, but l1.budget of the service "
        f"document is {_mib(budget)}: lower them, or raise l1.budget",
    )


def _bytes_of(room: L1Room, budget: int) -> RoomBytes:
    return RoomBytes(room.guaranteed.of(budget), min(budget, room.at_most.of(budget)))


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.4g}MiB"
