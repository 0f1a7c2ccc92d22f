"""The source of the keys that are read.

Keys are drawn by Zipf's law, always the same, one after the other, or in the order of a trace.

One source serves all users of a process. A process among several takes its `Part`: it draws with
a seed of its own, and takes every nth key of a scan or a trace (n processes), so that all
processes together do what one would do.
"""

from array import array
from bisect import bisect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate, count, islice, repeat
from pathlib import Path
from random import Random

from loadtests.load.traces import repeated

FORMS = "zipf:KEYS:EXPONENT, hot:KEY, scan:KEYS or trace:FILE"


@dataclass(frozen=True)
class Part:
    """The place of this process among the processes that make the load."""

    index: int = 0
    of: int = 1

    def taken(self, keys: Iterator[str]) -> Iterator[str]:
        """Every `of`th key, beginning with the one at `index`."""
        return islice(keys, self.index, None, self.of)

    def random(self, seed: int, purpose: str) -> Random:
        """Random numbers that are the same in every run, but differ by process and purpose."""
        return Random(f"{seed}:{self.index}:{purpose}")


def key_of(number: int) -> str:
    """The text of the key with this number."""
    return f"doc-{number}"


def keys_of(form: str, part: Part, seed: int) -> Iterator[str]:
    """An endless source of keys in this form.

    Raises `ValueError` for a form that is not one of `FORMS`.
    """
    kind, _, rest = form.partition(":")
    if kind not in _SOURCES or not rest:
        raise ValueError(f"{form!r}: one of {FORMS}")
    try:
        return _SOURCES[kind](rest, part, seed)
    except (ValueError, OSError) as error:
        raise ValueError(f"{form!r}: {error}") from error


def zipf(size: int, exponent: float, random: Random) -> Iterator[str]:
    """Keys of which number k (from 0) comes as often as 1 / (k + 1) ** exponent.

    The source takes 8 bytes for each of the `size` keys; a draw is a binary search.
    """
    if size < 1 or exponent < 0:
        raise ValueError("at least one key, and an exponent that is not negative")
    weights = array("d", accumulate(rank**-exponent for rank in range(1, size + 1)))
    # The search leaves out the last key: a draw that rounding puts past the end becomes the last key.
    return (key_of(bisect(weights, random.random() * weights[-1], 0, size - 1)) for _ in repeat(None))


def scan(size: int) -> Iterator[str]:
    """All keys in order, again and again.

    An LRU that is smaller than the number of keys never holds the next one.
    """
    if size < 1:
        raise ValueError("at least one key")
    return (key_of(number % size) for number in count())


def _zipf(rest: str, part: Part, seed: int) -> Iterator[str]:
    size, _, exponent = rest.partition(":")
    return zipf(int(size), float(exponent), part.random(seed, "keys"))


def _hot(key: str, part: Part, seed: int) -> Iterator[str]:
    return repeat(key)


def _scan(size: str, part: Part, seed: int) -> Iterator[str]:
    return part.taken(scan(int(size)))


def _trace(path: str, part: Part, seed: int) -> Iterator[str]:
    return part.taken(repeated(Path(path)))


_SOURCES: dict[str, Callable[[str, Part, int], Iterator[str]]] = {
    "zipf": _zipf,
    "hot": _hot,
    "scan": _scan,
    "trace": _trace,
}
