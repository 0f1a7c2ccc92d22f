"""The rings of a region's instances: that of all, and that of the client's own zone.

    none of the instances is in the zone, or all are → each key is on the ring of all
    else, while the zone's instances are well        → each key is on the zone's ring
    some of them are out                             → a part of the keys goes over to the ring of all

Of its own keys, the zone keeps 1.4 times the load of the instances that are well (the
overprovisioning factor of Envoy's priority levels): all keys while 5 of 7 instances are well, 70 %
with one of two, and none without any. The others are spread over the instances of all zones, so
that no other zone has to take them alone. Which keys these are follows from their digests: all
clients move the same ones, and a key has one instance for each zone's clients.
"""

from collections.abc import Mapping

from cachesvc_client.instances.endpoints import Endpoint
from cachesvc_client.instances.ring import Ring

MOST_LOAD = 1.4
"""The load of the zone's instances that are well, if it was 1 while all were."""
_PARTS = 1 << 16
"""The digest's low bits choose a part; its place on a ring follows from the high ones."""


class Rings:
    """The rings of one client. One thread at a time may call `use` and `look`."""

    def __init__(self, zone: str = "") -> None:
        """`zone`: that of the client; empty if it is not known."""
        self._zone = zone
        self._near: list[Endpoint] = []
        self._all: Ring | None = None
        self._own: Ring | None = None
        self._kept = 0
        """The parts of the keys, of `_PARTS`, that are on the ring of the own zone."""

    def __repr__(self) -> str:
        kept = f", {100 * self._kept // _PARTS} % on that of zone {self._zone}" if self._own else ""
        return f"<Rings [{self._all!r}{kept}]>"

    def use(self, instances: Mapping[str, Endpoint], zones: Mapping[str, str]) -> None:
        """Makes the rings of these instances; `zones` has the zone of each that is in one."""
        near = {name: one for name, one in instances.items() if self._zone and zones.get(name) == self._zone}
        self._near = list(near.values()) if len(near) < len(instances) else []
        self._all = _ring(self._all, instances)
        self._own = _ring(self._own, near if self._near else {})
        self.look()

    def look(self) -> None:
        """Decides anew how many of the keys the own zone keeps."""
        well = sum(not one.is_doubted for one in self._near)
        self._kept = min(_PARTS, int(_PARTS * MOST_LOAD * well / len(self._near))) if self._near else 0

    @property
    def near(self) -> list[Endpoint]:
        """The instances of the own zone; empty if it has none of them, or all, or keeps no key."""
        return self._near if self._kept else []

    def of(self, key_digest: int) -> Ring | None:
        """Returns the ring that a key is on; None if no instances are known."""
        return self._own if key_digest % _PARTS < self._kept else self._all

    def preference(self, key_digest: int) -> list[str]:
        """Returns all instances: each has the key if those before it are gone."""
        near = self._own.preference(key_digest) if key_digest % _PARTS < self._kept and self._own else []
        return list(dict.fromkeys((*near, *(self._all.preference(key_digest) if self._all else ()))))


def _ring(before: Ring | None, instances: Mapping[str, Endpoint]) -> Ring | None:
    """Returns the ring of these instances: the one before if their names are the same."""
    if before is not None and before.names == instances.keys():
        return before
    return Ring(instances) if instances else None
