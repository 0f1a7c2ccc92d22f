"""Fences and tokens: the two forms in which an invalidation reaches the copies."""

from msgspec import Struct

EVERYTHING = "*"
"""The namespace of a paced fence that stands for all namespaces.

Every copy up to its `at` is stale at once. A queue makes it of the paced fences that it has no room
for. No namespace has this name."""

Issuers = tuple[tuple[str, int], ...]
"""Cells and the numbers of their servers, by name."""


class Fence(Struct, frozen=True, gc=False):
    """An invalidation as caches see it.

    Copies of the target with `as_of <= at` are refused; if the fence is soft, they are stale.
    """

    digest: int
    """The digest of the target."""
    at: int
    """µs since the epoch."""
    soft: bool = False
    namespace: str = ""
    """The namespace, given only for the fence of a namespace: such fences are kept exactly,
    beside the sketch."""
    unapplied: bool = False
    """True if the fence was published while the home cell could not be reached. L3 cannot
    judge by such a fence, so the instance does."""
    over: int = 0
    """µs. Above 0 the fence is paced: each entry becomes stale (not gone) at its own moment
    from `at` to `at + over`."""
    placement: int = 0
    """The placement under which the fence was applied (`Placement.id`); 0: it holds under all.
    An instance with another placement cannot rely on its home cells having the fence, and keeps it as
    unapplied."""
    issuers: Issuers = ()
    """The home cells that have applied the fence: name, and the number of the server that did
    (`tiers/l3/issuer.py`). An instance whose own connections lead to another server of that name keeps
    the fence as unapplied, and so it does if none is named."""


TokenPairs = tuple[tuple[int, int], ...]
"""A token: `(digest, at)` pairs that a read must honour as fences."""
