"""Merges fences into an instance: the rule and the flights hear of a fence in one step."""

from collections.abc import Callable, Collection, Sequence

from cachesvc.coherence.fences import Fences
from cachesvc.model.fence import Fence


class Merger:
    """Merges fences of every origin into an instance: its own, and those of the feeds.

    A merge reaches the fences known here and makes readers leave the flights of the fenced keys.
    One per instance.
    """

    def __init__(self, fences: Fences, forget: Callable[[Collection[int]], None]) -> None:
        self._fences = fences
        self._forget = forget

    def merge(self, fences: Sequence[Fence], *, own: bool = False, region: str = "") -> None:
        """Merges fences and forgets the flights of their keys and tags, in one step.

        `own`: issued by this instance, for counting. `region`: the region whose feed brought them.
        """
        self._forget(self._fences.merge(fences, own, region))
