from msgspec import Struct


class Fence(Struct, frozen=True, gc=False):
    """An invalidation as caches see it: copies of the target with `as_of <= at` are refused (or, if soft, stale)."""

    digest: int
    at: int
    soft: bool = False
    namespace: str = ""
    """Named only by a namespace fence: those are kept exactly, beside the sketch."""
    unapplied: bool = False
    """Published while the home cell could not be reached: L3 cannot judge it, so the instance does."""
    over: int = 0
    """µs. Above 0 the fence is paced: each entry becomes stale (not gone) at its own moment from `at` to `at + over`."""
    placement: int = 0
    """The placement under which it was applied (`Placement.id`); 0: every one. An instance under another placement cannot rely
    on its home cells having it, and keeps it as unapplied."""


TokenPairs = tuple[tuple[int, int], ...]
"""A token: `(digest, at)` pairs that a read must honour as fences."""
