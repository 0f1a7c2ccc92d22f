"""Weighted rendezvous hashing: a partition ranks all cells, and the first one is its home.

Thaler and Ravishankar, "Using name-based mappings to increase hit rates" (IEEE/ACM ToN 1998); the
weighted score `-weight / ln(u)` is by Schindelhauer and Schomaker, "Weighted distributed hash
tables" (SPAA 2005). When a cell leaves, only its own partitions move; when a cell joins, only the
partitions that it gets move.
"""

import math
from collections.abc import Mapping

from xxhash import xxh3_64_intdigest


class Rendezvous:
    """Names with weights above 0. A text goes to the same name in every process and release."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        # Sorted, so that the winner of a tie does not depend on the order in the document.
        self._candidates = [(name.encode() + b"\0", weights[name], name) for name in sorted(weights)]

    @property
    def names(self) -> list[str]:
        """The names, sorted."""
        return [name for _, _, name in self._candidates]

    def first(self, text: bytes) -> str:
        """Returns the name with the highest score. Raises `ValueError` if there are no names."""
        if not self._candidates:
            raise ValueError("nothing to choose from")
        best, chosen = -1.0, ""
        for prefix, weight, name in self._candidates:
            score = _score(prefix + text, weight)
            if score > best:
                best, chosen = score, name
        return chosen

    def ranked(self, text: bytes) -> list[tuple[str, float]]:
        """Returns all names with their scores, the highest score first."""
        scores = [(name, _score(prefix + text, weight)) for prefix, weight, name in self._candidates]
        return sorted(scores, key=lambda scored: -scored[1])


def _score(text: bytes, weight: float) -> float:
    # 52 bits and a half are exact in a float, so `u` is never rounded to 0 or 1, where the score is not
    # finite.
    u = ((xxh3_64_intdigest(text) >> 12) + 0.5) / 4503599627370496.0
    return -weight / math.log(u)
