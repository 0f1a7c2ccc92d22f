"""Compares the hits of namespaces that share L1: a room for each, and one LRU for all.

    python -m loadtests.bench.l1_sharing TRACE TRACE [--budget 1 5 20] [--guaranteed 0% 10%]

Each trace is a namespace. A trace is a text file, packed if its name ends with `.gz`, with one
request per line: `key` or `key,size`, where the size is that of the value in bytes (100 if it is
left out). A key whose size changes has its largest from the beginning. The requests of the traces
are mixed evenly, so that all traces end together. A request that misses puts the entry, and nothing
expires. Without traces, the two that are committed in `traces/` are taken.

A budget is a percentage of the footprints of all keys. A guarantee holds for each namespace. The
exit code is 1 if the hits of all namespaces are together more than `BAR` points below plain LRU.
"""

import argparse
import gzip
import heapq
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, starmap
from pathlib import Path

from msgspec import Struct

from cachesvc.config.l1_rooms import RoomBytes
from cachesvc.model.clock import SystemClock
from cachesvc.model.entry import Entry, Key
from cachesvc.model.footprint import footprint
from cachesvc.model.units import Part
from cachesvc.tiers.l1.l1 import L1

BAR = 0.5
COMMITTED = Path(__file__).parent / "traces"
VALUE_BYTES = 100


class Trace(Struct, frozen=True):
    """The requests of one namespace, and the entry of each key."""

    name: str
    requests: Sequence[Key]
    entries: Mapping[str, Entry]
    """By the text of a key."""

    def footprint(self) -> int:
        keys = {key.text: key for key in self.requests}
        return sum(footprint(key.id, self.entries[text]) for text, key in keys.items())


def trace_of(path: Path, number: int) -> Trace:
    """Reads a trace, as namespace `number`. Raises `OSError` and, for a size, `ValueError`."""
    name = f"n{number}"
    keys: dict[str, Key] = {}
    sizes: dict[str, int] = {}
    requests = []
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        for line in lines:
            text, _, size = line.strip().partition(",")
            if text not in keys:
                keys[text] = Key.of(name, text)
            sizes[text] = max(sizes.get(text, 0), int(size or VALUE_BYTES))
            requests.append(keys[text])
    values = {size: bytes(size) for size in set(sizes.values())}
    return Trace(name, requests, {text: Entry(values[size], 1, 2) for text, size in sizes.items()})


def mixed(traces: Sequence[Trace]) -> Iterator[tuple[int, Key]]:
    """Yields the requests of all traces with the trace's number, each trace at an even pace."""
    for _, number, key in heapq.merge(*starmap(_paced, enumerate(traces)), key=lambda timed: timed[:2]):
        yield number, key


def _paced(number: int, trace: Trace) -> Iterator[tuple[float, int, Key]]:
    count = len(trace.requests)
    return (((place + 0.5) / count, number, key) for place, key in enumerate(trace.requests))


def hits_of(l1: L1, traces: Sequence[Trace]) -> list[int]:
    """Returns the hits of each trace, where each miss puts its entry."""
    hits = [0] * len(traces)
    for number, key in mixed(traces):
        if l1.get(key) is not None:
            hits[number] += 1
        else:
            l1.put(key, traces[number].entries[key.text])
    return hits


def compared(traces: Sequence[Trace], budget: int, guaranteed: Part) -> tuple[list[int], list[int]]:
    """Returns the hits of each trace by plain LRU, and with a room for each trace."""
    limits = RoomBytes(guaranteed.of(budget), budget)
    plain = L1(budget, 1 << 30, SystemClock())
    roomy = L1(budget, 1 << 30, SystemClock(), rooms={trace.name: limits for trace in traces})
    return hits_of(plain, traces), hits_of(roomy, traces)


def generate(folder: Path) -> None:
    """Writes the committed traces anew.

    `steady` is popular by Zipf's law. `moving` reads a window of keys that moves on, and every fifth of
    its requests is of a scan.
    """
    rng = random.Random(12)
    weights = list(accumulate(1 / rank**0.9 for rank in range(1, 3001)))
    steady = [f"{key}" for key in rng.choices(range(3000), cum_weights=weights, k=20_000)]
    moving = [
        f"s{place}" if place % 5 == 0 else f"{place // 10 + int(rng.paretovariate(1.2)) % 2000}"
        for place in range(20_000)
    ]
    for name, keys in (("steady", steady), ("moving", moving)):
        packed = gzip.compress("".join(f"{key}\n" for key in keys).encode(), mtime=0)
        (folder / f"{name}.csv.gz").write_bytes(packed)


def main(arguments: Sequence[str]) -> int:
    """Prints a line per budget and guarantee; returns 1 if a sum of hits is below the bar."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.bench.l1_sharing", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("traces", type=Path, nargs="*", help="the trace of each namespace")
    parser.add_argument("--budget", type=float, nargs="+", default=[1.0, 5.0, 20.0], help="percent")
    parser.add_argument("--guaranteed", type=Part.parse, nargs="+", default=[Part("0%"), Part("10%")])
    given = parser.parse_args(arguments)
    paths = given.traces or [COMMITTED / "steady.csv.gz", COMMITTED / "moving.csv.gz"]
    traces = [trace_of(path, number) for number, path in enumerate(paths)]
    total = sum(len(trace.requests) for trace in traces)
    print(" + ".join(path.name for path in paths))
    worst = 0.0
    for percent in given.budget:
        budget = int(sum(trace.footprint() for trace in traces) * percent / 100)
        for guaranteed in given.guaranteed:
            plain, roomy = compared(traces, budget, guaranteed)
            points = 100 * (sum(roomy) - sum(plain)) / total
            worst = min(worst, points)
            each = ", ".join(
                f"{100 * before / len(trace.requests):.2f} → {100 * after / len(trace.requests):.2f} %"
                for trace, before, after in zip(traces, plain, roomy, strict=True)
            )
            print(
                f"  budget {percent:g} %, guaranteed {guaranteed}: LRU {100 * sum(plain) / total:.2f} %, "
                f"rooms {points:+.2f} points; each {each}"
            )
    return 1 if worst < -BAR else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
