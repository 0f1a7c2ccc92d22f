"""Which key is asked for next: drawn by Zipf's law, always the same, one after the other, or as a trace has it.

One source serves all users of a process. A process of several takes its `Part`: it draws with a seed of its own, and takes
every so-manieth key of a scan or a trace, so that all of them together do what one would do.
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
    """This process among those that make the load."""

    index: int = 0
    of: int = 1

    def taken(self, keys: Iterator[str]) -> Iterator[str]:
        return islice(keys, self.index, None, self.of)

    def random(self, seed: int, purpose: str) -> Random:
        """The same in every run, and independent of the other processes and purposes."""
        return Random(f"{seed}:{self.index}:{purpose}")


def key_of(number: int) -> str:
    return f"doc-{number}"


def keys_of(form: str, part: Part, seed: int) -> Iterator[str]:
    """An endless source. Raises `ValueError` for none of `FORMS`."""
    kind, _, rest = form.partition(":")
    if kind not in _SOURCES or not rest:
        raise ValueError(f"{form!r}: one of {FORMS}")
    try:
        return _SOURCES[kind](rest, part, seed)
    except (ValueError, OSError) as error:
        raise ValueError(f"{form!r}: {error}") from error


def zipf(size: int, exponent: float, random: Random) -> Iterator[str]:
    """Key k (from 0) as often as 1 / (k + 1) ** exponent, of `size` keys. 8 bytes a key; a draw is a search by halves."""
    if size < 1 or exponent < 0:
        raise ValueError("at least one key, and an exponent that is not negative")
    weights = array("d", accumulate(rank**-exponent for rank in range(1, size + 1)))
    # Sought among all but the last: a draw that rounding puts past the end is the last key.
    return (key_of(bisect(weights, random.random() * weights[-1], 0, size - 1)) for _ in repeat(None))


def scan(size: int) -> Iterator[str]:
    """All keys in order, again and again: what an LRU that is smaller than them never finds."""
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
