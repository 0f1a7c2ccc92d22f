from collections.abc import Callable, Collection, Sequence

from cachesvc.coherence.fences import Fences
from cachesvc.model.fence import Fence


class Merger:
    """Takes fences in: the sketch, the flights that must be forgotten. One instance, one merger: own fences and the feeds'."""

    def __init__(self, fences: Fences, forget: Callable[[Collection[int]], None]) -> None:
        self._fences = fences
        self._forget = forget

    def merge(self, fences: Sequence[Fence], *, own: bool = False, region: str = "") -> None:
        """`own`: issued by this instance, for counting. `region`: whose feed brought them."""
        self._forget(self._fences.merge(fences, own, region))
