"""Consistent hashing (Karger et al., STOC 1997) over a pool of servers.

Every server has about 160 points per unit of weight on a circle of 64-bit numbers (the virtual
nodes of ketama); a key belongs to the server of the first point at or after the key's digest. When
a server leaves, only the keys of its own arcs move, to the other servers in proportion to their
weights; no other key moves. Points depend on names only: not on addresses, on the order of the
pool, on the process or on the release.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from math import isfinite

from cachesvc.model.digest import digest

POINTS_PER_WEIGHT = 160
"""Points of a server of weight 1."""
_POINTS_AT_MOST = 1_000_000


class Ring:
    """The servers of one pool. Immutable: another pool is another ring."""

    def __init__(self, weights: Mapping[str, float], *, hash_point: Callable[[bytes], int] = digest) -> None:
        """Places the points of the servers.

        `weights` maps a server's name to its share of the keys. Raises `ValueError` for an empty pool or an
        impossible weight.
        """
        if not weights:
            raise ValueError("a ring needs at least one server")
        placed = sorted(
            (hash_point(b"%s#%d" % (name.encode(), nth)), name)
            for name in weights
            for nth in range(_points(weights, name))
        )
        # A list, not array('Q'): `bisect` compares the ints of a list as they are, while an array would
        # make an int object at every step.
        self.points: Sequence[int] = [point for point, _ in placed]
        """All points, in order."""
        self._owners = [name for _, name in placed]
        self._owners.append(self._owners[0])  # after the last point comes the first
        self.weights = dict(weights)

    def server(self, key_digest: int) -> str:
        """Returns the server of a key by its 64-bit digest (`Key.digest`)."""
        return self._owners[bisect_left(self.points, key_digest)]

    def position(self, key_digest: int) -> tuple[int, str]:
        """Returns the point that decides for this key, and the server that would come next.

        The second is the server that would have the key if the key's own server were not on the ring, or
        that server itself if it is alone.
        """
        at = bisect_left(self.points, key_digest)
        owner = self._owners[at]
        after = (self._owners[i % len(self.points)] for i in range(at, at + len(self.points)))
        return self.points[at % len(self.points)], next((name for name in after if name != owner), owner)

    def __repr__(self) -> str:
        return f"<Ring {self.weights} [{len(self.points)} points]>"


def _points(weights: Mapping[str, float], name: str) -> int:
    weight = weights[name]
    if not (isfinite(weight) and weight > 0):
        raise ValueError(f"weight of {name!r} is {weight}: it must be above 0")
    points = max(1, round(weight * POINTS_PER_WEIGHT))
    if points > _POINTS_AT_MOST // len(weights):
        raise ValueError(
            f"weight of {name!r} is {weight}: too many points; weights are relative, make all of them smaller"
        )
    return points
